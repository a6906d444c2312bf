package telemetry

import (
	"context"
	"log/slog"

	"tebraproxy/pkg/tebra"
)

// Decision is on what grounds an operation was carried out, or was not. The set is
// closed.
type Decision string

// The decisions.
const (
	Allowed  Decision = "allowed"  // the policy lets this user do that
	Denied   Decision = "denied"   // it does not
	Expired  Decision = "expired"  // allowed or not, it came too late
	Invalid  Decision = "invalid"  // it is no request, or one that can't be carried
	Deferred Decision = "deferred" // nothing was decided: it waits for a better time
	Repeated Decision = "repeated" // done before under this ID: the same answer again
	Conflict Decision = "conflict" // another was made under this ID
	GivenUp  Decision = "given_up" // nobody will try any more
)

// Operation is one operation on the API that somebody asked for, or one try at it.
type Operation struct {
	Envelope *tebra.Envelope
	Decision Decision
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
type Auditor struct{ log *slog.Logger }

// NewAuditor returns the audit log among the lines of log.
func NewAuditor(log *slog.Logger) *Auditor {
	return &Auditor{log.With(logKey, "audit")}
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
	attrs = append(attrs, slog.String("operation", "request"),
		slog.String("userId", e.UserID), slog.String("action", e.Action),
		slog.String("requestId", e.RequestID), slog.String("correlationId", e.CorrelationID), slog.String("entryId", e.EntryID),
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
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "audit", slog.String("operation", string(r.Operation)),
		slog.String("recordId", id), slog.String("at", tebra.FormatTime(r.At)), slog.String("operator", r.Operator),
		slog.String("userId", r.UserID), slog.String("action", r.Action),
		slog.String("requestId", r.RequestID), slog.String("correlationId", r.CorrelationID),
		slog.String("letterId", r.LetterID), slog.String("entryId", r.EntryID),
		slog.String("decision", string(r.Decision)), slog.String("reason", r.Reason))
}
