package stream_test

import (
	"testing"
	"time"

	"tebraproxy/pkg/tebra"
)

func TestWhatOperatorsDoIsOnRecordInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var want []tebra.AuditRecord
	for _, id := range []string{"r1", "r2", "r3"} {
		want = append(want, tebra.AuditRecord{
			At: time.UnixMilli(1795408829097).UTC(), Operator: "ada@desk", Operation: tebra.DeadLetterDropped,
			RequestID: id, CorrelationID: "c", Action: "health", UserID: "u", Decision: tebra.Allowed, Reason: "malformed",
		})
	}
	if err := b.s.Audit(t.Context(), want[:2]...); err != nil {
		t.Fatalf("Audit() = %v", err)
	}
	if err := b.s.Audit(t.Context(), want[2]); err != nil {
		t.Fatalf("Audit() = %v", err)
	}
	messages, err := b.rdb.XRange(t.Context(), b.keys.Audit(), "-", "+").Result()
	if err != nil || len(messages) != len(want) {
		t.Fatalf("the audit stream has %d entries, %v, want %d", len(messages), err, len(want))
	}
	for i, m := range messages {
		fields := map[string]string{}
		for k, v := range m.Values {
			fields[k], _ = v.(string)
		}
		if got, err := tebra.ParseAudit(fields); err != nil || got != want[i] {
			t.Errorf("record %d = %+v, %v, want %+v", i, got, err, want[i])
		}
	}
}

func TestWhatCannotBeRecordedIsAnError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.rdb.Set(t.Context(), b.keys.Audit(), "in the way", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.s.Audit(t.Context(), tebra.AuditRecord{Operator: "ada"}); err == nil {
		t.Error("Audit() = nil over a key that is no stream, want an error")
	}
}
