// Package load measures a whole installation of separate processes
// ([tebraproxy/bridge/internal/fleet]). Its tests run for seconds, to show that
// they work; what they are for is asked for with flags:
//
//	go test ./bridge/internal/load -run Soak -v -timeout 3h -load.soak 1h -load.rate 200 -load.out DIR
//
// Soak sends requests of all kinds at a steady rate, lets some fail, and looks
// every ten seconds at the memory, goroutines and file descriptors of each
// process, and at memory, keys and entries in Redis. RETENTION is four minutes, so
// that a plateau is reached in six. Functions refuse a LEDGER_TTL below Pub/Sub's
// retention of a day, so the driver shortens what is left of each record's time to
// live to the same four minutes, once it is answered; a record that has none fails
// the test. What grows from the first third of the plateau to the last by more than
// its tolerance fails it, too, and so does a request with no answer, or two. DIR gets
// soak.csv, all samples, and soak.md, the verdict.
//
// It needs redis-server and Linux, whose /proc it reads.
package load
