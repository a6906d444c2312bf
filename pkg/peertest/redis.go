package peertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// redisStartTimeout leaves time for loading what a long test has written, on a machine
// that gives the server little of its processors: 130 MB take a second of one.
const redisStartTimeout = time.Minute

// RedisServer is one Redis, of one test. Its methods that start, stop and
// pause it are for the test's own goroutine; the others are safe for concurrent
// use.
type RedisServer struct {
	t       testing.TB
	addr    string
	command command              // starts the server again where it was
	process *process             // nil for the stand-in
	standIn *miniredis.Miniredis // nil for the real server
}

// RedisOption changes how redis-server is started. The stand-in knows no
// options, so a test that gives one needs the real server.
type RedisOption func(*redisConfig)

type redisConfig struct {
	args []string
	acl  []string
}

// WithArgs adds redis-server arguments, for example "--appendonly", "yes",
// "--appendfsync", "always". They go after the defaults of [Redis], and win.
func WithArgs(args ...string) RedisOption {
	return func(c *redisConfig) { c.args = append(c.args, args...) }
}

// WithReplicaOf makes the server a replica of master.
func WithReplicaOf(master *RedisServer) RedisOption {
	return WithArgs("--replicaof", strings.Replace(master.Addr(), ":", " ", 1))
}

// WithACL writes the lines into an ACL file and has the server read it. Each is
// one "user …" rule; users that no line names keep Redis's defaults.
func WithACL(lines ...string) RedisOption {
	return func(c *redisConfig) { c.acl = append(c.acl, lines...) }
}

// Redis starts a Redis that keeps its data in memory, and ends it with the
// test. Without redis-server in PATH it is miniredis on the wall clock, and what
// only a server process can do skips the test: an option, [RedisServer.Kill] and
// the like.
func Redis(t testing.TB, opts ...RedisOption) *RedisServer {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err == nil {
		return realRedis(t, path, opts)
	}
	missing := missingRedis(err)
	if len(opts) > 0 {
		requireReal(t, missing)
	}
	fallBack(t, missing, "miniredis")
	return standInRedis(t)
}

// RealRedis is [Redis] for tests that the stand-in would not do for. Without
// redis-server it skips the test.
func RealRedis(t testing.TB, opts ...RedisOption) *RedisServer {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		requireReal(t, missingRedis(err))
	}
	return realRedis(t, path, opts)
}

func missingRedis(err error) error {
	return fmt.Errorf("no redis-server (%w); install Redis 6.2 or later", err)
}

