// Package peertest starts the real servers that tests talk to: Redis, the
// Pub/Sub emulator, PHP and the Firebase Auth emulator. Only _test.go files
// import it.
//
// A fake agrees with whoever wrote it, so tests meet the real part wherever one
// can run. Where a part is missing on a developer's machine, what has a faithful
// stand-in falls back to it and says so once; what has none skips the test and
// prints why. With CI=true nothing falls back or skips: a missing part fails the
// test.
//
//	              part there      part missing           missing, CI=true
//	Redis         redis-server    miniredis              fail
//	RealRedis     redis-server    skip                   fail
//	Emulator      the emulator    pstest (never pushes)  fail
//	RealEmulator  the emulator    skip                   fail
//	PHP           php -S          skip                   fail
//	FirebaseAuth  firebase-tools  skip                   fail
//
// Start starts the system's own programs in the same way, for tests that kill and
// pause them.
//
// # Lifetimes
//
// Redis and PHP start in milliseconds: every test has its own, ended in
// t.Cleanup. The two emulators take seconds: all tests of a test binary share
// one, and tell their data apart by project. A package that uses them ends them
// in its TestMain:
//
//	func TestMain(m *testing.M) { peertest.Main(m) }
//
// Every peer listens on 127.0.0.1 only, on a port of its own, keeps its files in
// a temporary directory, and is killed with the whole process group that it
// leads. On Linux the kernel kills it as well when the test binary dies without
// cleaning up. When a test fails, the end of the log of each of its peers is in
// the test's output.
package peertest
