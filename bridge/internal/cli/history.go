package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/tebra"
)

const historyHelp = `Show what was asked, from the requests stream, and how it ended, from the status
stream: the newest requests, the oldest of them first. Without params, unless
--show-payloads asks for them.

The streams go back as far as RETENTION, 24 h by default.`

const historyExamples = `  tebra history
  tebra history --user u1 --since 2h
  tebra history --action createAppointment --since 2026-11-23 --limit 500
  tebra history --since 1h --output json | jq 'select(.status=="error")'`

type historyOptions struct {
	pipeline pipelineFlags
	filter   requestFlags
	since    *moment
	limit    int
	payloads bool
}

// mostHistory bounds --limit.
const mostHistory = 10_000

func (a *app) historyCommand() *cobra.Command {
	o := historyOptions{since: a.newMoment()}
	cmd := &cobra.Command{
		Use:     "history",
		Short:   "Show what was asked and how it ended",
		Long:    historyHelp,
		Example: historyExamples,
		Args:    noArguments,
		RunE:    a.runE(func(cmd *cobra.Command, _ []string) error { return a.history(cmd, o) }),
	}
	o.filter.register(cmd)
	cmd.Flags().Var(o.since, "since", "only what arrived since: how long ago, such as 90m or 3d, or a time")
	cmd.Flags().IntVar(&o.limit, "limit", 50, "how many requests at most, the newest")
	addPayloadsFlag(cmd, &o.payloads, "params")
	o.pipeline.register(cmd.Flags())
	return cmd
}

// addPayloadsFlag gives --show-payloads to cmd.
func addPayloadsFlag(cmd *cobra.Command, show *bool, what string) {
	cmd.Flags().BoolVar(show, "show-payloads", false, "show "+what+" as well, which may be health data, and put that on record")
	addOperatorFlag(cmd)
}

func (a *app) history(cmd *cobra.Command, o historyOptions) error {
	if o.limit < 1 || o.limit > mostHistory {
		return usagef("--limit is %d: want 1 to %d", o.limit, mostHistory)
	}
	l, err := a.look(cmd, o.pipeline)
	if err != nil {
		return err
	}
	defer l.close()
	found, more, err := l.History(cmd.Context(), inspect.HistoryQuery{
		Filter: o.filter.filter(), Since: o.since.time, Limit: o.limit, Payloads: o.payloads,
	})
	if err != nil {
		return cantLook(cmd.Context(), err)
	}
	if o.payloads {
		if err := a.recordShown(cmd, l.rdb, l.keys, shownRequests(found)); err != nil {
			return err
		}
	}
	p, now := a.newPrinter(), a.now()
	if p.asJSON() {
		for _, r := range found {
			p.object(asObject(r, now))
		}
		return p.err
	}
	if len(found) == 0 {
		fmt.Fprintln(a.stderr, "No such request is on "+l.keys.Requests()+".")
		return nil
	}
	p.table(a.historyTable(found, now, o.payloads))
	if more {
		fmt.Fprintf(a.stderr, "There are more; --limit shows more than %d of them, --since and --action fewer.\n", o.limit)
	}
	return p.err
}

func shownRequests(found []inspect.Request) []tebra.AuditRecord {
	records := make([]tebra.AuditRecord, 0, len(found))
	for _, r := range found {
		records = append(records, tebra.AuditRecord{
			RequestID: r.RequestID, CorrelationID: r.CorrelationID, Action: r.Action, UserID: r.UserID, EntryID: r.EntryID,
		})
	}
	return records
}

func (a *app) historyTable(found []inspect.Request, now time.Time, payloads bool) table {
	t := table{header: []string{"ARRIVED", "ACTION", "USER", "REQUEST", "STATUS", ">TRIES", ">TOOK", "CODE"}}
	if payloads {
		t.header = append(t.header, "PARAMS")
	}
	for _, r := range found {
		tries := ""
		if r.Attempts > 0 {
			tries = fmt.Sprint(r.Attempts)
		}
		row := []cell{
			word(a.clockTime(r.Arrived)), word(r.Action), word(r.UserID), word(r.RequestID),
			stateWord(r), word(tries), word(timeTaken(r, now)), word(r.ErrorCode),
		}
		if payloads {
			row = append(row, word(string(r.Params)))
		}
		t.add(row...)
	}
	return t
}
