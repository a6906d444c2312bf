package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/tebra"
)

const watchHelp = `Show requests as they come and how they go on, from now on, until Ctrl-C.

On a terminal each request has one line, which changes with its state; what is
answered moves up, what is under way stays at the bottom. In a pipe, and with
--output json, each change is a line of its own. Exit code 0 on Ctrl-C.

When a request arrived and how long it took is left out where it came so long
before that it isn't known: 'tebra history' looks further back.`

const watchExamples = `  tebra watch
  tebra watch --user u1 --action createAppointment
  tebra watch --status error | tee failures.txt
  tebra watch --output json | jq -c 'select(.attempts > 1)'`

type watchOptions struct {
	pipeline pipelineFlags
	filter   requestFlags
	status   string
}

func (o watchOptions) shows(r inspect.Request) bool {
	return o.status == "" || tebra.State(o.status) == r.State
}

func (a *app) watchCommand() *cobra.Command {
	var o watchOptions
	cmd := &cobra.Command{
		Use:     "watch",
		Short:   "Watch requests live",
		Long:    watchHelp,
		Example: watchExamples,
		Args:    noArguments,
		RunE:    a.runE(func(cmd *cobra.Command, _ []string) error { return a.watch(cmd, o) }),
	}
	o.filter.register(cmd)
	cmd.Flags().StringVar(&o.status, "status", "", "only while in this `status`: pending, processing, success or error")
	_ = cmd.RegisterFlagCompletionFunc("status", completeStates()) // the flag is there
	o.pipeline.register(cmd.Flags())
	return cmd
}

func (a *app) watch(cmd *cobra.Command, o watchOptions) error {
	switch tebra.State(o.status) {
	case "", tebra.Pending, tebra.Processing, tebra.Success, tebra.Failed:
	default:
		return usagef("--status is %q: want pending, processing, success or error", o.status)
	}
	l, err := a.look(cmd, o.pipeline)
	if err != nil {
		return err
	}
	defer l.close()
	ctx := cmd.Context()
	w, err := l.NewWatch(ctx, o.filter.filter())
	if err != nil {
		return cantLook(ctx, err)
	}
	screen := a.newLive(a.stdout)
	if a.output == formatJSON {
		screen = nil
	}
	if screen == nil {
		return a.watchLines(ctx, o, w)
	}
	fmt.Fprintf(a.stderr, "Watching %s at %s. Ctrl-C ends it.\n", l.keys.Requests(), l.where)
	return a.watchScreen(ctx, o, w, screen)
}

// changes calls each for what has changed, every quarter of a second or so, until
// ctx ends or each returns an error. That Redis can't be read is told, once until it
// can again.
func (a *app) changes(ctx context.Context, w *inspect.Watch, each func([]inspect.Request) error) error {
	healthy := true
	for ctx.Err() == nil {
		changed, err := w.Next(ctx)
		if err != nil {
			if pause(ctx, readPause) && healthy {
				fmt.Fprintf(a.stderr, "%s %s; trying again\n", a.styleFor(a.stderr).bad("tebra:"), printable(err.Error()))
				healthy = false
			}
			continue
		}
		healthy = true
		if err := each(changed); err != nil {
			return err
		}
	}
	return nil
}

// watchLines prints a line for each change.
func (a *app) watchLines(ctx context.Context, o watchOptions, w *inspect.Watch) error {
	p := a.newPrinter()
	return a.changes(ctx, w, func(changed []inspect.Request) error {
		for _, r := range changed {
			switch {
			case !o.shows(r):
			case p.asJSON():
				p.object(asObject(r, r.Changed))
			default:
				p.line(a.watchLine(r, r.Changed)...)
			}
		}
		return p.err
	})
}

// watchScreen keeps a line for each request under way at the bottom of the terminal.
func (a *app) watchScreen(ctx context.Context, o watchOptions, w *inspect.Watch, screen *live) error {
	s := a.styleFor(a.stdout)
	err := a.changes(ctx, w, func(changed []inspect.Request) error {
		var done []string
		for _, r := range changed {
			if (r.State.Terminal() || (r.State == "" && r.ErrorCode != "")) && o.shows(r) {
				done = append(done, joined(s, a.watchLine(r, r.Changed)))
			}
		}
		return screen.draw(done, a.underWay(o, w, s, screen.room()))
	})
	if err != nil {
		return fmt.Errorf("printing to stdout: %w", err)
	}
	return nil
}

// underWay returns a line for each request under way, the oldest first, and how many
// there was no room for.
func (a *app) underWay(o watchOptions, w *inspect.Watch, s style, room int) []string {
	var lines []string
	more := 0
	for _, r := range w.UnderWay() {
		switch {
		case !o.shows(r):
		case len(lines) < room-1:
			lines = append(lines, joined(s, a.watchLine(r, a.now())))
		default:
			more++
		}
	}
	if more > 0 {
		lines = append(lines, s.dim(fmt.Sprintf("… and %d more", more)))
	}
	return lines
}

// watchLine is a request as a line, at a time.
func (a *app) watchLine(r inspect.Request, now time.Time) []cell {
	state := stateWord(r)
	state.text = fmt.Sprintf("%-10s", state.text)
	var notes []string
	if r.Attempts > 0 {
		notes = append(notes, "attempt "+strconv.Itoa(r.Attempts))
	}
	if r.ErrorCode != "" {
		notes = append(notes, string(r.ErrorCode))
	}
	arrived := ""
	if !r.Arrived.IsZero() {
		arrived = a.clockTime(r.Arrived)
	}
	return []cell{
		painted(dimmed, fmt.Sprintf("%-12s", arrived)), word("  "), state,
		word(fmt.Sprintf("  %8s  %-20s  %s  %s", timeTaken(r, now), r.Action, r.UserID, r.RequestID)),
		word(strings.TrimRight("  "+strings.Join(notes, ", "), " ")),
	}
}
