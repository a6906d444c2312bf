// Package fleet runs a whole installation as separate processes: redis-server,
// Google's Pub/Sub emulator or the local one, the real bridge and function
// binaries, and the stand-in for the PHP API. Tests kill, stop, pause and restart
// them, and measure them. Only _test.go files import it.
//
//	driver (the test) ──▶ redis-server ◀── bridge × n ──▶ Pub/Sub ──push──▶ balancer (in the driver)
//	                            ▲                                              │
//	                            └──────────── function × n ◀───────────────────┘
//	                                              └──▶ stand-in API ──▶ journal (a file)
//
// The binaries are built once for a test binary. What has no binary of its own, the
// stand-in and the local Pub/Sub, is the test binary started again, which is why a
// package that uses this one has
//
//	func TestMain(m *testing.M) { fleet.Main(m) }
//
// Everything listens on 127.0.0.1, and ends with the test. Logs are in
// [Config.Dir], a file for each part, for all of its runs.
package fleet