func realRedis(t testing.TB, path string, opts []RedisOption) *RedisServer {
	t.Helper()
	var config redisConfig
	for _, opt := range opts {
		opt(&config)
	}
	dir := t.TempDir()
	if err := config.writeACL(dir); err != nil {
		t.Fatal(err)
	}
	s := &RedisServer{t: t}
	ctx, cancel := context.WithTimeout(t.Context(), redisStartTimeout)
	defer cancel()
	process, ports, err := serve(ctx, 1, func(ports []int) (command, error) {
		return redisCommand(path, dir, ports[0], config.args), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.process, s.command, s.addr = process, process.command, loopback(ports[0])
	t.Cleanup(s.cleanUp)
	return s
}

// aclFile is what [WithACL] writes, in the server's directory.
const aclFile = "users.acl"

func (c *redisConfig) writeACL(dir string) error {
	if len(c.acl) == 0 {
		return nil
	}
	path := filepath.Join(dir, aclFile)
	if err := os.WriteFile(path, []byte(strings.Join(c.acl, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the ACL file: %w", err)
	}
	c.args = append(c.args, "--aclfile", path)
	return nil
}

func redisCommand(path, dir string, port int, args []string) command {
	defaults := []string{
		"--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--dir", dir,
		"--save", "", "--appendonly", "no",
		// The default makes a new replica wait 5 seconds for others.
		"--repl-diskless-sync-delay", "0",
	}
	return command{
		name:        "redis-server",
		path:        path,
		args:        append(defaults, args...),
		dir:         dir,
		deathSignal: syscall.SIGKILL,
		ready:       "Ready to accept connections",
		probe:       func(ctx context.Context) error { return pingRedis(ctx, loopback(port)) },
	}
}

// pingRedis returns nil once the server answers commands, even if only to say
// that its ACL wants a login first.
func pingRedis(ctx context.Context, addr string) error {
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialTimeout: time.Second})
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := client.Ping(ctx).Err()
	if redis.HasErrorPrefix(err, "NOAUTH") || redis.HasErrorPrefix(err, "NOPERM") {
		return nil
	}
	return err
}

// standInRedis returns a miniredis whose keys expire by the wall clock, as a
// server's do.
func standInRedis(t testing.TB) *RedisServer {
	t.Helper()
	mini := miniredis.NewMiniRedis()
	mini.ClockTTL(true)
	if err := mini.Start(); err != nil {
		t.Fatalf("start miniredis: %v", err)
	}
	t.Cleanup(mini.Close)
	return &RedisServer{t: t, addr: mini.Addr(), standIn: mini}
}

// Real reports whether this is redis-server, not the stand-in.
func (s *RedisServer) Real() bool { return s.standIn == nil }

// NeedReal skips t, with a printed reason, when this is the stand-in.
func (s *RedisServer) NeedReal(t testing.TB) {
	t.Helper()
	if !s.Real() {
		requireReal(t, errors.New("no redis-server, and miniredis is no process of its own"))
	}
}

// Addr returns host:port. It stays the same over [RedisServer.Start].
func (s *RedisServer) Addr() string { return s.addr }

// URL returns the address as a redis:// URL.
func (s *RedisServer) URL() string { return "redis://" + s.addr }

// Client returns a new client of the server, which the test closes at its end.
func (s *RedisServer) Client() *redis.Client {
	client := redis.NewClient(&redis.Options{
		Addr:                  s.addr,
		ContextTimeoutEnabled: true, // a paused server must not outlast the caller's deadline
	})
	s.t.Cleanup(func() { _ = client.Close() }) // tests may close it themselves
	return client
}

// Stop ends the server as its operator would (SIGTERM) and waits for its end.
func (s *RedisServer) Stop() {
	s.t.Helper()
	s.NeedReal(s.t)
	s.check(s.process.end(syscall.SIGTERM))
}

// Kill ends the server at once (SIGKILL) and waits for its end. What it had not
// written to disk is lost.
func (s *RedisServer) Kill() {
	s.t.Helper()
	s.NeedReal(s.t)
	s.check(s.process.end(syscall.SIGKILL))
}

// Pause stops the server's clock (SIGSTOP): it keeps its connections and
// answers nothing. Resume it before [RedisServer.Stop].
func (s *RedisServer) Pause() {
	s.t.Helper()
	s.NeedReal(s.t)
	s.check(s.process.signal(signalPause))
}

// Resume lets a paused server go on.
func (s *RedisServer) Resume() {
	s.t.Helper()
	s.NeedReal(s.t)
	s.check(s.process.signal(signalResume))
}

// Start starts a server again that was stopped or killed: the same address,
// arguments and directory, so with what it had on disk.
func (s *RedisServer) Start() {
	s.t.Helper()
	s.NeedReal(s.t)
	if s.process.running() {
		s.t.Fatalf("redis-server at %s runs already", s.addr)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), redisStartTimeout)
	defer cancel()
	process, err := start(ctx, s.command)
	s.check(err)
	s.process = process
}

func (s *RedisServer) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *RedisServer) cleanUp() {
	if s.t.Failed() {
		s.t.Logf("the end of the log of redis-server at %s:\n%s", s.addr, s.process.tail())
	}
	if err := s.process.kill(); err != nil {
		s.t.Error(err)
	}
}
