package bridge

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// reasonTrimmed marks the dead letter of an entry that others trimmed away
// before it was served: nobody can be answered.
const reasonTrimmed tebra.ErrorCode = "trimmed"

// batch is what was taken from Redis at once.
type batch struct {
	ids     []string // of all entries, for acknowledging and for [hand]
	items   []item
	rejects []reject
	settled []string // nothing to do but acknowledge
	taken   time.Time
	pulse   *pulse // of the goroutine that works on it

	atOnce     bool // it is what one read gave us
	unfinished bool // something of it is still pending for us
}

// item is a well-formed request on its way.
type item struct {
	request  tebra.Request
	envelope tebra.Envelope
	arrival  time.Time
	write    bool
	known    bool // pending was written before, or something later
	seated   bool // has room in its lane

	sending *telemetry.Sending // of the last try at publishing it

	spoiled   bool  // made the bridge panic
	refused   bool  // by Pub/Sub, at least once
	refusedAt int64 // after how many messages that it took
}

func (it *item) entryID() string { return it.envelope.EntryID }

// reject is an entry that is no request: what is wrong with it, and the dead
// letter that says so.
type reject struct {
	entryID string
	err     *tebra.DecodeError
	letter  letter
	answer  *tebra.Response // ID and error; nil when nobody can be told

	bare     bool               // its letter gets no span: the bridge has panicked at it
	lettered bool               // its letter is out
	sending  *telemetry.Sending // of the last try at publishing it
}

// letter is what a reject becomes in the dead-letter topic.
type letter struct {
	data     []byte
	envelope tebra.Envelope
}

// newBatch decodes entries and notes them as held; the caller releases.
func (b *Bridge) newBatch(entries []stream.Entry) *batch {
	now := b.clock.now()
	bt := &batch{ids: make([]string, 0, len(entries)), items: make([]item, 0, len(entries)), taken: time.Now()}
	for _, e := range entries {
		bt.ids = append(bt.ids, e.ID)
		if e.Fields == nil {
			bt.rejects = append(bt.rejects, trimmed(e.ID))
			continue
		}
		if b.decode(bt, e, now) {
			bt.rejects = append(bt.rejects, b.newSpoiled(e, now))
		}
	}
	b.hand.hold(bt)
	return bt
}

// decode puts an entry among the batch's items or rejects, unless it is spoiled.
func (b *Bridge) decode(bt *batch, e stream.Entry, now time.Time) (spoiled bool) {
	defer b.spare(e.ID, &spoiled)
	req, err := b.codec.decode(e.Fields, b.cfg.MaxRequestBytes)
	if err != nil {
		bt.rejects = append(bt.rejects, b.newReject(e, req, err, now))
		return false
	}
	bt.items = append(bt.items, b.newItem(e.ID, req, now))
	return false
}

// gone adds entries that are no longer in the stream. The batch is held already.
func (bt *batch) gone(ids []string) {
	for _, id := range ids {
		bt.rejects = append(bt.rejects, trimmed(id))
	}
}

func (b *Bridge) newItem(entryID string, req tebra.Request, now time.Time) item {
	req.Identify(func() string { return b.deriveID(entryID) })
	return item{
		request: req,
		envelope: tebra.Envelope{
			RequestID: req.ID, CorrelationID: req.CorrelationID, Action: req.Action, UserID: req.UserID,
			EntryID: entryID, Lane: b.deps.Policy.LaneOf(req.Action), Ledger: tebra.LedgerHash(req.UserID, req.ID),
			AdmittedAt: now, Traceparent: req.Traceparent,
		},
		arrival: arrivalOf(entryID, now),
		write:   b.deps.Policy.IsWrite(req.Action),
	}
}

// arrivalOf returns when an entry came in, by the Redis clock.
func arrivalOf(entryID string, now time.Time) time.Time {
	id, _ := tebra.ParseEntryID(entryID) // Redis gave it
	return id.Arrival(now)
}

// deriveID names a request that its client did not name: the same entry always
// gets the same ID.
func (b *Bridge) deriveID(entryID string) string { return DeriveID(b.deps.Keys, entryID) }

// DeriveID returns the ID that a bridge gives to a request which its client did not
// name.
func DeriveID(keys tebra.Keys, entryID string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("redis-stream:"+keys.Requests()+"/"+entryID)).String()
}

// newReject makes the dead letter and the answer of an entry that is no request.
// A letter about size carries no contents (DESIGN section 4).
func (b *Bridge) newReject(e stream.Entry, req tebra.Request, err error, now time.Time) reject {
	bad, ok := tebra.IsDecodeError(err)
	if !ok {
		bad = &tebra.DecodeError{Code: tebra.Malformed, Reason: err.Error()}
	}
	return b.rejectOf(e, req, bad, now)
}

// rejectOf makes the reject of an entry, of which req has what names it.
func (b *Bridge) rejectOf(e stream.Entry, req tebra.Request, bad *tebra.DecodeError, now time.Time) reject {
	answerable := req.ID != "" || req.CorrelationID != ""
	req.Identify(func() string { return b.deriveID(e.ID) })
	envelope := tebra.Envelope{
		RequestID: req.ID, CorrelationID: req.CorrelationID, Action: req.Action, UserID: req.UserID,
		EntryID: e.ID, AdmittedAt: now, Reason: bad.Code, Traceparent: req.Traceparent,
		Lane: b.deps.Policy.LaneOf(req.Action), Ledger: tebra.LedgerHash(req.UserID, req.ID),
	}
	r := reject{entryID: e.ID, err: bad, letter: letter{data: letterData(e, bad), envelope: envelope}}
	if answerable {
		r.answer = &tebra.Response{ID: b.deps.NewID(), Error: bad.Error(), ErrorCode: bad.Code}
	}
	return r
}

// letterData is the body of the dead letter of a rejected entry: what is wrong
// with it, and except for size its fields as they came, duplicates included.
func letterData(e stream.Entry, bad *tebra.DecodeError) []byte {
	body := struct {
		Entry  string      `json:"entry"`
		Reason string      `json:"reason"`
		Bytes  int         `json:"bytes"`
		Fields [][2]string `json:"fields,omitempty"`
	}{Entry: e.ID, Reason: bad.Error(), Bytes: entryBytes(e) - len(e.ID)}
	if bad.Code != tebra.TooLarge && body.Bytes <= maxMessageBytes {
		for i := 0; i+1 < len(e.Fields); i += 2 {
			body.Fields = append(body.Fields, [2]string{
				strings.ToValidUTF8(e.Fields[i], "\uFFFD"), strings.ToValidUTF8(e.Fields[i+1], "\uFFFD"),
			})
		}
	}
	data, err := json.Marshal(body)
	if err == nil && len(data) > maxMessageBytes { // escapes take up to six times the room
		body.Fields = nil
		data, err = json.Marshal(body)
	}
	if err != nil { // strings and numbers always marshal
		return []byte(fmt.Sprintf("{%q:%q}", "entry", e.ID))
	}
	return data
}

// trimmed is the reject of an entry whose contents are gone.
func trimmed(entryID string) reject {
	bad := &tebra.DecodeError{Code: reasonTrimmed, Reason: "the entry was removed from the stream by somebody else before it was served"}
	return reject{entryID: entryID, err: bad, letter: letter{
		data:     letterData(stream.Entry{ID: entryID}, bad),
		envelope: tebra.Envelope{EntryID: entryID, Reason: reasonTrimmed},
	}}
}
