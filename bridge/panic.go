package bridge

import (
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// noPanic ends a panic of one of the bridge's goroutines, and with it the bridge: the
// others finish what they have in hand, all that is pending is given back, and
// [Bridge.Run] returns an error. Go would print the panic's value, which may quote a
// payload: the log says what kind it is of and where it happened, which never does.
// It is deferred.
func (b *Bridge) noPanic(part string) {
	p := recover()
	if p == nil {
		return
	}
	b.log.Error("a part of the bridge panicked; the bridge stops", "part", part,
		"panic", telemetry.PanicKind(p), "stack", string(debug.Stack()))
	b.fallen.Store(&part)
	b.fall()
}

// fell returns an error if a part of the bridge has panicked.
func (b *Bridge) fell() error {
	part := b.fallen.Load()
	if part == nil {
		return nil
	}
	return fmt.Errorf("%s panicked, and the bridge has stopped; the log says where it happened; start it again", *part)
}

// codec is what reads an entry and writes the message that it becomes: the code that
// contents from outside go through.
type codec struct {
	decode      func(fields []string, maxBytes int) (tebra.Request, error)
	fingerprint func(action string, params []byte) string
	encode      func(r tebra.Request, dst []byte) []byte
}

// spare ends a panic at what is done with one entry alone, and says in spoiled that
// there was one: the entry is then rejected, or else every bridge that took it would
// stop, one after another, and all others would wait (DESIGN section 5.4). Like
// [Bridge.noPanic] it is deferred, and logs what never quotes a payload.
func (b *Bridge) spare(entryID string, spoiled *bool) {
	p := recover()
	if p == nil {
		return
	}
	*spoiled = true
	b.log.Error("an entry made the bridge panic; the others go on", "entryId", entryID,
		"panic", telemetry.PanicKind(p), "stack", string(debug.Stack()))
}

// newSpoiled makes a reject of an entry at which the bridge panicked, with none of what
// may have: it looks for the names among the fields, parses nothing, and the letter has
// no span and the fields as they are. Who wrote the names into JSON can't be told.
func (b *Bridge) newSpoiled(e stream.Entry, now time.Time) reject {
	bad := &tebra.DecodeError{Code: tebra.DeadLettered, Reason: "the bridge failed at this request; its log says where"}
	var req tebra.Request
	for i := 0; i+1 < len(e.Fields); i += 2 {
		var slot *string
		switch e.Fields[i] {
		case "id":
			slot = &req.ID
		case "correlationId":
			slot = &req.CorrelationID
		case "action":
			slot = &req.Action
		case "userId":
			slot = &req.UserID
		}
		if slot != nil && *slot == "" && len(e.Fields[i+1]) <= tebra.MaxNameBytes {
			*slot = strings.ToValidUTF8(e.Fields[i+1], "\uFFFD")
		}
	}
	r := b.rejectOf(e, req, bad, now)
	r.bare = true
	return r
}

// spoil makes a reject of an item at which the bridge panicked.
func (b *Bridge) spoil(it *item, now time.Time) reject {
	q := &it.request
	r := b.newSpoiled(stream.Entry{ID: it.entryID(), Fields: []string{
		"id", q.ID, "action", q.Action, "params", string(q.Params), "userId", q.UserID, "timestamp", q.Timestamp,
		"correlationId", q.CorrelationID, "_metadata", string(q.Metadata), "replayOf", q.ReplayOf,
	}}, now)
	r.letter.envelope.Lane = it.envelope.Lane // has its room there, whatever the policy says now
	return r
}
