package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/policy"
)

func TestHelpIsWhatItWas(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"help":       {"--help"},
		"help-send":  {"send", "--help"},
		"help-local": {"local", "--help"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &command{args: args}
			c.golden(t, name, c.run(t, t.Context()))
		})
	}
}

func TestWithoutACommandTheHelpIsPrinted(t *testing.T) {
	t.Parallel()
	c := &command{}
	c.golden(t, "help", c.run(t, t.Context()))
}

// all returns cmd and every command under it.
func all(cmd *cobra.Command) []*cobra.Command {
	commands := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		commands = append(commands, all(sub)...)
	}
	return commands
}

func TestEveryCommandHasHelpWithExamplesAndBothOutputs(t *testing.T) {
	t.Parallel()
	for _, cmd := range all((&app{}).rootCommand()) {
		if cmd.Short == "" || cmd.Long == "" {
			t.Errorf("%s has Short %q, Long of %d bytes, want both", cmd.CommandPath(), cmd.Short, len(cmd.Long))
		}
		if cmd.HasParent() && !cmd.HasSubCommands() && !strings.Contains(cmd.Example, cmd.CommandPath()) {
			t.Errorf("%s has the examples %q, want one that uses it", cmd.CommandPath(), cmd.Example)
		}
		for line := range strings.Lines(cmd.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s has the example %q, want it indented by two", cmd.CommandPath(), line)
			}
		}
		for _, format := range []string{"table", "json"} {
			if err := cmd.ParseFlags([]string{"--output", format}); err != nil {
				t.Errorf("%s --output %s: %v, want it understood", cmd.CommandPath(), format, err)
			}
		}
		if err := cmd.ParseFlags([]string{"--output", "yaml"}); err == nil {
			t.Errorf("%s --output yaml was understood, want it refused", cmd.CommandPath())
		}
	}
}

// TestNoHelpIsWiderThanATerminal, whatever command's it is, flags included.
func TestNoHelpIsWiderThanATerminal(t *testing.T) {
	t.Parallel()
	for _, cmd := range all((&app{}).rootCommand()) {
		c := &command{args: append(strings.Fields(cmd.CommandPath())[1:], "--help")}
		c.expect(t, c.run(t, t.Context()), exitOK)
		for line := range strings.Lines(c.stdout.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%s --help has a line of %d columns, want at most 80: %q", cmd.CommandPath(), n, line)
			}
		}
	}
}

func TestHelpIsBrokenBetweenWordsAndKeepsItsLists(t *testing.T) {
	t.Parallel()
	const text = "Aa bb cc dd ee\nff, gg.\n\nList:\n  0  it is longer than that\n  1  so is this\nÄä öö üü ññ"
	const want = "Aa bb cc dd\nee ff, gg.\n\nList:\n  0  it is longer than that\n  1  so is this\nÄä öö üü ññ"
	if got := flow(text, 11); got != want {
		t.Errorf("flow() = %q, want %q", got, want)
	}
}

func TestAnUnknownCommandIsBadUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ command, want string }{
		{"sned", `there is no command "sned"; did you mean send?`},
		{"launch", `there is no command "launch"` + "\n"},
	} {
		c := &command{args: []string{test.command, "health"}}
		c.expect(t, c.run(t, t.Context()), exitUsage, test.want, "See 'tebra --help'.")
	}
}

func TestCompletionKnowsActionsAndFormats(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"__complete", "send", ""}, "syncSchedule\tread\n"},
		{[]string{"__complete", "send", "health", "--output", ""}, "json\n"},
		{[]string{"completion", "bash"}, "bash completion"},
	} {
		c := &command{args: test.args}
		c.expect(t, c.run(t, t.Context()), exitOK)
		if got := c.stdout.String(); !strings.Contains(got, test.want) {
			t.Errorf("tebra %q printed %q, want %q in it", test.args, got, test.want)
		}
	}
}

