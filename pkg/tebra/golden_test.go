package tebra_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/tebra"
)

var update = flag.Bool("update", false, "write what the tests get into testdata as what they want")

// golden compares got with the file of that name in testdata, byte for byte.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update and look at the difference", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", path, got, want)
	}
}

// lines writes names and values in turn as lines of a quoted name and a quoted
// value, so that every byte shows.
func lines(fields []string) []byte {
	var b bytes.Buffer
	for i := 0; i < len(fields); i += 2 {
		fmt.Fprintf(&b, "%q %q\n", fields[i], fields[i+1])
	}
	return b.Bytes()
}

// parseLines reads what lines writes.
func parseLines(t *testing.T, text string) []string {
	t.Helper()
	var fields []string
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			t.Fatalf("%v at %.40q", err, text)
		}
		field, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatal(err)
		}
		fields, text = append(fields, field), text[len(quoted):]
	}
	return fields
}

// TestEntriesBecomeTheseMessages reads each *.entry file in testdata/request, and
// compares the data and the attributes of the message that it becomes.
func TestEntriesBecomeTheseMessages(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob(filepath.Join("testdata", "request", "*.entry"))
	if err != nil || len(paths) < 8 {
		t.Fatalf("found %d entries in testdata/request (%v), want at least 8", len(paths), err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".entry")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			r, err := tebra.DecodeEntry(parseLines(t, string(text)), roomy)
			if err != nil {
				t.Fatalf("DecodeEntry() error = %v", err)
			}
			r.Identify(func() string { return "00000000-0000-5000-8000-000000000001" })
			golden(t, "request/"+name+".json", r.AppendJSON(nil))

			var attributes []string
			envelopeOf(r).EachAttribute(func(name, value string) { attributes = append(attributes, name, value) })
			golden(t, "request/"+name+".attributes", lines(attributes))
		})
	}
}

// envelopeOf returns what a bridge would send r with.
func envelopeOf(r tebra.Request) tebra.Envelope {
	return tebra.Envelope{
		RequestID: r.ID, CorrelationID: r.CorrelationID, Action: r.Action, UserID: r.UserID,
		EntryID: "1763869532000-0", Lane: tebra.DefaultLane, Ledger: tebra.LedgerHash(r.UserID, r.ID),
		Epoch: "4bq2aL0v", AdmittedAt: time.UnixMilli(1763869532017), Traceparent: r.Traceparent,
	}
}

func TestAttributesOfOtherMessages(t *testing.T) {
	t.Parallel()
	deadLetter := typicalEnvelope()
	deadLetter.Reason = tebra.Malformed
	for name, e := range map[string]tebra.Envelope{
		"dead-letter":                 deadLetter,
		"dead-letter-of-an-unread-id": {EntryID: "1763869532000-0", Lane: "default", Reason: tebra.TooLarge},
		"probe":                       {Probe: true},
		"unfit":                       {RequestID: "r\xff\xfe\x00", UserID: strings.Repeat("é", 600), Reason: tebra.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var attributes []string
			e.EachAttribute(func(name, value string) { attributes = append(attributes, name, value) })
			golden(t, "answer/"+name+".attributes", lines(attributes))
		})
	}
}

// answeredAt is not in UTC, and not of whole milliseconds, on purpose.
var answeredAt = time.Date(2025, 11, 23, 4, 45, 32, 987_654_321, time.FixedZone("", 3600))

func responses() map[string]tebra.Response {
	success := tebra.Response{
		ID: "a-1", RequestID: "r-1", CorrelationID: "c-1", Data: json.RawMessage(`{"providers": ["Dr \u00c9. Ü"]}`),
		Timestamp: answeredAt, Duration: 1234567 * time.Microsecond, Attempts: 2, UserID: "u-1", Action: "getProviders",
	}
	failed := success
	failed.Data, failed.Error, failed.ErrorCode = nil, "the API could not be reached", tebra.Unavailable
	empty := success
	empty.Data, empty.Duration, empty.Attempts = nil, 0, 0
	ahead := failed
	ahead.Error, ahead.Duration = "", -time.Second
	return map[string]tebra.Response{
		"response-success": success, "response-error": failed,
		"response-success-without-data": empty, "response-of-a-clock-behind": ahead,
	}
}

func statuses() map[string]tebra.StatusUpdate {
	s := tebra.StatusUpdate{CorrelationID: "c-1", RequestID: "r-1", Timestamp: answeredAt, UserID: "u-1", Action: "getProviders"}
	form := func(state tebra.State, attempt int, code tebra.ErrorCode) tebra.StatusUpdate {
		f := s
		f.State, f.Attempt, f.ErrorCode = state, attempt, code
		return f
	}
	return map[string]tebra.StatusUpdate{
		"status-pending":    form(tebra.Pending, 0, ""),
		"status-processing": form(tebra.Processing, 1, ""),
		"status-again":      form(tebra.Pending, 1, tebra.Unavailable),
		"status-success":    form(tebra.Success, 2, ""),
		"status-error":      form(tebra.Failed, 2, tebra.OutcomeUnknown),
	}
}

func TestResponsesAreTheseFields(t *testing.T) {
	t.Parallel()
	for name, r := range responses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, "answer/"+name+".fields", lines(r.Fields()))
		})
	}
}

func TestStatusUpdatesAreTheseFields(t *testing.T) {
	t.Parallel()
	for name, s := range statuses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden(t, "answer/"+name+".fields", lines(s.Fields()))
		})
	}
}
