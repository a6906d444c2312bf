package peertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// exitTimeout is how long a process may take to end after a signal.
	exitTimeout = 10 * time.Second
	// bindAttempts is how often a peer is started on other ports because one
	// was taken between finding and using it.
	bindAttempts = 5
	// logBytes is how much of a log is searched for signs of readiness.
	logBytes = 1 << 20
	// tailBytes is how much of a peer's log goes into a test's output.
	tailBytes = 4 << 10
)

// portTaken matches what the peers print when they can't listen.
var portTaken = regexp.MustCompile(`(?i)address already in use|port \d+ is not open|port taken`)

// errPortTaken says that a peer ended because its port was in use.
var errPortTaken = errors.New("port taken")

// command says how to start a peer and how to see that it serves.
type command struct {
	name string // for people
	path string
	args []string
	env  []string // added to this process's own
	dir  string   // working directory; the log is in it
	// deathSignal is what Linux sends the peer when this process dies.
	deathSignal syscall.Signal
	// ready is in the log once the peer listens. It is the peer's own word: a
	// connection alone could reach whoever took the port before it.
	ready string
	// probe asks the peer whether it answers, after ready was seen.
	probe func(context.Context) error
}

func (c command) logFile() string { return filepath.Join(c.dir, c.name+".log") }

// process is a running peer, the leader of its own process group.
type process struct {
	command
	cmd      *exec.Cmd
	logStart int64         // where in the log this run begins
	done     chan struct{} // closed once it has ended and was waited for
	err      error         // how it ended; read after done
}

// serve starts the peer that build describes on n free ports, and on others if
// one was taken meanwhile. It returns once the peer is ready.
func serve(ctx context.Context, n int, build func(ports []int) (command, error)) (*process, []int, error) {
	var taken error
	for range bindAttempts {
		ports, err := freePorts(n)
		if err != nil {
			return nil, nil, err
		}
		c, err := build(ports)
		if err != nil {
			return nil, nil, err
		}
		p, err := start(ctx, c)
		if !errors.Is(err, errPortTaken) {
			return p, ports, err
		}
		taken = err
	}
	return nil, nil, taken
}

// start starts a peer and returns once it is ready. A peer that ends before, or
// is not ready when ctx ends, is an error that quotes its log, and leaves no
// process behind.
func start(ctx context.Context, c command) (*process, error) {
	p, err := spawn(c)
	if err != nil {
		return nil, err
	}
	if err := p.awaitReady(ctx); err != nil {
		err = fmt.Errorf("start %s: %w; the end of its log:\n%s", c.name, err, p.tail())
		return nil, errors.Join(err, p.kill())
	}
	return p, nil
}

func spawn(c command) (*process, error) {
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", c.name, err)
	}
	defer log.Close() // the child has its own descriptor
	info, err := log.Stat()
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", c.name, err)
	}
	cmd := exec.Command(c.path, c.args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = processAttributes(c.deathSignal)

	p := &process{command: c, cmd: cmd, logStart: info.Size(), done: make(chan struct{})}
	started := make(chan error, 1)
	go p.own(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.path, err)
	}
	return p, nil
}

// own starts the process and waits for its end, on one operating system thread:
// on Linux the death signal comes when the thread ends that started the child,
// not the process, so that thread must live as long as the child does.
func (p *process) own(started chan<- error) {
	defer close(p.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
}

func (p *process) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error
	for {
		if last = p.checkReady(ctx); last == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return p.earlyEnd()
		case <-ctx.Done():
			return fmt.Errorf("%w while waiting until it is ready: %w", ctx.Err(), last)
		}
	}
}

func (p *process) checkReady(ctx context.Context) error {
	log, err := p.log()
	if err != nil {
		return err
	}
	if !strings.Contains(log, p.ready) {
		return fmt.Errorf("its log lacks %q", p.ready)
	}
	return p.probe(ctx)
}

func (p *process) earlyEnd() error {
	log, err := p.log()
	if err != nil {
		return err
	}
	if portTaken.MatchString(log) {
		return fmt.Errorf("it ended (%v): %w", p.err, errPortTaken)
	}
	return fmt.Errorf("it ended before it was ready (%v)", p.err)
}

// log returns what this run of the process has printed so far, at most
// logBytes of it.
func (p *process) log() (string, error) {
	file, err := os.Open(p.logFile())
	if err != nil {
		return "", fmt.Errorf("read the log of %s: %w", p.name, err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.NewSectionReader(file, p.logStart, logBytes))
	if err != nil {
		return "", fmt.Errorf("read the log of %s: %w", p.name, err)
	}
	return string(text), nil
}

// tail returns the end of the log, for people.
func (p *process) tail() string {
	file, err := os.Open(p.logFile())
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err.Error()
	}
	from := max(0, info.Size()-tailBytes)
	text, err := io.ReadAll(io.NewSectionReader(file, from, tailBytes))
	if err != nil {
		return err.Error()
	}
	return strings.ToValidUTF8(string(text), "?")
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends a signal to the whole process group.
func (p *process) signal(s syscall.Signal) error {
	if !p.running() {
		return fmt.Errorf("%s is not running", p.name)
	}
	if err := signalGroup(p.cmd.Process.Pid, s); err != nil {
		return fmt.Errorf("send %v to %s: %w", s, p.name, err)
	}
	return nil
}

// discard kills the process and removes its directory.
func (p *process) discard() error { return errors.Join(p.kill(), os.RemoveAll(p.dir)) }

// kill ends the process group at once and waits for the process. It does
// nothing when the process has ended.
func (p *process) kill() error {
	if !p.running() {
		return nil
	}
	return p.end(syscall.SIGKILL)
}

// end sends a signal that ends the process, and waits until it has.
func (p *process) end(s syscall.Signal) error { return p.endWithin(s, exitTimeout) }

func (p *process) endWithin(s syscall.Signal, patience time.Duration) error {
	if err := p.signal(s); err != nil && !errors.Is(err, syscall.ESRCH) { // ESRCH: it is just ending
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("%s still runs %v after %v", p.name, patience, s)
	}
}
