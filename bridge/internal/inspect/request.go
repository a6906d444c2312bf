package inspect

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// Request is an entry of the requests stream and what became of it so far.
type Request struct {
	EntryID       string    `json:"entryId,omitempty"` // "" where only statuses of it were seen
	Arrived       time.Time `json:"arrived,omitzero"`  // zero where only statuses of it were seen
	RequestID     string    `json:"requestId"`
	CorrelationID string    `json:"correlationId"`
	UserID        string    `json:"userId"`
	Action        string    `json:"action"`
	ReplayOf      string    `json:"replayOf,omitempty"` // the entry that an operator replayed with this one
	TraceID       string    `json:"-"`                  // of its trace, whether that was sampled or not

	State     tebra.State     `json:"status,omitempty"` // "" until a bridge has taken it
	Changed   time.Time       `json:"changed"`          // when it came into this state, or arrived
	Attempts  int             `json:"attempts"`
	ErrorCode tebra.ErrorCode `json:"errorCode,omitempty"` // why it failed, or is pending again

	// Params is nil unless it was asked for.
	Params json.RawMessage `json:"params,omitempty"`
}

// Took is how long the request has been under way, until it was answered or, if it
// was not, until now. It is not known of a request whose arrival is not.
func (r Request) Took(now time.Time) (took time.Duration, known bool) {
	if r.Arrived.IsZero() {
		return 0, false
	}
	if r.State.Terminal() {
		now = r.Changed
	}
	return max(0, now.Sub(r.Arrived)), true
}

// key tells requests apart.
type key struct{ userID, requestID string }

func (r Request) key() key { return key{r.UserID, r.RequestID} }

// named reports whether id is the request's ID or its correlation ID.
func (r Request) named(id string) bool {
	return id != "" && (r.RequestID == id || r.CorrelationID == id)
}

// readRequest reads an entry of the requests stream, by the rules that bridges
// read it by. Of one that is no request it returns what can be told.
func (i *Inspector) readRequest(entry redis.XMessage) Request {
	fields := texts(entry)
	flat := make([]string, 0, 2*len(fields))
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		flat = append(flat, name, fields[name])
	}
	decoded, err := tebra.DecodeEntry(flat, math.MaxInt)
	named := decoded.ID != "" || decoded.CorrelationID != ""
	decoded.Identify(func() string { return bridge.DeriveID(i.keys, entry.ID) })
	at := entryTime(entry.ID)
	r := Request{
		EntryID: entry.ID, Arrived: at, Changed: at,
		RequestID: decoded.ID, CorrelationID: decoded.CorrelationID,
		UserID: decoded.UserID, Action: decoded.Action, ReplayOf: decoded.ReplayOf, Params: decoded.Params,
	}
	r.TraceID = telemetry.TraceOf(&tebra.Envelope{
		EntryID: entry.ID, Ledger: tebra.LedgerHash(decoded.UserID, decoded.ID), Traceparent: decoded.Traceparent})
	if fault, is := tebra.IsDecodeError(err); is && !named { // nobody can be answered
		r.ErrorCode = fault.Code
	}
	return r
}

// follow brings the request into the state that an update tells.
func (r *Request) follow(u update) {
	r.State, r.Changed, r.ErrorCode = u.State, u.at, u.ErrorCode
	r.Attempts = max(r.Attempts, u.Attempt)
}

// update is an entry of the status stream.
type update struct {
	tebra.StatusUpdate
	at time.Time // by the Redis clock
}

func (u update) key() key { return key{u.UserID, u.RequestID} }

// readUpdate reads an entry of the status stream, and reports whether it is one.
func readUpdate(entry redis.XMessage) (update, bool) {
	s, err := tebra.ParseStatus(texts(entry))
	return update{s, entryTime(entry.ID)}, err == nil
}
