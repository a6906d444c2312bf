package inspect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

func (i *installation) trace(q TraceQuery) []Trace {
	i.Helper()
	traces, err := i.Trace(i.ctx, q)
	i.must(err)
	return traces
}

func (i *installation) traceOne(q TraceQuery, want ...string) Trace {
	i.Helper()
	traces := i.trace(q)
	if len(traces) != 1 {
		i.Fatalf("Trace(%+v) = %d traces, want 1", q, len(traces))
	}
	if got := events(traces[0]); !slices.Equal(got, want) {
		i.Errorf("steps = %q, want %q", got, want)
	}
	return traces[0]
}

func TestTraceTellsAWholeLifeInOrder(t *testing.T) {
	t.Parallel()
	i := setup(t)
	i.ask("*", "other", "u2", "health")
	entry := i.ask("*", "r1", "u1", "createAppointment")
	i.traceOne(TraceQuery{ID: "r1"}, "asked")

	d := i.deliver(entry, "r1", true)
	i.must(i.ledger.Release(i.ctx, i.claim(d), tebra.Unavailable))
	got := i.traceOne(TraceQuery{ID: "r1"}, "asked", "admitted", "attempt 1", "released unavailable")
	if got.Place == nil || got.Place.Stage != stream.Retrying {
		t.Errorf("place = %+v, want retrying", got.Place)
	}
	i.complete(d, tebra.DeadLettered)
	replayed, err := i.ledger.Replay(i.ctx, ledger.Replay{
		Request: tebra.Request{ID: "r1", CorrelationID: "c-r1", UserID: "u1", Action: "createAppointment", Params: []byte(`{"secret":1}`)},
		EntryID: entry, Lane: tebra.DefaultLane, Write: true,
	})
	i.must(err)
	i.complete(i.deliver(replayed.EntryID, "r1", true), "")

	whole := []string{
		"asked", "admitted", "attempt 1", "released unavailable", "attempt 2", "dead letter dead_lettered", "answered dead_lettered",
		"replayed", "admitted", "attempt 1", "answered",
	}
	got = i.traceOne(TraceQuery{ID: "c-r1"}, whole...)
	if got.RequestID != "r1" || got.UserID != "u1" || got.Action != "createAppointment" || got.Record == nil || got.Record.State != "done" ||
		got.Place == nil || got.Place.Stage != stream.Gone || got.Steps[7].ReplayOf != entry || got.Steps[0].Entry != entry {
		t.Errorf("trace = %+v, want that of r1, done, with its replay", got)
	}
	text, err := json.Marshal(got.Steps)
	i.must(err)
	if bytes.Contains(text, []byte("secret")) {
		t.Errorf("steps without payloads = %s, want none of them", text)
	}
	got = i.traceOne(TraceQuery{ID: "r1", UserID: "u1", Payloads: true}, whole...)
	if string(got.Steps[0].Params) != `{"secret":1}` || got.Steps[6].Error != "secret text" || string(got.Steps[10].Data) != `{"secret":2}` {
		t.Errorf("steps with payloads = %+v, want params, error and data", got.Steps)
	}
	if traces := i.trace(TraceQuery{ID: "r1", UserID: "u2"}); len(traces) != 0 {
		t.Errorf("Trace() of another user's = %+v, want none", traces)
	}
}

func TestTraceFindsWhatOnlyTheLedgerKnows(t *testing.T) {
	t.Parallel()
	i := setup(t)
	i.complete(i.deliver(i.ask("*", "r1", "u1", "createAppointment"), "r1", true), "")
	i.must(i.rdb.Del(i.ctx, i.keys.Status(), i.keys.Requests(), i.keys.Responses()).Err())
	if traces := i.trace(TraceQuery{ID: "r1"}); len(traces) != 0 {
		t.Errorf("Trace() = %+v without a user, want none", traces)
	}
	got := i.traceOne(TraceQuery{ID: "r1", UserID: "u1"})
	if got.Record == nil || got.Record.State != "done" {
		t.Errorf("record = %+v, want one that is done", got.Record)
	}
}

