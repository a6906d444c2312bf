package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/tebra"
)

// lines reads a log back.
func lines(t *testing.T, log *bytes.Buffer) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("a line of the log is no JSON: %q", line)
		}
		all = append(all, m)
	}
	return all
}

func TestLinesAreAsCloudLoggingReadsThem(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := NewLogger(&out, slog.LevelInfo, InProject("p"))
	log.Warn("trouble", TraceKey, "0af7651916cd43dd8448eb211c80319c", SpanKey, "b7ad6b7169203331", "entryId", "1-0")
	log.Debug("not asked for")
	all := lines(t, &out)
	if len(all) != 1 {
		t.Fatalf("%d lines, want 1: %s", len(all), out.String())
	}
	for name, want := range map[string]string{
		"severity": "WARNING", "message": "trouble", "entryId": "1-0",
		"logging.googleapis.com/trace":  "projects/p/traces/0af7651916cd43dd8448eb211c80319c",
		"logging.googleapis.com/spanId": "b7ad6b7169203331",
	} {
		if got := all[0][name]; got != want {
			t.Errorf("%s = %v, want %s", name, got, want)
		}
	}
	if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(all[0]["time"])); err != nil {
		t.Errorf("time = %v, want RFC 3339", all[0]["time"])
	}
}

func TestAuditRecordsAreALogOfTheirOwn(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	audit := NewAuditor(NewLogger(&out, slog.LevelInfo, InNamespace("one")), newVocabulary([]string{"getProviders"}).word)
	e := envelope("r1")
	audit.Operation(Operation{Envelope: e, Decision: tebra.Allowed, Called: true, Outcome: tebra.Rejected, Final: true, Attempt: 2})
	audit.Operation(Operation{Envelope: e, Decision: Repeated, Final: true})
	audit.Operator("5-0", tebra.AuditRecord{At: time.UnixMilli(0), Operator: "ann@host", Operation: tebra.PayloadsShown,
		RequestID: "r1", CorrelationID: "c-r1", Action: "getProviders", UserID: "u", LetterID: "17", EntryID: "4-0",
		Decision: tebra.Allowed, Reason: "dead_lettered"})
	want := []map[string]any{
		{"operation": "request", "userId": "u", "action": "getProviders", "requestId": "r1", "correlationId": "c-r1", "entryId": "1-0",
			"decision": "allowed", "called": true, "outcome": "rejected", "final": true, "attempt": 2.0},
		{"operation": "request", "decision": "repeated", "outcome": "as_before", "called": false, "attempt": nil},
		{"operation": "payloads.shown", "operator": "ann@host", "recordId": "5-0", "at": "1970-01-01T00:00:00.000Z", "requestId": "r1", "correlationId": "c-r1",
			"action": "getProviders", "userId": "u", "letterId": "17", "entryId": "4-0", "decision": "allowed", "reason": "dead_lettered"},
	}
	got := lines(t, &out)
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		want[i]["logging.googleapis.com/labels"] = map[string]any{"log": "audit", "namespace": "one"}
		for name, value := range want[i] {
			if fmt.Sprint(got[i][name]) != fmt.Sprint(value) {
				t.Errorf("record %d: %s = %v, want %v", i, name, got[i][name], value)
			}
		}
	}
	if trace := got[0]["logging.googleapis.com/trace"]; trace != TraceOf(e) {
		t.Errorf("record 0 is of trace %v, want %s", trace, TraceOf(e))
	}
}

// TestAuditRecordsHoldNoTextOfClients: nobody has checked what a client calls itself, its
// request, and what it asks for. That it was asked can be shown all the same to who is
// told the name.
func TestAuditRecordsHoldNoTextOfClients(t *testing.T) {
	t.Parallel()
	const text = "Jane Doe, HIV positive"
	var out bytes.Buffer
	audit := NewAuditor(NewLogger(&out, slog.LevelInfo), newVocabulary([]string{"getProviders"}).word)
	audit.Operation(Operation{Envelope: &tebra.Envelope{UserID: text, Action: text, RequestID: text, CorrelationID: text, EntryID: "1-0"},
		Decision: Invalid, Outcome: tebra.Malformed})
	audit.Operation(Operation{Envelope: &tebra.Envelope{UserID: "ada@example.com", Action: "JaneDoe", RequestID: "r", CorrelationID: "c", EntryID: "1-0"},
		Decision: Denied, Outcome: tebra.UnknownAction})
	audit.Operator("5-0", tebra.AuditRecord{Operator: "ann@host", Operation: tebra.DeadLetterDropped,
		RequestID: text, CorrelationID: text, Action: text, UserID: text, LetterID: text, EntryID: text, Decision: tebra.Allowed, Reason: text})
	if strings.Contains(out.String(), "Jane") {
		t.Errorf("audit records hold text of clients:\n%s", out.String())
	}
	all := lines(t, &out)
	for i, want := range []map[string]string{
		{"userId": tebra.Digest(text), "action": "other", "actionDigest": tebra.Digest(text), "requestId": tebra.Digest(text), "correlationId": tebra.Digest(text)},
		{"userId": "ada@example.com", "action": "other", "actionDigest": tebra.Digest("JaneDoe"), "requestId": "r", "correlationId": "c"},
		{"operator": "ann@host", "userId": tebra.Digest(text), "actionDigest": tebra.Digest(text), "requestId": tebra.Digest(text)},
	} {
		for name, value := range want {
			if all[i][name] != value {
				t.Errorf("record %d: %s = %v, want %s", i, name, all[i][name], value)
			}
		}
	}
}

func TestErrorsThatRepeatAreThinnedAndCounted(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := Thin(NewLogger(&out, slog.LevelInfo))
	now := time.Unix(1000, 0)
	log.Handler().(*thinHandler).shared.now = func() time.Time { return now }
	for i := range 1000 {
		log.With("entryId", i).Warn("Redis is away", "error", errors.New("refused"))
		log.Info("one of many")
	}
	log.Error("another")
	now = now.Add(thinWindow)
	log.Warn("Redis is away")
	count := map[string]int{}
	var suppressed []any
	for _, line := range lines(t, &out) {
		count[fmt.Sprint(line["message"])]++
		if n, ok := line["suppressed"]; ok {
			suppressed = append(suppressed, n)
		}
	}
	if count["Redis is away"] != thinBurst+1 || count["one of many"] != 1000 || count["another"] != 1 {
		t.Errorf("lines = %v, want %d of what repeats, all others", count, thinBurst+1)
	}
	if fmt.Sprint(suppressed) != fmt.Sprint([]any{float64(1000 - thinBurst)}) {
		t.Errorf("suppressed = %v, want %d once", suppressed, 1000-thinBurst)
	}
}

func TestThinningKeepsItsMemoryBounded(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := Thin(NewLogger(&out, slog.LevelInfo))
	for i := range 10 * thinMost {
		log.Warn(fmt.Sprint("message ", i))
	}
	if n := len(log.Handler().(*thinHandler).shared.messages); n > thinMost+1 {
		t.Errorf("%d messages are remembered, want at most %d", n, thinMost+1)
	}
	if n := len(lines(t, &out)); n != thinMost+thinBurst {
		t.Errorf("%d lines, want %d", n, thinMost+thinBurst)
	}
}
