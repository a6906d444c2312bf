package inspect

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// Event is a kind of step of a request's life.
type Event string

// The events.
const (
	Asked      Event = "asked"       // an entry of the requests stream
	Replayed   Event = "replayed"    // the same, put there by an operator
	Admitted   Event = "admitted"    // a bridge took it
	Attempted  Event = "attempt"     // a function began a run
	Released   Event = "released"    // the run had no effect, and the request waits for its next
	DeadLetter Event = "dead letter" // it waits for an operator
	Answered   Event = "answered"
)

// Step is one thing that happened to a request.
type Step struct {
	At        time.Time
	Event     Event
	Entry     string          // of the requests stream, or of the responses stream, where known
	State     tebra.State     // of the request after it, "" before a bridge took it
	Attempt   int             // which one, or how many of them when answered
	ErrorCode tebra.ErrorCode // why
	ReplayOf  string          // the entry that was replayed
	TraceID   string          // of what was asked or replayed, where its entry is still there

	// What follows is empty unless payloads were asked for.
	Params json.RawMessage
	Data   json.RawMessage
	Error  string // the answer's text, which may be the API's
}

// Trace is the life of one request: everything that was said under one request ID of
// one user.
type Trace struct {
	RequestID, CorrelationID, UserID, Action string

	Steps  []Step         // in order
	Record *ledger.Record // nil where the ledger has none
	// Place is where its last entry stands now, nil where none is known.
	Place *stream.Place
}

// TraceQuery says which requests [Inspector.Trace] looks for.
type TraceQuery struct {
	// ID is a request ID or a correlation ID.
	ID string
	// UserID leaves out others' requests, and finds the user's own by its request
	// ID also where the streams tell nothing of it any more.
	UserID string
	// Since leaves out what happened before; zero for as far as the streams go.
	Since time.Time
	// Payloads asks for params, data and error texts.
	Payloads bool
}

// Bounds of a trace.
const (
	mostUpdates = 5000 // statuses that are gathered; of more, the newest
	mostTraces  = 20   // requests under one correlation ID; of more, the newest
	// near is how far apart the last status and the answer can be added, which
	// one script adds.
	near = 5 * time.Second
)