func TestTraceFindsEntryAndAnswerOfWhatTheLedgerDoesNotKnow(t *testing.T) {
	t.Parallel()
	i := setup(t)
	i.add(i.keys.Requests(), "1000-0", "id", "bad", "userId", "u1", "action", "health", "params", "[object Object]")
	i.ask("1001-0", "later", "u1", "health")
	i.say("1002-0", "later", "u1", "health", tebra.Pending, 0, "")
	answer := tebra.Response{
		ID: "a", RequestID: "bad", CorrelationID: "bad", UserID: "u1", Action: "health",
		Error: "field params: secret", ErrorCode: tebra.Malformed, Timestamp: time.Now(),
	}
	i.add(i.keys.Responses(), "1003-0", answer.Fields()...)
	i.add(i.keys.Status(), "1003-0", tebra.StatusUpdate{
		RequestID: "bad", CorrelationID: "bad", UserID: "u1", Action: "health", State: tebra.Failed, Timestamp: time.Now(), ErrorCode: tebra.Malformed,
	}.Fields()...)
	got := i.traceOne(TraceQuery{ID: "bad"}, "asked", "dead letter malformed", "answered malformed")
	if got.Steps[0].Entry != "1000-0" || got.Steps[2].Entry != "1003-0" || got.Record != nil {
		t.Errorf("trace = %+v, want entry 1000-0 and answer 1003-0", got)
	}
	i.traceOne(TraceQuery{ID: "later"}, "asked", "admitted")
	if traces := i.trace(TraceQuery{ID: "bad", Since: time.UnixMilli(1004)}); len(traces) != 0 {
		t.Errorf("Trace() since later = %+v, want none", traces)
	}
}

func TestTraceTellsRequestsUnderOneCorrelationIDApart(t *testing.T) {
	t.Parallel()
	i := setup(t)
	for n := range mostTraces + 3 {
		id := fmt.Sprintf("r%d", n)
		i.add(i.keys.Status(), fmt.Sprintf("%d-0", 1000+n), tebra.StatusUpdate{
			RequestID: id, CorrelationID: "shared", UserID: "u1", Action: "health", State: tebra.Pending, Timestamp: time.Now(),
		}.Fields()...)
	}
	traces := i.trace(TraceQuery{ID: "shared"})
	if len(traces) != mostTraces || traces[0].RequestID != "r3" || traces[mostTraces-1].RequestID != fmt.Sprintf("r%d", mostTraces+2) {
		t.Errorf("Trace() = %d traces, want the newest %d, the oldest first", len(traces), mostTraces)
	}
}

func TestStepsOfOneMillisecondAreInOrder(t *testing.T) {
	t.Parallel()
	i := setup(t)
	say := func(id string, state tebra.State, attempt int, code tebra.ErrorCode) {
		i.say(id, "r1", "u1", "createAppointment", state, attempt, code)
	}
	i.ask("1000-0", "r1", "u1", "createAppointment")
	say("1000-1", tebra.Pending, 0, "")
	say("1000-2", tebra.Processing, 1, "")
	say("1000-3", tebra.Failed, 1, tebra.DeadLettered)
	l := &life{key: key{"u1", "r1"}, requests: []Request{
		{EntryID: "1000-0", Arrived: entryTime("1000")}, {EntryID: "1000-4", Arrived: entryTime("1000"), ReplayOf: "1000-0"},
	}}
	say("1000-5", tebra.Pending, 0, "")
	say("1000-6", tebra.Success, 1, "")
	found, err := i.findUpdates(t.Context(), TraceQuery{ID: "r1"})
	i.must(err)
	l.updates = found[0].updates
	want := []string{"asked", "admitted", "attempt 1", "dead letter dead_lettered", "answered dead_lettered", "replayed", "admitted", "answered"}
	if got := events(Trace{Steps: l.steps(false)}); !slices.Equal(got, want) {
		t.Errorf("steps = %q, want %q", got, want)
	}
}
