package php

import (
	"encoding/json"
	"fmt"
	"time"

	"tebraproxy/pkg/tebra"
)

// Outcome is what became of a call. The zero value is the most cautious one.
type Outcome int

// The outcomes.
const (
	// Unknown: the call may or may not have been made. A person must look.
	Unknown Outcome = iota
	// Answered: the API did what was asked; [Result.Data] is its answer.
	Answered
	// Refused: the API said no, or its answer can't be carried. Final.
	Refused
	// TryAgain: the call was not made, or making it again is harmless.
	TryAgain
)

// String returns the outcome's name, fit for logs and metric labels.
func (o Outcome) String() string {
	switch o {
	case Unknown:
		return "unknown"
	case Answered:
		return "answered"
	case Refused:
		return "refused"
	case TryAgain:
		return "try_again"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// Result says what became of a call, and everything the caller needs to act on it.
type Result struct {
	Outcome Outcome
	// Code is empty when the call was answered.
	Code tebra.ErrorCode
	// Infrastructure tells a failure of the API as a whole (network, 5xx, a wrong
	// configuration of ours) from one of this request. It is what the breaker
	// counts (DESIGN section 9).
	Infrastructure bool
	// RetryAfter is how long the API asked us to wait, 0 when it didn't say; at
	// most [MaxRetryAfter].
	RetryAfter time.Duration
	// Data, when answered, is the JSON text of the answer's data member, or the
	// whole answer where it has none. When not answered it is nil.
	Data json.RawMessage
	// UserText, when not answered, is for the user who asked. When refused it may be
	// the API's own words and so hold health data: never log it. Valid UTF-8
	// without control characters, at most [MaxUserTextBytes].
	UserText string
	// Cause, when not answered, is for logs. It holds no health data and no secret.
	Cause string
	// Status is the HTTP status, 0 when there was none.
	Status int
	// Tries is how often a connection was attempted. At most one of the tries can
	// have reached the API.
	Tries int
}

// Bounds of a [Result].
const (
	// MaxRetryAfter is the longest wait that Pub/Sub's retry policy knows.
	MaxRetryAfter = 10 * time.Minute
	// MaxUserTextBytes bounds what is quoted of the API's refusal.
	MaxUserTextBytes = 1024
)

// finding is what was seen of one call. The table gives it its meaning.
type finding int

const (
	answered finding = iota
	bare
	malformed
	neverSent
	abandonedUnsent
	lost
	abandonedSent
	misconfigured
	throttled
	tooEarly
	refused
	failed
	garbled
	tooLarge
)

// verdict is what a finding means for a read, or for a write.
type verdict struct {
	outcome Outcome
	code    tebra.ErrorCode
}

var (
	done       = verdict{Answered, ""}
	rejected   = verdict{Refused, tebra.Rejected}
	later      = verdict{TryAgain, tebra.Unavailable}
	slowDown   = verdict{TryAgain, tebra.RateLimited}
	unreadable = verdict{TryAgain, tebra.BadResponse}
	unknown    = verdict{Unknown, tebra.OutcomeUnknown}
)

// table is the one place that says what a finding means (FACTS section "The PHP
// API we call"; DESIGN sections 6 and 9 for what counts as infrastructure).
var table = [...]struct {
	read, write    verdict
	infrastructure bool
}{
	answered: {done, done, false},

	// A JSON object without the envelope's success, as some deployments answer to
	// health. Good enough for a read; no proof that a write was made.
	bare: {done, unknown, false},

	// The params are no JSON: nothing was sent, and never will be.
	malformed: {verdict{Refused, tebra.Malformed}, verdict{Refused, tebra.Malformed}, false},

	// No connection was handed to the request, so not one byte of it left.
	neverSent: {later, later, true},
	// As before, but it was our caller who left: no sign of trouble at the API.
	abandonedUnsent: {later, later, false},

	// The request, or part of it, may have arrived; no whole answer did. 408 is
	// here too: a proxy that gave up waiting for the rest of a request may have
	// passed on what it had.
	lost: {later, unknown, true},
	// As before, but it was our caller who left.
	abandonedSent: {later, unknown, false},

	// 401, 403, 404 and 405 come before any work is done: key, identity, address
	// or method is wrong, for every request alike. So are redirects (never
	// followed, the key stays here), 407 and 421, which speak of the way to the
	// API, and Tebra's own SecurityResponse, which speaks of the API's account.
	// An operator can fix it, so the request is tried again.
	misconfigured: {later, later, true},

	// 429, or Tebra's throttle text inside another answer: the call was not made.
	throttled: {slowDown, slowDown, false},

	// 425: the server would not risk processing the request (RFC 8470 section 5.2).
	tooEarly: {later, later, false},

	// Any other 4xx means by its definition that the request is at fault; and a 200
	// that says success:false is the API's own no.
	refused: {rejected, rejected, false},

	// A 5xx can come after the effect: a SOAP fault on the way back from Tebra, a
	// gateway that waited too short.
	failed: {later, unknown, true},

	// Success by its status, but not an answer: not JSON, empty, no envelope. PHP
	// prints its own fatal errors with status 200, after the effect as well as before.
	garbled: {unreadable, unknown, false},

	// Longer than we carry. Asking again would get the same.
	tooLarge: {verdict{Refused, tebra.ResponseTooLarge}, unknown, false},
}

// sighting is a finding with what came along.
type sighting struct {
	finding    finding
	cause      string
	status     int
	retryAfter time.Duration
	data       json.RawMessage
	text       string // the API's own words, fit for the user
}

// judge looks s up in the table.
func judge(s sighting, write bool) Result {
	row := table[s.finding]
	v := row.read
	if write {
		v = row.write
	}
	r := Result{Outcome: v.outcome, Code: v.code, Infrastructure: row.infrastructure, Status: s.status}
	if v.outcome == Answered {
		r.Data = s.data
		return r
	}
	r.RetryAfter, r.Cause, r.UserText = s.retryAfter, s.cause, v.code.Meaning()
	if v.outcome == Refused && s.text != "" {
		r.UserText = s.text
	}
	return r
}
