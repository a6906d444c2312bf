package peertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// helperVariable makes this test binary a helper that starts peers in the
// directory it names and then waits to be killed.
const helperVariable = "PEERTEST_HELPER_DIR"

// helperMain starts a Redis, and a PHP with workers, and prints their addresses.
// It ends with its standard input, so that it outlives nobody.
func helperMain(dir string) {
	redis, redisAddr, err := helperPeer("redis-server", func(path, addr string, port int) command {
		return redisCommand(path, dir, port, nil)
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	php, phpAddr, err := helperPeer("php", func(path, addr string, port int) command {
		return phpCommand(path, dir, os.Getenv("PEERTEST_SCRIPT"), addr, []string{"PHP_CLI_SERVER_WORKERS=2"})
	})
	if err != nil {
		fmt.Println(errors.Join(err, redis.kill()))
		os.Exit(1)
	}
	fmt.Println(redisAddr, phpAddr)
	_, err = io.Copy(io.Discard, os.Stdin)
	if err = errors.Join(err, redis.kill(), php.kill()); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func helperPeer(name string, build func(path, addr string, port int) command) (*process, string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	process, ports, err := serve(ctx, 1, func(ports []int) (command, error) {
		return build(path, loopback(ports[0]), ports[0]), nil
	})
	if err != nil {
		return nil, "", err
	}
	return process, loopback(ports[0]), nil
}

func TestServeTakesAnotherPortWhenOneIsTaken(t *testing.T) {
	t.Parallel()
	path := RealRedis(t).command.path
	holder, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Close() })
	taken := holder.Addr().(*net.TCPAddr).Port

	tries := 0
	p, ports, err := serve(t.Context(), 1, func(ports []int) (command, error) {
		tries++
		if tries == 1 {
			ports[0] = taken
		}
		return redisCommand(path, t.TempDir(), ports[0], nil), nil
	})
	if err != nil {
		t.Fatalf("serve() = %v, want nil", err)
	}
	t.Cleanup(func() { _ = p.kill() })
	if tries != 2 || ports[0] == taken {
		t.Errorf("serve() took port %d at try %d, want another than %d at try 2", ports[0], tries, taken)
	}
}

func TestAPeerThatIsNeverReadyIsEndedAtTheDeadline(t *testing.T) {
	t.Parallel()
	c := RealRedis(t).command
	port, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	c = redisCommand(c.path, t.TempDir(), port[0], nil)
	refuse := errors.New("never ready")
	probed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.probe = func(context.Context) error {
		select {
		case probed <- struct{}{}:
			cancel()
		default:
		}
		return refuse
	}
	_, err = start(ctx, c)
	if !errors.Is(err, refuse) || !errors.Is(err, context.Canceled) {
		t.Errorf("start() = %v, want both %v and %v", err, refuse, context.Canceled)
	}
	if err := dial(t.Context(), loopback(port[0])); err == nil {
		t.Error("the peer still accepts connections, want it ended")
	}
}

func TestFreePortsAreNeverGivenTwice(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 20 {
		ports, err := freePorts(3)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range ports {
			if seen[port] || port < firstPort || port > lastPort {
				t.Errorf("port %d, want a new one between %d and %d", port, firstPort, lastPort)
			}
			seen[port] = true
		}
	}
}

func TestTailIsTheEndOfTheLog(t *testing.T) {
	t.Parallel()
	p := &process{command: command{name: "peer", dir: t.TempDir()}}
	text := make([]byte, 3*tailBytes)
	for i := range text {
		text[i] = byte('a' + i/tailBytes)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "peer.log"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := p.tail(), string(text[2*tailBytes:]); got != want {
		t.Errorf("tail() has %d bytes from %q, want the last %d", len(got), got[:1], len(want))
	}
}
