package telemetry

import (
	"context"
	"log/slog"

	"tebraproxy/pkg/tebra"
)

// The decisions about operations on the API, with [tebra.Allowed]: on what grounds
// one was carried out, or was not. The set is closed.
const (
	Denied   tebra.Decision = "denied"   // the policy does not let this user do that
	Expired  tebra.Decision = "expired"  // allowed or not, it came too late
	Invalid  tebra.Decision = "invalid"  // it is no request, or one that can't be carried
	Deferred tebra.Decision = "deferred" // nothing was decided: it waits for a better time
	Repeated tebra.Decision = "repeated" // done before under this ID: the same answer again
	Conflict tebra.Decision = "conflict" // another was made under this ID
	GivenUp  tebra.Decision = "given_up" // nobody will try any more
)

// Operation is one operation on the API that somebody asked for, or one try at it.
type Operation struct {
	Envelope *tebra.Envelope
	Decision tebra.Decision
	// Called says whether the API was called.
	Called bool
	// Outcome is why it did not succeed, "" if it did.
	Outcome tebra.ErrorCode
	// Final says that the request has its answer, and will not be tried again.
	Final   bool
	Attempt int
}

// Auditor writes the audit log: who asked for what, when, on what grounds it was
// done, and what came of it. It is lines of another log with a label of their own,
// by which a sink routes them to where they are kept for years. A nil Auditor
// writes nothing.
//
// Users and IDs that are not made as IDs are, which nobody has checked, are there as
// digests ([tebra.Shown]); so is the name of an action that the policy does not know,
// beside the word "other". An auditor who is told a name can so find what was asked in
// it, and nobody reads a patient's from the log.
type Auditor struct {
	log    *slog.Logger
	action func(string) string
}

// NewAuditor returns the audit log among the lines of log. action gives the word for
// an action, a policy's ActionWord.
func NewAuditor(log *slog.Logger, action func(name string) string) *Auditor {
	return &Auditor{log.With(logKey, "audit"), action}
}

// Operation writes down one operation.
func (a *Auditor) Operation(o Operation) {
	if a == nil {
		return
	}
	e, outcome := o.Envelope, success
	if o.Outcome != "" {
		outcome = string(o.Outcome)
	}
	if o.Decision == Repeated { // the record of then says which
		outcome = "as_before"
	}
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs, slog.String("operation", "request"))
	attrs = a.who(attrs, e.UserID, e.Action, e.RequestID, e.CorrelationID)
	attrs = append(attrs, slog.String("entryId", e.EntryID),
		slog.String("decision", string(o.Decision)), slog.Bool("called", o.Called),
		slog.String("outcome", outcome), slog.Bool("final", o.Final))
	if o.Attempt > 0 {
		attrs = append(attrs, slog.Int("attempt", o.Attempt))
	}
	if e.Ledger != "" {
		attrs = append(attrs, slog.String(TraceKey, TraceOf(e)))
	}
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "audit", attrs...)
}

// Operator writes down what an operator did, which is entry id of the audit stream:
// should a record ever be here twice, the id says so.
func (a *Auditor) Operator(id string, r tebra.AuditRecord) {
	if a == nil {
		return
	}
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs, slog.String("operation", string(r.Operation)),
		slog.String("recordId", id), slog.String("at", tebra.FormatTime(r.At)), slog.String("operator", r.Operator))
	attrs = a.who(attrs, r.UserID, r.Action, r.RequestID, r.CorrelationID)
	attrs = append(attrs,
		slog.String("letterId", tebra.Shown(r.LetterID)), slog.String("entryId", tebra.Shown(r.EntryID)),
		slog.String("decision", string(r.Decision)), slog.String("reason", tebra.Shown(r.Reason)))
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "audit", attrs...)
}

// who adds who asked for what, and what it is called.
func (a *Auditor) who(attrs []slog.Attr, user, action, requestID, correlationID string) []slog.Attr {
	word := action
	if action != "" {
		word = a.action(action)
	}
	attrs = append(attrs, slog.String("userId", tebra.Shown(user)), slog.String("action", word))
	if word != action {
		attrs = append(attrs, slog.String("actionDigest", tebra.Digest(action)))
	}
	return append(attrs, slog.String("requestId", tebra.Shown(requestID)), slog.String("correlationId", tebra.Shown(correlationID)))
}