func TestLocalPassesItsFlagsOn(t *testing.T) {
	t.Parallel()
	changed := func(change func(*local.Options)) local.Options {
		o := local.DefaultOptions()
		change(&o)
		return o
	}
	tests := []struct {
		name string
		args []string
		env  []string
		want local.Options
	}{
		{"nothing", nil, nil, local.DefaultOptions()},
		{"nothing, whatever the environment names",
			nil, []string{"REDIS_URL=redis://production", "PUBSUB_EMULATOR_HOST=elsewhere:1", "STREAM_PREFIX=p", "TEBRA_INTERNAL_API_KEY=k"},
			local.DefaultOptions()},
		{"for programs", []string{"--output", "json"}, nil, changed(func(o *local.Options) { o.JSON = true })},
		{"fast", []string{"--fast"}, nil, changed(func(o *local.Options) {
			o.MinBackoff, o.MaxBackoff = 100*time.Millisecond, time.Second
		})},
		{"the policy", []string{"--min-backoff", "2s", "--max-backoff", "3s", "--max-attempts", "5", "-v"}, nil, changed(func(o *local.Options) {
			o.MinBackoff, o.MaxBackoff, o.MaxAttempts, o.Verbose = 2*time.Second, 3*time.Second, 5, true
		})},
		{"real parts", []string{"--redis", "redis://127.0.0.1:1", "--prefix", "p", "--pubsub-emulator", "127.0.0.1:2", "--project", "demo",
			"--php-api", "http://127.0.0.1:3/api", "--policy", "policy.yaml"}, []string{"TEBRA_INTERNAL_API_KEY=k"},
			changed(func(o *local.Options) {
				o.Redis, o.Prefix, o.PubSubEmulator, o.Project = "redis://127.0.0.1:1", "p", "127.0.0.1:2", "demo"
				o.PHPAPI, o.PHPAPIKey, o.PolicyFile = "http://127.0.0.1:3/api", "k", "policy.yaml"
			})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var got local.Options
			c := &command{args: append([]string{"local"}, test.args...), env: test.env}
			c.local = func(_ context.Context, o local.Options, w io.Writer) error {
				got = o
				_, err := fmt.Fprintln(w, "running")
				return err
			}
			c.expect(t, c.run(t, t.Context()), exitOK)
			for _, line := range test.env {
				if !slices.Contains(got.Environ, line) {
					t.Errorf("Environ = %q, want the command's with %q", got.Environ, line)
				}
			}
			if got.Operator != defaultOperator() {
				t.Errorf("Operator = %q, want %q, who acts in the console", got.Operator, defaultOperator())
			}
			got.Environ, got.Operator = nil, ""
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", test.want) {
				t.Errorf("options = %+v, want %+v", got, test.want)
			}
			if c.stdout.String() != "running\n" {
				t.Errorf("stdout = %q, want what the pipeline printed", c.stdout.String())
			}
		})
	}
}

func TestLocalRefusesBadUsageBeforeItStarts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"now"}, `"now" is one too many: local takes flags only`},
		{[]string{"--fast", "--min-backoff", "1s"}, "--fast and --min-backoff exclude each other"},
		{[]string{"--fast", "--max-backoff", "1s"}, "--fast and --max-backoff exclude each other"},
		{[]string{"--max-attempts", "4"}, "--max-attempts is 4: want 5 to 100"},
		{[]string{"--php-api", "https://api.example"}, "TEBRA_INTERNAL_API_KEY"},
		{[]string{"--prefix", ""}, "--prefix: "},
	}
	for _, test := range tests {
		c := &command{args: append([]string{"local"}, test.args...)}
		c.local = func(context.Context, local.Options, io.Writer) error {
			t.Errorf("tebra local %q started a pipeline, want none", test.args)
			return nil
		}
		c.expect(t, c.run(t, t.Context()), exitUsage, test.want)
	}
}

func TestLocalsErrorsHaveTheirExitCodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err  error
		want int
	}{
		{&config.Error{Problems: []string{"PORT is not a whole number"}}, exitUsage},
		{fmt.Errorf("reading the policy: %w", &policy.InvalidError{Problems: []policy.Problem{{Message: "no such lane"}}}), exitUsage},
		{errors.New("the port is taken"), exitFailed},
		{nil, exitOK},
	}
	for _, test := range tests {
		c := &command{args: []string{"local"}}
		c.local = func(context.Context, local.Options, io.Writer) error { return test.err }
		c.expect(t, c.run(t, t.Context()), test.want)
	}
}

func TestErrorsAreColouredOnATerminalOnly(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		terminal bool
		env      []string
		want     bool
	}{{true, nil, true}, {true, []string{"NO_COLOR="}, true}, {true, []string{"NO_COLOR=1"}, false}, {true, []string{"TERM=dumb"}, false}, {false, nil, false}} {
		c := &command{args: []string{"sned"}, terminal: test.terminal, env: test.env}
		c.expect(t, c.run(t, t.Context()), exitUsage)
		if got := strings.Contains(c.stderr.String(), "\x1b["); got != test.want {
			t.Errorf("coloured (terminal %v, %q) = %v, want %v", test.terminal, test.env, got, test.want)
		}
	}
}

func TestPrintableLeavesNothingThatSteersATerminal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain ü\n\tüber": "plain ü\n\tüber",
		"\x1b[2J\r\a\x7f": "�[2J���",
		"\u009b2J":        "�2J",
		"\x9b2J":          "�2J",
	} {
		if got := printable(text); got != want {
			t.Errorf("printable(%q) = %q, want %q", text, got, want)
		}
	}
}
