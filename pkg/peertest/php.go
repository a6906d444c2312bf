package peertest

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const phpStartTimeout = 20 * time.Second

// PHPServer is PHP's built-in web server with one router script.
type PHPServer struct {
	addr    string
	process *process
}

// PHP serves the PHP file script, which gets every request whatever its path,
// until the test ends. env holds NAME=value pairs for it; with
// PHP_CLI_SERVER_WORKERS=n it answers n requests at a time instead of one.
// Errors of the script go to the log, not into its answers. Without php in PATH
// it skips the test.
func PHP(t testing.TB, script string, env ...string) *PHPServer {
	t.Helper()
	path, err := exec.LookPath("php")
	if err != nil {
		requireReal(t, fmt.Errorf("no php (%w); install PHP's command line", err))
	}
	script, err = filepath.Abs(script)
	if err != nil {
		t.Fatalf("PHP script: %v", err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), phpStartTimeout)
	defer cancel()
	process, ports, err := serve(ctx, 1, func(ports []int) (command, error) {
		return phpCommand(path, dir, script, loopback(ports[0]), env), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.kill(); err != nil {
			t.Error(err)
		}
	})
	logOnFailure(t, process)
	return &PHPServer{addr: loopback(ports[0]), process: process}
}

// phpGroup runs PHP in the background of a shell that takes the whole process
// group along when it is told to end. PHP's master process does not: its workers
// go on without it.
const phpGroup = `trap 'kill -KILL 0' TERM; "$0" "$@" & wait`

func phpCommand(path, dir, script, addr string, env []string) command {
	return command{
		name: "php",
		path: "/bin/sh",
		args: []string{
			"-c", phpGroup,
			path, "-d", "display_errors=0", "-d", "log_errors=1", "-d", "error_log=", "-S", addr, script,
		},
		env:         env,
		dir:         dir,
		deathSignal: syscall.SIGTERM,
		ready:       fmt.Sprintf("Development Server (http://%s) started", addr),
		probe:       func(ctx context.Context) error { return dial(ctx, addr) },
	}
}

// URL returns where the script is served, without a slash at the end.
func (s *PHPServer) URL() string { return "http://" + s.addr }

// dial returns nil when addr accepts a connection.
func dial(ctx context.Context, addr string) error {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
