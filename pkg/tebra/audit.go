package tebra

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Operation is what an operator did that somebody may have to account for. The
// set is closed.
type Operation string

// The operations.
const (
	DeadLetterReplayed Operation = "deadletters.replay" // a request put back on the requests stream
	DeadLetterDropped  Operation = "deadletters.drop"   // a dead letter given up for good
	PayloadsShown      Operation = "payloads.shown"     // a person saw what a request holds
)

var operations = []Operation{DeadLetterReplayed, DeadLetterDropped, PayloadsShown}

// Decision says on what terms an operation was let through.
type Decision string

// The decisions.
const (
	Allowed Decision = "allowed"
	// Forced: the operator overrode a refusal, such as that of a write whose
	// outcome nobody knows.
	Forced Decision = "forced"
)

// AuditRecord is one act of an operator upon one request, an entry of the audit
// stream. It is written before the act and holds no payload. Of a dead letter
// that is no request, what names the request is empty.
type AuditRecord struct {
	At            time.Time
	Operator      string // who, such as user@host
	Operation     Operation
	RequestID     string
	CorrelationID string
	Action        string
	UserID        string
	LetterID      string // of the dead letter that was acted upon, "" where it was none
	EntryID       string // of the requests stream, "" where it is not known
	Decision      Decision
	Reason        string // the dead letter's, or why else it was done; a word, never contents
}

// Fields returns the record as flat names and values in turn, cut as Pub/Sub
// attributes are: names come from outside.
func (r AuditRecord) Fields() []string {
	f := []string{"at", FormatTime(r.At), "operator", r.Operator, "operation", string(r.Operation),
		"requestId", r.RequestID, "correlationId", r.CorrelationID, "action", r.Action, "userId", r.UserID,
		"letterId", r.LetterID, "entryId", r.EntryID, "decision", string(r.Decision), "reason", r.Reason}
	for i := 1; i < len(f); i += 2 {
		f[i] = attribute(f[i])
	}
	return f
}

// ParseAudit reads an entry of the audit stream. Its errors quote nothing of the
// entry.
func ParseAudit(fields map[string]string) (AuditRecord, error) {
	r := AuditRecord{
		Operator: fields["operator"], Operation: Operation(fields["operation"]),
		RequestID: fields["requestId"], CorrelationID: fields["correlationId"],
		Action: fields["action"], UserID: fields["userId"],
		LetterID: fields["letterId"], EntryID: fields["entryId"],
		Decision: Decision(fields["decision"]), Reason: fields["reason"],
	}
	var err error
	if r.At, err = parseTime(fields["at"]); err != nil {
		return r, fmt.Errorf("audit record: %w", err)
	}
	switch {
	case !slices.Contains(operations, r.Operation):
		return r, errors.New("audit record: operation is not one of the closed set")
	case r.Decision != Allowed && r.Decision != Forced:
		return r, errors.New("audit record: decision is neither allowed nor forced")
	case strings.TrimSpace(r.Operator) == "":
		return r, errors.New("audit record: it names no operator")
	}
	return r, nil
}
