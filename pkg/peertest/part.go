package peertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// programStartTimeout bounds how long a [Part] may take until it is ready.
const programStartTimeout = 30 * time.Second

// Part says how to start one of the system's own parts as a process of its own.
type Part struct {
	Name string // for people, and of the log
	Path string
	Args []string
	Env  []string // added to this process's own
	Dir  string   // where it runs and where Name.log is
	// Ready is in the log once the program serves. Empty, it counts as ready once
	// it has started.
	Ready string
}

// Process is a program that runs, or ran. Its methods are safe for concurrent use,
// one after another.
type Process struct {
	patience time.Duration // how long Stop waits

	mu      sync.Mutex
	command command
	process *process
}

// Start starts the program that build describes on n free ports of 127.0.0.1,
// on others if one was taken meanwhile, and returns once it is ready. The test's
// end kills it.
func Start(t testing.TB, n int, build func(ports []int) Part) *Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), programStartTimeout)
	defer cancel()
	process, _, err := serve(ctx, n, func(ports []int) (command, error) { return build(ports).command(), nil })
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{patience: exitTimeout, command: process.command, process: process}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p Part) command() command {
	return command{
		name: p.Name, path: p.Path, args: p.Args, env: p.Env, dir: p.Dir, ready: p.Ready,
		deathSignal: syscall.SIGKILL,
		probe:       func(context.Context) error { return nil },
	}
}

// Name returns the program's name.
func (p *Process) Name() string { return p.command.name }

// LogFile returns the path of the file that all runs of the program write to.
func (p *Process) LogFile() string { return p.command.logFile() }

// PID returns the process ID of the last run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process.cmd.Process.Pid
}

// Running reports whether the program runs; a paused one does.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process.running()
}

// Exit returns how the last run ended, once it has.
func (p *Process) Exit() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process.running() {
		return "running"
	}
	return p.process.cmd.ProcessState.String()
}

// Kill ends the program at once (SIGKILL), if it runs, and waits for its end.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process.kill()
}

// ErrSlow says that a program did not end by itself in the 10 s that Cloud Run
// would give it.
var ErrSlow = errors.New("did not stop in time and was killed")

// Stop asks the program to end (SIGTERM) and waits for its end. One that takes
// longer than 10 s is killed, as Cloud Run does it; the error then is [ErrSlow].
func (p *Process) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.process.endWithin(syscall.SIGTERM, p.patience)
	if err == nil || !p.process.running() {
		return nil
	}
	return errors.Join(fmt.Errorf("%s %w", p.command.name, ErrSlow), p.process.kill())
}

// Pause stops the program's clock (SIGSTOP): it keeps its connections and answers
// nothing.
func (p *Process) Pause() error { return p.signal(signalPause) }

// Resume lets a paused program go on.
func (p *Process) Resume() error { return p.signal(signalResume) }

func (p *Process) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process.signal(s)
}

// Start starts the program again that has ended, with the same arguments, and
// returns once it is ready.
func (p *Process) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process.running() {
		return fmt.Errorf("%s runs already", p.command.name)
	}
	ctx, cancel := context.WithTimeout(ctx, programStartTimeout)
	defer cancel()
	process, err := start(ctx, p.command)
	if err != nil {
		return err
	}
	p.process = process
	return nil
}
