package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

const traceHelp = `Show the whole life of a request in order, with the times between its steps: its
entry on the stream, when a bridge took it, each attempt, its answer, its dead
letter and its replays, and what the ledger has on it.

The ID is the request's or its correlation ID, under which there may be several
requests. --user leaves out what others asked under the same ID, and finds the
user's request by its ID also when the streams tell nothing of it any more.

Params, data and the texts of errors are shown with --show-payloads only. Exit
code 1 if nothing is known of the ID.`

const traceExamples = `  tebra trace de17645b-7c3e-4d1f-8f1a-2f0e7a1c9b55
  tebra trace c1 --user u1
  tebra trace c1 --since 2h --show-payloads
  tebra trace c1 --output json | jq '.steps[].event'`

type traceOptions struct {
	pipeline pipelineFlags
	user     string
	since    *moment
	payloads bool
}

func (a *app) traceCommand() *cobra.Command {
	o := traceOptions{since: a.newMoment()}
	cmd := &cobra.Command{
		Use:     "trace CORRELATION_ID|REQUEST_ID",
		Short:   "Show the whole life of one request",
		Long:    traceHelp,
		Example: traceExamples,
		Args:    needID,
		RunE:    a.runE(func(cmd *cobra.Command, args []string) error { return a.trace(cmd, o, args[0]) }),
	}
	cmd.Flags().StringVar(&o.user, "user", "", "only requests of the user with this `ID`")
	cmd.Flags().Var(o.since, "since", "look only as far back as this: how long ago, such as 90m or 3d, or a time")
	addPayloadsFlag(cmd, &o.payloads, "params, data and error texts")
	o.pipeline.register(cmd.Flags())
	return cmd
}

func needID(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 || args[0] == "":
		return errors.New("which request? Give its ID, or its correlation ID; 'tebra history' shows the latest")
	case len(args) > 1:
		return fmt.Errorf("%q is one too many: trace takes one ID", args[1])
	}
	return nil
}

func (a *app) trace(cmd *cobra.Command, o traceOptions, id string) error {
	l, err := a.look(cmd, o.pipeline)
	if err != nil {
		return err
	}
	defer l.close()
	traces, err := l.Trace(cmd.Context(), inspect.TraceQuery{ID: id, UserID: o.user, Since: o.since.time, Payloads: o.payloads})
	if err != nil {
		return cantLook(cmd.Context(), err)
	}
	if len(traces) == 0 {
		return fmt.Errorf("nothing is known of %q; is it older than the streams go back, or on another Redis or prefix than %s? "+
			"With --user and a request ID, the ledger is asked as well", id, l.keys.Prefix())
	}
	if o.payloads {
		if err := a.recordShown(cmd, l.rdb, l.keys, shownTraces(traces)); err != nil {
			return err
		}
	}
	p := a.newPrinter()
	for n, t := range traces {
		switch {
		case p.asJSON():
			p.object(asTraceObject(t))
		default:
			if n > 0 {
				p.line()
			}
			a.printTrace(p, t)
		}
	}
	return p.err
}

func shownTraces(traces []inspect.Trace) []tebra.AuditRecord {
	records := make([]tebra.AuditRecord, 0, len(traces))
	for _, t := range traces {
		records = append(records, tebra.AuditRecord{RequestID: t.RequestID, CorrelationID: t.CorrelationID, Action: t.Action, UserID: t.UserID})
	}
	return records
}

func (a *app) printTrace(p *printer, t inspect.Trace) {
	head := []cell{painted(strong, t.Action), word(" for ", t.UserID, ", request ", t.RequestID)}
	if t.CorrelationID != t.RequestID && t.CorrelationID != "" {
		head = append(head, word(", correlation ID ", t.CorrelationID))
	}
	p.line(head...)
	steps := table{header: []string{"AT", ">AFTER", "EVENT", "DETAILS"}, indent: "  "}
	for n, s := range t.Steps {
		after := ""
		if n > 0 {
			after = "+" + roundly(s.At.Sub(t.Steps[n-1].At))
		}
		steps.add(word(a.clockTime(s.At)), word(after), eventWord(s), word(details(s)))
	}
	if len(t.Steps) > 0 {
		p.table(steps)
	}
	for _, s := range t.Steps {
		printPayloads(p, s)
	}
	if t.Record != nil {
		p.line(painted(dimmed, "ledger  "), word(recordText(*t.Record)))
	} else {
		p.line(painted(dimmed, "ledger  "), word("no record"))
	}
	if text, paint := a.placeText(t); text != "" {
		p.line(painted(dimmed, "now     "), painted(paint, text))
	}
	if n := len(t.Steps); n > 0 && t.Steps[n-1].Event == inspect.Answered && inspect.LeavesDeadLetter(t.Steps[n-1].ErrorCode) {
		p.line(painted(dimmed, "next    "), word("a dead letter waits for an operator: see 'tebra deadletters list --reason "+string(t.Steps[n-1].ErrorCode)+"'"))
	}
}

func eventWord(s inspect.Step) cell {
	switch s.Event {
	case inspect.Answered:
		if s.State == tebra.Success {
			return painted(good, s.Event)
		}
		return painted(bad, s.Event)
	case inspect.DeadLetter:
		return painted(bad, s.Event)
	case inspect.Attempted:
		return painted(active, s.Event, " ", s.Attempt)
	case inspect.Released, inspect.Replayed:
		return painted(caution, s.Event)
	default:
		return word(s.Event)
	}
}

