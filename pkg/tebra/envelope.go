package tebra

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxAttributeBytes is Pub/Sub's bound on an attribute's value (FACTS, Pub/Sub).
const MaxAttributeBytes = 1024

// Envelope is what travels in a Pub/Sub message's attributes: all that is needed
// to account for a request without reading its payload.
type Envelope struct {
	RequestID     string
	CorrelationID string
	Action        string
	UserID        string
	EntryID       string    // the entry of the requests stream
	Lane          string    // the lane that it counts against
	Ledger        string    // [LedgerHash] of its record
	Epoch         string    // the life of Redis in which it was admitted
	AdmittedAt    time.Time // the Redis clock, to the millisecond
	Traceparent   string    // the client's
	// PublishTraceparent is that of the span that published the message.
	PublishTraceparent string
	Reason             ErrorCode // on dead letters that we publish ourselves
	Probe              bool      // no request: a question whether the API is back
}

// The names of the attributes.
const (
	AttrRequestID     = "requestId"
	AttrCorrelationID = "correlationId"
	AttrAction        = "action"
	AttrUserID        = "userId"
	AttrEntryID       = "entryId"
	AttrLane          = "lane"
	AttrLedger        = "ledger"
	AttrEpoch         = "epoch"
	AttrAdmittedAt    = "admittedAt"
	AttrTraceparent   = "traceparent"
	// AttrPublishTraceparent is named as Google's own client libraries name theirs, so
	// that whoever pulls dead letters with one of these sees them in the same trace.
	AttrPublishTraceparent = "googclient_traceparent"
	AttrReason             = "reason"
	AttrProbe              = "probe"
)

// Attributes returns the envelope as Pub/Sub attributes: valid UTF-8 of at most
// [MaxAttributeBytes] each, whatever came in, and none that is empty.
func (e Envelope) Attributes() map[string]string {
	m := make(map[string]string, 13)
	e.EachAttribute(func(name, value string) { m[name] = value })
	return m
}

// EachAttribute calls put for every attribute, always in the same order, as
// [Envelope.Attributes] would name and write it.
func (e Envelope) EachAttribute(put func(name, value string)) {
	set := func(name, value string) {
		if value != "" {
			put(name, attribute(value))
		}
	}
	set(AttrRequestID, e.RequestID)
	set(AttrCorrelationID, e.CorrelationID)
	set(AttrAction, e.Action)
	set(AttrUserID, e.UserID)
	set(AttrEntryID, e.EntryID)
	set(AttrLane, e.Lane)
	set(AttrLedger, e.Ledger)
	set(AttrEpoch, e.Epoch)
	if !e.AdmittedAt.IsZero() {
		set(AttrAdmittedAt, strconv.FormatInt(e.AdmittedAt.UnixMilli(), 10))
	}
	set(AttrTraceparent, e.Traceparent)
	set(AttrPublishTraceparent, e.PublishTraceparent)
	set(AttrReason, string(e.Reason))
	if e.Probe {
		set(AttrProbe, "1")
	}
}

// attribute makes a value from outside fit to be a Pub/Sub attribute.
func attribute(value string) string {
	if len(value) <= MaxAttributeBytes && utf8.ValidString(value) {
		return value
	}
	// Cut twice: before, because the value may be huge, and after, because U+FFFD
	// is longer than what it stands for.
	value = cutText(value, MaxAttributeBytes)
	return cutText(strings.ToValidUTF8(value, "\uFFFD"), MaxAttributeBytes)
}

// cutText returns the first bytes of s, at most so many, without splitting a
// character.
func cutText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for range utf8.UTFMax - 1 {
		if utf8.RuneStart(s[most]) {
			break
		}
		most--
	}
	return s[:most]
}

// ParseEnvelope reads the attributes of a message. It returns an error when they
// are not ours: without the entry, the lane, the ledger hash, the IDs and the
// user nobody can be answered. A probe needs none of these, nor does a dead letter
// that we published ourselves. The error quotes nothing of what it read.
func ParseEnvelope(attrs map[string]string) (Envelope, error) {
	e := Envelope{
		RequestID: attrs[AttrRequestID], CorrelationID: attrs[AttrCorrelationID],
		Action: attrs[AttrAction], UserID: attrs[AttrUserID], EntryID: attrs[AttrEntryID],
		Lane: attrs[AttrLane], Ledger: attrs[AttrLedger], Epoch: attrs[AttrEpoch],
		Traceparent: attrs[AttrTraceparent], PublishTraceparent: attrs[AttrPublishTraceparent],
		Reason: ErrorCode(attrs[AttrReason]),
		Probe:  attrs[AttrProbe] != "",
	}
	for _, t := range [...]*string{&e.Traceparent, &e.PublishTraceparent} {
		if !wellFormedTraceparent(*t) {
			*t = ""
		}
	}
	if at := attrs[AttrAdmittedAt]; at != "" {
		ms, err := strconv.ParseInt(at, 10, 64)
		if err != nil || ms < 0 {
			return e, fmt.Errorf("attribute %s is not a time in milliseconds", AttrAdmittedAt)
		}
		e.AdmittedAt = time.UnixMilli(ms)
	}
	if e.Probe || e.Reason != "" {
		return e, nil
	}
	return e, e.complete()
}

// complete returns an error that names the first attribute that is missing.
func (e Envelope) complete() error {
	for _, a := range [...]struct{ name, value string }{
		{AttrRequestID, e.RequestID}, {AttrCorrelationID, e.CorrelationID}, {AttrAction, e.Action},
		{AttrUserID, e.UserID}, {AttrLedger, e.Ledger}, {AttrEpoch, e.Epoch},
	} {
		if a.value == "" {
			return fmt.Errorf("attribute %s is missing: the message was not published by a bridge", a.name)
		}
		if len(a.value) > MaxAttributeBytes {
			return fmt.Errorf("attribute %s has %d bytes; at most %d are allowed", a.name, len(a.value), MaxAttributeBytes)
		}
	}
	// Sorted sets hold the entry by its text, so that only Redis's own will do.
	if id, err := ParseEntryID(e.EntryID); err != nil || id.String() != e.EntryID {
		return fmt.Errorf("attribute %s is not the ID of a stream entry", AttrEntryID)
	}
	if CheckLane(e.Lane) != nil {
		return fmt.Errorf("attribute %s is not the name of a lane", AttrLane)
	}
	if e.AdmittedAt.IsZero() {
		return fmt.Errorf("attribute %s is missing: the message was not published by a bridge", AttrAdmittedAt)
	}
	if want := LedgerHash(e.UserID, e.RequestID); e.Ledger != want {
		return fmt.Errorf("attribute %s does not belong to this user and request", AttrLedger)
	}
	return nil
}
