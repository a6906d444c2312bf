package bridge

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
)

// bridgeProcess is a bridge in a process of its own, which a test may kill.
type bridgeProcess struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *boundedBuffer
	done chan struct{} // closed once it has ended
}

// startProcess starts the test binary as a bridge. The test's end kills it, and
// so does the end of this process, by closing its standard input.
func (b *bundle) startProcess(more ...string) *bridgeProcess {
	b.Helper()
	p := &bridgeProcess{t: b.T, out: &boundedBuffer{}, done: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(append(os.Environ(), asBridge+"=1"), b.environ(more...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		b.Fatalf("start a bridge process: %v", err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended is in ProcessState
		stdin.Close()
	}()
	b.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		if b.Failed() {
			b.Logf("the end of what bridge process %d printed:\n%s", p.cmd.Process.Pid, p.out)
		}
	})
	return p
}

// signal sends a signal to the process.
func (p *bridgeProcess) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("send %v to the bridge: %v", s, err)
	}
}

// kill ends the process as kill -9 does, and waits until it is gone.
func (p *bridgeProcess) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.done
}

// exit waits for the process to end by itself and returns its exit status, -1
// after a signal.
func (p *bridgeProcess) exit(within time.Duration) int {
	p.t.Helper()
	peertest.Eventually(p.t, within, "the bridge process to end", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
	return p.cmd.ProcessState.ExitCode()
}

// exitWithParent ends this process when its standard input does.
func exitWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(3)
}

// boundedBuffer keeps the last bytes that were written to it.
type boundedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() > 64<<10 {
		b.buf.Next(32 << 10)
	}
	return b.buf.Write(p)
}

func (b *boundedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
