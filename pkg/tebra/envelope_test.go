package tebra_test

import (
	"maps"
	"strings"
	"testing"

	"tebraproxy/pkg/tebra"
)

func TestParseEnvelopeRefusesWhatNobodyCouldBeAnsweredBy(t *testing.T) {
	t.Parallel()
	const missing = " is missing: the message was not published by a bridge"
	long := strings.Repeat("x", tebra.MaxAttributeBytes+1)
	tests := []struct{ name, attr, value, want string }{
		{"no request ID", "requestId", "", "attribute requestId" + missing},
		{"no correlation ID", "correlationId", "", "attribute correlationId" + missing},
		{"no action", "action", "", "attribute action" + missing},
		{"no user", "userId", "", "attribute userId" + missing},
		{"no ledger", "ledger", "", "attribute ledger" + missing},
		{"no epoch", "epoch", "", "attribute epoch" + missing},
		{"no admission", "admittedAt", "", "attribute admittedAt" + missing},
		{"no entry", "entryId", "", "attribute entryId is not the ID of a stream entry"},
		{"no lane", "lane", "", "attribute lane is not the name of a lane"},
		{"too long", "action", long, "attribute action has 1025 bytes; at most 1024 are allowed"},
		{"entry without a sequence", "entryId", "1763869532000", "attribute entryId is not the ID of a stream entry"},
		{"entry that Redis would write otherwise", "entryId", "01763869532000-0", "attribute entryId is not the ID of a stream entry"},
		{"lane with a colon", "lane", "a:b", "attribute lane is not the name of a lane"},
		{"admission no number", "admittedAt", "2025-11-23T03:45:32Z", "attribute admittedAt is not a time in milliseconds"},
		{"admission before 1970", "admittedAt", "-1", "attribute admittedAt is not a time in milliseconds"},
		{"another's ledger record", "ledger", tebra.LedgerHash("u-2", "r-1"), "attribute ledger does not belong to this user and request"},
		{"another user", "userId", "u-2", "attribute ledger does not belong to this user and request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			attrs := typicalEnvelope().Attributes()
			attrs[tt.attr] = tt.value
			if _, err := tebra.ParseEnvelope(attrs); err == nil || err.Error() != tt.want {
				t.Errorf("ParseEnvelope() error = %v, want %s", err, tt.want)
			}
		})
	}
}

func TestParseEnvelopeAsksLessOfProbesAndDeadLetters(t *testing.T) {
	t.Parallel()
	for _, want := range []tebra.Envelope{
		{Probe: true},
		{Reason: tebra.Malformed, EntryID: "1763869532000-0", CorrelationID: "c-1"},
		{Reason: "trimmed"},
	} {
		got, err := tebra.ParseEnvelope(want.Attributes())
		if err != nil || got != want {
			t.Errorf("ParseEnvelope() = %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestParseEnvelopeDropsABadTraceparent(t *testing.T) {
	t.Parallel()
	want := typicalEnvelope()
	attrs := want.Attributes()
	attrs["traceparent"] = strings.ToUpper(attrs["traceparent"])
	want.Traceparent = ""
	if got, err := tebra.ParseEnvelope(attrs); err != nil || got != want {
		t.Errorf("ParseEnvelope() = %+v, %v, want %+v", got, err, want)
	}
}

func TestParseEnvelopeErrorsHoldNothingOfAValue(t *testing.T) {
	t.Parallel()
	const canary = "CANARY"
	good := typicalEnvelope().Attributes()
	refused := 0
	for name := range good {
		for _, value := range []string{canary, strings.Repeat(canary, 300), canary + "\xff", "1-" + canary} {
			attrs := maps.Clone(good)
			attrs[name] = value
			_, err := tebra.ParseEnvelope(attrs)
			if err == nil {
				continue
			}
			refused++
			if strings.Contains(err.Error(), canary) {
				t.Errorf("ParseEnvelope() with that %s: error = %q, which holds a value", name, err)
			}
		}
	}
	if refused < 16 {
		t.Errorf("ParseEnvelope() refused %d sets of attributes, want at least 16", refused)
	}
}

func TestAttributesCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, value, want string }{
		{"at the bound", strings.Repeat("é", 512), strings.Repeat("é", 512)},
		{"a byte over", strings.Repeat("x", 1025), strings.Repeat("x", 1024)},
		{"within two bytes", "x" + strings.Repeat("é", 512), "x" + strings.Repeat("é", 511)},
		{"within four bytes", "x" + strings.Repeat("😀", 256), "x" + strings.Repeat("😀", 255)},
		{"what grows when mended", strings.Repeat("\xffx", 512), strings.Repeat("\ufffdx", 256)},
		{"what is no text at all", strings.Repeat("\x80", 2000), "\ufffd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := (tebra.Envelope{UserID: tt.value}).Attributes()["userId"]; got != tt.want {
				t.Errorf("attribute of %d bytes = %q, want %q", len(tt.value), got, tt.want)
			}
		})
	}
}

func TestAttributesLeaveOutWhatIsEmpty(t *testing.T) {
	t.Parallel()
	if got := (tebra.Envelope{}).Attributes(); len(got) != 0 {
		t.Errorf("Attributes() of nothing = %v, want none", got)
	}
}
