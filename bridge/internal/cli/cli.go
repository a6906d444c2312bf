package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/local"
)

// app is one run of the command line.
type app struct {
	environ []string
	env     environment // the same, by name
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer

	now          func() time.Time
	zone         *time.Location // in which people are told times
	newID        func() string
	isTerminal   func(io.Writer) bool
	terminalSize func(io.Writer) (columns, lines int)
	runLocal     func(context.Context, local.Options, io.Writer) error

	output format // --output, of all commands
	began  bool   // a command's own work began: it was used as it should be
}

// Run runs the command that args (without the program's name) ask for, and
// returns its exit code; the root command's help lists them. environ has the form
// of os.Environ. Nothing else of the process is used but the file system and the
// network. When ctx ends, the command stops as its help says.
func Run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{
		environ: environ, env: newEnvironment(environ),
		stdin: stdin, stdout: stdout, stderr: stderr,
		now: time.Now, zone: time.Local, newID: uuid.NewString,
		isTerminal: isTerminal, terminalSize: terminalSize, runLocal: local.Run,
	}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(append([]string{}, args...)) // for nil it would take the process's own
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.began { // the library's own errors are all about usage
		err = &usageError{err}
	}
	a.report(cmd, err)
	return exitCode(err)
}

// report tells a person what went wrong.
func (a *app) report(cmd *cobra.Command, err error) {
	s := a.styleFor(a.stderr)
	fmt.Fprintf(a.stderr, "%s %s\n", s.bad("tebra:"), printable(err.Error()))
	if isUsage(err) {
		fmt.Fprintf(a.stderr, "%s\n", s.dim("See '"+cmd.CommandPath()+" --help'."))
	}
}

const rootHelp = `tebra is the terminal of those who run a Tebra bridge: it sends requests as an
application would, shows what becomes of them, and runs the whole pipeline on
this machine.

Commands find a running 'tebra local' by themselves. For another pipeline give
--redis, or REDIS_URL in the environment. What was asked for goes to stdout, as
text or with --output json as one object a line; progress and errors go to
stderr. Colours are for terminals only, and for nobody with NO_COLOR set.

Exit codes:
  0    it worked; for a request: it was answered with success
  1    it failed; for a request: it was answered with an error
  2    bad usage or configuration
  3    no answer in time
  130  interrupted (Ctrl-C) before it was done`

const rootExamples = `  tebra local
  tebra send syncSchedule date=2026-11-23
  tebra status
  tebra watch`

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "tebra",
		Short:         "The command line of the Tebra bridge",
		Long:          rootHelp,
		Example:       rootExamples,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
	}
	addOutputFlag(root, &a.output)
	for _, group := range a.commands() {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title + ":"})
		for _, cmd := range group.commands {
			cmd.GroupID = group.title
			root.AddCommand(cmd)
		}
	}
	fitHelp(root)
	return root
}

// commandGroup is commands under one title of the help.
type commandGroup struct {
	title    string
	commands []*cobra.Command
}

// commands is where every command is registered.
func (a *app) commands() []commandGroup {
	return []commandGroup{
		{"Requests", []*cobra.Command{
			a.sendCommand(),
			a.watchCommand(),
			a.traceCommand(),
			a.historyCommand(),
			a.compareCommand(),
		}},
		{"Operations", []*cobra.Command{
			a.statusCommand(),
			a.deadLettersCommand(),
			a.doctorCommand(),
			a.consoleCommand(),
		}},
		{"On this machine", []*cobra.Command{
			a.localCommand(),
		}},
	}
}

// unknownCommand refuses what is left of the arguments when they name no command.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("there is no command %q; did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return fmt.Errorf("there is no command %q", args[0])
}

// noArguments refuses arguments.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is one too many: %s takes flags only", args[0], cmd.Name())
	}
	return nil
}

// exclude returns an error if both flags are given.
func exclude(cmd *cobra.Command, one, other string) error {
	if cmd.Flags().Changed(one) && cmd.Flags().Changed(other) {
		return usagef("--%s and --%s exclude each other; give one of them", one, other)
	}
	return nil
}

// runE makes work a command's function, and notes when it begins.
func (a *app) runE(work func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.began = true
		return work(cmd, args)
	}
}

// environment is the process's environment.
type environment map[string]string

// newEnvironment reads environ; of several values of a name the first counts, as
// for os.Getenv.
func newEnvironment(environ []string) environment {
	env := make(environment, len(environ))
	for _, line := range environ {
		name, value, ok := strings.Cut(line, "=")
		if _, again := env[name]; ok && !again {
			env[name] = value
		}
	}
	return env
}

func (e environment) lookup(name string) (string, bool) {
	value, ok := e[name]
	return value, ok
}
