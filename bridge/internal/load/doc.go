// Package load measures a whole installation of separate processes
// ([tebraproxy/bridge/internal/fleet]), and beside it, in the same run, a bare worker
// that keeps no promise. bridge/BENCHMARKS.md has the results. Without flags its
// tests run for moments, to show that they work; what they are for is asked for:
//
//	go test ./bridge/internal/load -run Soak -v -timeout 3h -load.soak 1h -load.rate 200 -load.out DIR
//	go test ./bridge/internal/load -run Latency -v -load.latency 15s -load.out DIR
//	go test ./bridge/internal/load -run Throughput -v -load.throughput 10s -load.out DIR
//	go test ./bridge/internal/load -run Scaling -v -load.scaling 10s -load.out DIR
//	go test ./bridge/internal/load -run Backlog -v -load.backlog 1000000 -load.out DIR
//
// Each prints its tables and writes them, or what they are made of, to DIR. The plots
// in bridge/benchmarks are drawn from the results beside them with
//
//	go test ./bridge/internal/load -run Plots -load.update
//
// Soak sends requests of all kinds at a steady rate, lets some fail, and looks
// every ten seconds at the memory, goroutines and file descriptors of each
// process, and at memory, keys and entries in Redis. RETENTION is four minutes, so
// that a plateau is reached in six. Functions refuse a LEDGER_TTL below Pub/Sub's
// retention of a day, so the driver shortens what is left of each record's time to
// live to the same four minutes, once it is answered; a record that has none fails
// the test. What grows from the first third of the plateau to the last by more than
// its tolerance fails it, too, and so does a request with no answer, or two.
//
// Latency sends in an open loop: when requests come, chance decides, and no answer
// moves it, so that what is slow meets as many as what is quick. Times are from just
// before XADD until the answer was read. Throughput, Scaling and Backlog always have
// more waiting than can be under way. Where CPU time is told, a core is 1, and what
// other programs on the machine took stands beside it.
//
// Pushes go from the local Pub/Sub to the functions without a balancer in between, as
// that would be a third of the work that is measured; the soak has one.
//
// All need redis-server and Linux, whose /proc they read; Throughput needs Google's
// emulator.
package load