// Trace returns the lives of all requests with that ID, the oldest first, none if
// nothing is known of it. It reads through the whole status stream (back to Since),
// and through the requests stream only for what the ledger doesn't point to.
func (i *Inspector) Trace(ctx context.Context, q TraceQuery) ([]Trace, error) {
	lives, err := i.findUpdates(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(lives) == 0 {
		lives, err = i.findElsewhere(ctx, q)
		if err != nil {
			return nil, err
		}
	}
	traces := make([]Trace, 0, len(lives))
	for _, l := range lives {
		t, err := i.tell(ctx, q, l)
		if err != nil {
			return nil, err
		}
		traces = append(traces, t)
	}
	return traces, nil
}

// life is what was found of one request.
type life struct {
	key
	updates  []update  // the oldest first
	requests []Request // entries of the requests stream, by entry ID
	answers  []answer  // by entry ID
}

type answer struct {
	entry string
	tebra.Response
}

// findUpdates gathers the statuses of each request with the ID.
func (i *Inspector) findUpdates(ctx context.Context, q TraceQuery) ([]*life, error) {
	var lives []*life // the one that changed last comes first
	byKey := map[key]*life{}
	found := 0
	err := scan(ctx, i.rdb.XRevRangeN, i.keys.Status(), "+", startOf(q.Since), func(entry redis.XMessage) bool {
		u, ok := readUpdate(entry)
		if !ok || (u.RequestID != q.ID && u.CorrelationID != q.ID) || (q.UserID != "" && q.UserID != u.UserID) {
			return true
		}
		l := byKey[u.key()]
		if l == nil {
			if len(lives) == mostTraces {
				return true
			}
			l = &life{key: u.key()}
			byKey[u.key()], lives = l, append(lives, l)
		}
		l.updates = append(l.updates, u)
		found++
		return found < mostUpdates
	})
	for _, l := range lives {
		slices.Reverse(l.updates)
	}
	slices.Reverse(lives)
	return lives, err
}

// findElsewhere finds requests without any status: those that no bridge has taken
// yet, and one whose statuses were trimmed and that is still on record.
func (i *Inspector) findElsewhere(ctx context.Context, q TraceQuery) ([]*life, error) {
	var lives []*life
	byKey := map[key]*life{}
	err := scan(ctx, i.rdb.XRevRangeN, i.keys.Requests(), "+", startOf(q.Since), func(entry redis.XMessage) bool {
		r := i.readRequest(entry)
		if !r.named(q.ID) || (q.UserID != "" && q.UserID != r.UserID) {
			return true
		}
		l := byKey[r.key()]
		if l == nil {
			l = &life{key: r.key()}
			byKey[r.key()], lives = l, append(lives, l)
		}
		l.requests = append(l.requests, r)
		return len(lives) < mostTraces
	})
	slices.Reverse(lives)
	if err == nil && len(lives) == 0 && q.UserID != "" {
		_, known, err := i.ledger.Look(ctx, tebra.LedgerHash(q.UserID, q.ID))
		if err != nil {
			return nil, err
		}
		if known {
			lives = append(lives, &life{key: key{q.UserID, q.ID}})
		}
	}
	return lives, err
}

// tell makes the trace of a life, once everything about it has been read.
func (i *Inspector) tell(ctx context.Context, q TraceQuery, l *life) (Trace, error) {
	t := Trace{RequestID: l.requestID, UserID: l.userID}
	record, known, err := i.ledger.Look(ctx, tebra.LedgerHash(l.userID, l.requestID))
	if err != nil {
		return t, err
	}
	if known {
		t.Record = &record
	}
	if err := i.readEntries(ctx, l, record); err != nil {
		return t, err
	}
	if err := i.readAnswers(ctx, l, record); err != nil {
		return t, err
	}
	t.Steps = l.steps(q.Payloads)
	for _, r := range l.requests {
		t.CorrelationID, t.Action = r.CorrelationID, r.Action
	}
	for _, u := range l.updates {
		t.CorrelationID, t.Action = u.CorrelationID, u.Action
	}
	if len(l.requests) > 0 {
		place, err := i.stream.Where(ctx, l.requests[len(l.requests)-1].EntryID)
		if err != nil {
			return t, err
		}
		t.Place = &place
	}
	return t, nil
}

// readEntries reads the request's entries: those that the ledger names, or, where it
// names none, the one before the first status.
func (i *Inspector) readEntries(ctx context.Context, l *life, record ledger.Record) error {
	for _, id := range entriesOf(record) {
		if slices.ContainsFunc(l.requests, func(r Request) bool { return r.EntryID == id }) {
			continue
		}
		entry, found, err := i.at(ctx, i.keys.Requests(), id)
		if err != nil {
			return err
		}
		if found {
			l.requests = append(l.requests, i.readRequest(entry))
		}
	}
	if len(l.requests) == 0 && len(l.updates) > 0 {
		err := scan(ctx, i.rdb.XRevRangeN, i.keys.Requests(), endOf(l.updates[0].at), "-", func(entry redis.XMessage) bool {
			r := i.readRequest(entry)
			if r.key() == l.key {
				l.requests = append(l.requests, r)
			}
			return len(l.requests) == 0
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(l.requests, byArrival)
	return nil
}

// entriesOf returns the entries of the requests stream that a record names.
func entriesOf(r ledger.Record) []string {
	var ids []string
	add := func(id string) {
		if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	add(r.EntryID)
	for _, a := range r.Answered {
		add(a.EntryID)
	}
	for _, p := range r.Replays {
		add(p.EntryID)
		add(p.NewEntryID)
	}
	return ids
}

// readAnswers reads the request's answers: those that the ledger names, or else those
// that were added together with a last status.
func (i *Inspector) readAnswers(ctx context.Context, l *life, record ledger.Record) error {
	for _, a := range record.Answered {
		entry, found, err := i.at(ctx, i.keys.Responses(), a.AnswerID)
		if err != nil {
			return err
		}
		if found {
			l.addAnswer(entry)
		}
	}
	for _, u := range l.updates {
		if !u.State.Terminal() || l.answerNear(u) >= 0 {
			continue
		}
		err := scan(ctx, i.rdb.XRangeN, i.keys.Responses(), startOf(u.at), endOf(u.at.Add(near)), func(entry redis.XMessage) bool {
			return !l.addAnswer(entry)
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(l.answers, func(a, b answer) int {
		return cmp.Or(entryTime(a.entry).Compare(entryTime(b.entry)), cmp.Compare(a.entry, b.entry))
	})
	return nil
}

// addAnswer notes an entry of the responses stream if it answers the request.
func (l *life) addAnswer(entry redis.XMessage) bool {
	r, err := tebra.ParseResponse(texts(entry))
	if err != nil || r.RequestID != l.requestID || r.UserID != l.userID {
		return false
	}
	if !slices.ContainsFunc(l.answers, func(a answer) bool { return a.entry == entry.ID }) {
		l.answers = append(l.answers, answer{entry.ID, r})
	}
	return true
}

// answerNear returns which of the answers was added with a last status, or -1.
func (l *life) answerNear(u update) int {
	return slices.IndexFunc(l.answers, func(a answer) bool {
		return entryTime(a.entry).Sub(u.at).Abs() <= near && a.State() == u.State && a.ErrorCode == u.ErrorCode
	})
}

// at returns one entry of a stream, and whether it is still there.
func (i *Inspector) at(ctx context.Context, stream, id string) (redis.XMessage, bool, error) {
	entries, err := i.rdb.XRangeN(ctx, stream, id, id, 1).Result()
	if err != nil {
		return redis.XMessage{}, false, fmt.Errorf("reading entry %s of %s: %w", id, stream, err)
	}
	if len(entries) == 0 {
		return redis.XMessage{}, false, nil
	}
	return entries[0], true, nil
}

// endOf is the last ID of a stream that an entry added at t can have.
func endOf(t time.Time) string { return fmt.Sprint(max(0, t.UnixMilli())) }

// steps puts all that was found in order.
func (l *life) steps(payloads bool) []Step {
	var steps []Step
	told := map[string]bool{} // answers by entry
	for _, u := range l.updates {
		if !u.State.Terminal() {
			steps = append(steps, updateStep(u))
			continue
		}
		step := Step{At: u.at, Event: Answered, State: u.State, Attempt: u.Attempt, ErrorCode: u.ErrorCode}
		if n := l.answerNear(u); n >= 0 {
			step = answeredStep(l.answers[n])
			told[l.answers[n].entry] = true
		}
		steps = append(steps, step)
	}
	for _, a := range l.answers { // those whose status was trimmed
		if !told[a.entry] {
			steps = append(steps, answeredStep(a))
		}
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return a.At.Compare(b.At) })
	for _, r := range l.requests {
		steps = slices.Insert(steps, placeOf(r, steps), askedStep(r))
	}
	steps = withDeadLetters(steps)
	if !payloads {
		for n := range steps {
			steps[n].Params, steps[n].Data, steps[n].Error = nil, nil, ""
		}
	}
	return steps
}

// placeOf returns where among the steps a request's entry belongs. In the
// millisecond in which it was added, it comes before what a bridge did with it, and if
// it is a replay, after the answer that was replayed.
func placeOf(r Request, steps []Step) int {
	answered := false
	for n, s := range steps {
		follows := r.ReplayOf == "" || (answered && s.Event == Admitted)
		answered = answered || s.Event == Answered
		if s.At.After(r.Arrived) || (s.At.Equal(r.Arrived) && follows) {
			return n
		}
	}
	return len(steps)
}

func askedStep(r Request) Step {
	s := Step{At: r.Arrived, Event: Asked, Entry: r.EntryID, ErrorCode: r.ErrorCode, ReplayOf: r.ReplayOf, TraceID: r.TraceID, Params: r.Params}
	if r.ReplayOf != "" {
		s.Event = Replayed
	}
	return s
}

func updateStep(u update) Step {
	s := Step{At: u.at, State: u.State, Attempt: u.Attempt, ErrorCode: u.ErrorCode}
	switch {
	case u.State == tebra.Processing:
		s.Event = Attempted
	case u.Attempt > 0 || u.ErrorCode != "":
		s.Event = Released
	default:
		s.Event = Admitted
	}
	return s
}

func answeredStep(a answer) Step {
	return Step{
		At: entryTime(a.entry), Event: Answered, Entry: a.entry, State: a.State(), Attempt: a.Attempts, ErrorCode: a.ErrorCode,
		Data: a.Data, Error: a.Error,
	}
}

// withDeadLetters puts a step before each answer that a dead letter goes with: it
// is in its topic before the answer is on its stream. (DESIGN sections 5.4, 5.8, 6.7
// and 10; of a request that was delivered too often, the answer is made from it.)
func withDeadLetters(steps []Step) []Step {
	var all []Step
	for _, s := range steps {
		if s.Event == Answered && LeavesDeadLetter(s.ErrorCode) {
			all = append(all, Step{At: s.At, Event: DeadLetter, State: s.State, ErrorCode: s.ErrorCode})
		}
		all = append(all, s)
	}
	return all
}

// LeavesDeadLetter reports whether a request that ended so has a dead letter.
func LeavesDeadLetter(code tebra.ErrorCode) bool {
	switch code {
	case tebra.Malformed, tebra.TooLarge, tebra.BadResponse, tebra.OutcomeUnknown, tebra.DeadLettered, tebra.NoAnswer:
		return true
	default:
		return false
	}
}
