package bridge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// auditLines is the audit log of all bridges of a test.
type auditLines struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (a *auditLines) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.Write(p)
}

// carried returns how often each record is in the log, by its ID, and for which
// request.
func (a *auditLines) carried(t *testing.T) (times map[string]int, requests map[string]string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	times, requests = map[string]int{}, map[string]string{}
	for line := range strings.Lines(a.out.String()) {
		var r struct{ Operation, RecordID, RequestID string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("a line of the log is no JSON: %q", line)
		}
		if r.Operation == string(tebra.DeadLetterDropped) {
			times[r.RecordID]++
			if before, ok := requests[r.RecordID]; ok && before != r.RequestID {
				t.Errorf("record %s is of %s, then of %s", r.RecordID, before, r.RequestID)
			}
			requests[r.RecordID] = r.RequestID
		}
	}
	return times, requests
}

// TestSeveralBridgesCarryTheAuditStream: every record reaches the audit log, under the
// ID of its entry; once, unless a bridge dies between writing it and confirming it, or
// stands still in between for longer than auditIdle: then it comes again under the
// same ID, and nothing is lost.
func TestSeveralBridgesCarryTheAuditStream(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := stream.New(b.rdb, b.keys)
	const n = 700
	var want []string
	record := func() {
		id := fmt.Sprintf("r%d", len(want))
		want = append(want, id)
		if err := s.Audit(t.Context(), tebra.AuditRecord{At: time.Now(), Operator: "ada@desk", Operation: tebra.DeadLetterDropped,
			RequestID: id, CorrelationID: id, Action: "quick", UserID: "u", Decision: tebra.Allowed, Reason: "malformed"}); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		record()
	}
	// A bridge that read some, wrote them, and died before it confirmed them.
	var log auditLines
	logger := telemetry.NewLogger(&log, slog.LevelInfo)
	died, err := s.CarryAudit(t.Context(), time.Hour, 50)
	if err != nil || len(died) != 50 {
		t.Fatalf("CarryAudit() = %d records, %v; want 50", len(died), err)
	}
	again := map[string]bool{}
	auditor := telemetry.NewAuditor(logger, func(string) string { return "" })
	// It died longer ago than auditIdle, which is longer than this test: what a bridge that
	// lives has read is nobody else's meanwhile, however slow the machine is.
	outlive := []any{"XCLAIM", b.keys.Audit(), "audit", "bridges", 0}
	for _, e := range died {
		again[e.ID] = true
		auditor.Operator(e.ID, e.Record)
		outlive = append(outlive, e.ID)
	}
	outlive = append(outlive, "IDLE", (2 * auditIdle).Milliseconds(), "JUSTID")
	if err := b.rdb.Do(t.Context(), outlive...).Err(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		r := b.assemble()
		r.audit = telemetry.NewAuditor(logger, func(string) string { return "" })
		r.tidyEvery = 20 * time.Millisecond
		r.begin(t)
	}
	for range n { // while they carry
		record()
	}
	peertest.Eventually(t, wait, "every record in the audit log, and none left", func() bool {
		times, _ := log.carried(t)
		twice := 0
		for id := range again {
			if times[id] > 1 {
				twice++
			}
		}
		pending, err := b.rdb.XPending(t.Context(), b.keys.Audit(), "audit").Result()
		return len(times) == len(want) && twice == len(again) && err == nil && pending.Count == 0
	})
	times, requests := log.carried(t)
	seen := map[string]bool{}
	for id, n := range times {
		seen[requests[id]] = true
		most := 1
		if again[id] {
			most = 2
		}
		if n > most {
			t.Errorf("record %s is in the audit log %d times, want %d", id, n, most)
		}
	}
	for _, id := range want {
		if !seen[id] {
			t.Errorf("the record of %s is not in the audit log", id)
		}
	}
}

// TestARecordThatMakesTheBridgePanicKeepsNoOtherFromTheAuditLog.
func TestARecordThatMakesTheBridgePanicKeepsNoOtherFromTheAuditLog(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := stream.New(b.rdb, b.keys)
	for _, action := range []string{"quick", "slow", "quick"} {
		if err := s.Audit(t.Context(), tebra.AuditRecord{At: time.Now(), Operator: "ada@desk", Operation: tebra.DeadLetterDropped,
			RequestID: "r", CorrelationID: "r", Action: action, UserID: "u", Decision: tebra.Allowed, Reason: "malformed"}); err != nil {
			t.Fatal(err)
		}
	}
	var log auditLines
	r := b.assemble()
	r.audit = telemetry.NewAuditor(telemetry.NewLogger(&log, slog.LevelInfo), func(name string) string {
		if name == "slow" {
			panic(canary)
		}
		return name
	})
	for range 2 {
		if err := r.carryAudit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if times, _ := log.carried(t); len(times) != 2 {
		t.Errorf("%d records are in the audit log, want 2", len(times))
	}
	b.wantLines(slog.LevelError, "made the bridge panic", 1)
}
