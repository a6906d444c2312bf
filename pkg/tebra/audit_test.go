package tebra_test

import (
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/tebra"
)

func auditRecord() tebra.AuditRecord {
	return tebra.AuditRecord{
		At: time.Date(2026, 11, 23, 1, 2, 3, 4e6, time.UTC), Operator: "ada@night-shift",
		Operation: tebra.DeadLetterReplayed, RequestID: "r1", CorrelationID: "c1", Action: "syncSchedule",
		UserID: "u1", LetterID: "17954088290971234", EntryID: "1795408829097-0", Decision: tebra.Forced, Reason: "outcome_unknown",
	}
}

func asMap(fields []string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(fields); i += 2 {
		m[fields[i]] = fields[i+1]
	}
	return m
}

func TestAnAuditRecordIsReadBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	want := auditRecord()
	got, err := tebra.ParseAudit(asMap(want.Fields()))
	if err != nil || got != want {
		t.Errorf("ParseAudit() = %+v, %v, want %+v", got, err, want)
	}
}

func TestAnAuditRecordHoldsNoMoreThanAnAttribute(t *testing.T) {
	t.Parallel()
	r := auditRecord()
	r.RequestID = strings.Repeat("é", 2000) + "\xff"
	if got := asMap(r.Fields())["requestId"]; len(got) > tebra.MaxAttributeBytes || !strings.HasPrefix(got, "éé") {
		t.Errorf("requestId has %d bytes, want at most %d of what was given", len(got), tebra.MaxAttributeBytes)
	}
}

func TestWhatIsNoAuditRecordIsRefused(t *testing.T) {
	t.Parallel()
	for field, value := range map[string]string{"at": "yesterday", "operation": "coffee", "decision": "perhaps", "operator": " "} {
		fields := asMap(auditRecord().Fields())
		fields[field] = value
		if _, err := tebra.ParseAudit(fields); err == nil || strings.Contains(err.Error(), "coffee") {
			t.Errorf("ParseAudit() with %s %q = %v, want an error that quotes nothing", field, value, err)
		}
	}
}