// details says what else a step tells.
func details(s inspect.Step) string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	switch s.Event {
	case inspect.Answered:
		add("%s", s.State)
		if s.Attempt > 0 {
			add("attempts %d", s.Attempt)
		}
	case inspect.Replayed:
		add("of entry %s", s.ReplayOf)
	}
	if s.Entry != "" {
		add("entry %s", s.Entry)
	}
	if s.TraceID != "" {
		add("trace %s", s.TraceID)
	}
	if s.ErrorCode != "" {
		add("%s: %s", s.ErrorCode, s.ErrorCode.Meaning())
	}
	return strings.Join(all, ", ")
}

// printPayloads prints what a step has of them, which is only what was asked for.
func printPayloads(p *printer, s inspect.Step) {
	for _, payload := range []struct{ name, text string }{{"params", string(s.Params)}, {"data", string(s.Data)}, {"error", s.Error}} {
		if payload.text != "" {
			p.line(word("  "), painted(dimmed, fmt.Sprintf("%s of what was %s  ", payload.name, s.Event)), word(payload.text))
		}
	}
}

// recordText says what the ledger has on a request.
func recordText(r ledger.Record) string {
	if r.State == "" {
		return "answered without a run"
	}
	text := r.State
	switch {
	case r.State == "done" && r.Code == "":
		text += " (success)"
	case r.Code != "":
		text += " (" + string(r.Code) + ")"
	}
	text += fmt.Sprintf(", runs %d", r.Attempts)
	if !r.Lease.IsZero() {
		text += ", its run may last until " + r.Lease.UTC().Format(time.RFC3339)
	}
	if r.Started {
		text += ", a call was begun"
	}
	if r.Unknown {
		text += ", whether it was made is not known"
	}
	if r.Orphan {
		text += ", Redis had lost what was before"
	}
	if n := len(r.Answered); n > 1 {
		text += fmt.Sprintf(", %d entries answered", n)
	}
	if n := len(r.Replays); n > 0 {
		text += fmt.Sprintf(", replayed as entry %s", r.Replays[n-1].NewEntryID)
	}
	return text
}

// placeText says where an unanswered request stands.
func (a *app) placeText(t inspect.Trace) (string, paint) {
	if t.Place == nil {
		return "", plain
	}
	switch t.Place.Stage {
	case stream.Unread:
		return "unread: no bridge has taken it yet; 'tebra status' tells whether one lives", caution
	case stream.InHand:
		return "in the hand of bridge " + t.Place.By, plain
	case stream.Parked:
		return "parked: it waits for room in lane " + t.Place.Lane + ", or for the API to come back", caution
	case stream.Retrying:
		return "published, in lane " + t.Place.Lane + ": it waits for its next attempt", caution
	case stream.Open:
		return "published, in lane " + t.Place.Lane + ": the functions work on it", plain
	default:
		return "", plain
	}
}

// traceObject is a trace for programs.
type traceObject struct {
	RequestID     string        `json:"requestId"`
	CorrelationID string        `json:"correlationId"`
	UserID        string        `json:"userId"`
	Action        string        `json:"action"`
	Steps         []stepObject  `json:"steps"`
	Ledger        *recordObject `json:"ledger"`
	Now           *placeObject  `json:"now,omitempty"`
}

type stepObject struct {
	At          time.Time       `json:"at"`
	AfterMillis int64           `json:"afterMs"` // the step before
	Event       inspect.Event   `json:"event"`
	EntryID     string          `json:"entryId,omitempty"`
	Status      tebra.State     `json:"status,omitempty"`
	Attempt     int             `json:"attempt,omitempty"`
	ErrorCode   tebra.ErrorCode `json:"errorCode,omitempty"`
	ReplayOf    string          `json:"replayOf,omitempty"`
	TraceID     string          `json:"traceId,omitempty"`
	Params      json.RawMessage `json:"params,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"`
	Error       string          `json:"error,omitempty"`
}

type recordObject struct {
	State     string          `json:"state"`
	ErrorCode tebra.ErrorCode `json:"errorCode,omitempty"`
	Runs      int             `json:"runs"`
	Started   bool            `json:"started"`
	Unknown   bool            `json:"unknown"`
	Lease     *time.Time      `json:"lease,omitempty"`
	Answered  []string        `json:"answered,omitempty"` // entries of the requests stream
	Replayed  []string        `json:"replayed,omitempty"` // the same
}

type placeObject struct {
	Stage stream.Stage `json:"stage"`
	Lane  string       `json:"lane,omitempty"`
	By    string       `json:"by,omitempty"`
}

func asTraceObject(t inspect.Trace) traceObject {
	o := traceObject{RequestID: t.RequestID, CorrelationID: t.CorrelationID, UserID: t.UserID, Action: t.Action, Steps: []stepObject{}}
	for n, s := range t.Steps {
		step := stepObject{
			At: s.At.UTC(), Event: s.Event, EntryID: s.Entry, Status: s.State, Attempt: s.Attempt, ErrorCode: s.ErrorCode,
			ReplayOf: s.ReplayOf, TraceID: s.TraceID, Params: asJSON(s.Params), Data: asJSON(s.Data), Error: s.Error,
		}
		if n > 0 {
			step.AfterMillis = s.At.Sub(t.Steps[n-1].At).Milliseconds()
		}
		o.Steps = append(o.Steps, step)
	}
	if r := t.Record; r != nil {
		o.Ledger = &recordObject{State: r.State, ErrorCode: r.Code, Runs: r.Attempts, Started: r.Started, Unknown: r.Unknown}
		if !r.Lease.IsZero() {
			lease := r.Lease.UTC()
			o.Ledger.Lease = &lease
		}
		for _, e := range r.Answered {
			o.Ledger.Answered = append(o.Ledger.Answered, e.EntryID)
		}
		for _, e := range r.Replays {
			o.Ledger.Replayed = append(o.Ledger.Replayed, e.EntryID)
		}
	}
	if t.Place != nil {
		o.Now = &placeObject{t.Place.Stage, t.Place.Lane, t.Place.By}
	}
	return o
}
