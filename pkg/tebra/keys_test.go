package tebra_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"tebraproxy/pkg/tebra"
)

func TestKeysUnderAPrefix(t *testing.T) {
	t.Parallel()
	tests := []struct {
		prefix  string
		oneSlot bool
	}{
		{"tebra", false}, {"tebra:prod", false}, {"A.b_c-9", false}, {"{tebra}", true}, {"{tebra:0}", true},
		{strings.Repeat("x", 64), false}, {"{" + strings.Repeat("x", 64) + "}", true},
	}
	for _, tt := range tests {
		t.Run(tt.prefix, func(t *testing.T) {
			t.Parallel()
			k, err := tebra.NewKeys(tt.prefix)
			if err != nil {
				t.Fatalf("NewKeys() error = %v", err)
			}
			if k.Prefix() != tt.prefix || k.OneSlot() != tt.oneSlot {
				t.Errorf("Prefix(), OneSlot() = %q, %v, want %q, %v", k.Prefix(), k.OneSlot(), tt.prefix, tt.oneSlot)
			}
			got := allKeys(k)
			want := []string{
				":requests", ":responses", ":status", ":open:default", ":retrying:default", ":ledger:H", ":epoch",
				":breaker", ":probe", ":rate:default", ":overdue", ":lanes", ":audit", ":heartbeat:bridge-1",
			}
			for i := range want {
				want[i] = tt.prefix + want[i]
			}
			if !slices.Equal(got, want) {
				t.Errorf("keys = %q, want %q", got, want)
			}
			slices.Sort(got)
			if n := len(slices.Compact(got)); n != len(want) {
				t.Errorf("%d different keys, want %d", n, len(want))
			}
		})
	}
}

func allKeys(k tebra.Keys) []string {
	return []string{
		k.Requests(), k.Responses(), k.Status(), k.Open("default"), k.Retrying("default"), k.Ledger("H"), k.Epoch(),
		k.Breaker(), k.Probe(), k.Rate("default"), k.Overdue(), k.Lanes(), k.Audit(), k.Heartbeat("bridge-1"),
	}
}

func TestNewKeysRefusesAPrefix(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{
		"", "{}", "{tebra", "tebra}", "{a}{b}", "{tebra}:x", "x{tebra}", "te bra", "tebra\n", "tebra*", "tebra?", "[t]", ":tebra", "tébra",
		"\x00", strings.Repeat("x", 65), "{" + strings.Repeat("x", 65) + "}",
	} {
		if k, err := tebra.NewKeys(prefix); err == nil || k != (tebra.Keys{}) {
			t.Errorf("NewKeys(%q) = %v, %v, want an error", prefix, k, err)
		}
	}
}

func TestLaneNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{tebra.DefaultLane, "a", "get-patients_1", "a" + strings.Repeat("9", 31)} {
		if err := tebra.CheckLane(name); err != nil {
			t.Errorf("CheckLane(%q) = %v, want none", name, err)
		}
	}
	for _, name := range []string{"", "A", "1a", "-a", "a:b", "a b", "a\n", "ä", "{a}", "a" + strings.Repeat("9", 32)} {
		if err := tebra.CheckLane(name); err == nil {
			t.Errorf("CheckLane(%q) = none, want an error", name)
		}
	}
}

func TestErrorsQuoteOnlyTheBeginningOfABadName(t *testing.T) {
	t.Parallel()
	bad := strings.Repeat("\n ", 5000)
	_, keysErr := tebra.NewKeys(bad)
	_, codeErr := tebra.ParseErrorCode(bad)
	_, idErr := tebra.ParseEntryID(bad)
	for name, err := range map[string]error{
		"NewKeys": keysErr, "CheckLane": tebra.CheckLane(bad), "ParseErrorCode": codeErr, "ParseEntryID": idErr,
	} {
		if err == nil || len(err.Error()) > 250 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s() error = %q, want a short line", name, err)
		}
	}
}

// The hashes are in Redis and in messages under way: another form of them would
// cut a new version off from the records of the old one.
func TestHashesStayAsTheyAre(t *testing.T) {
	t.Parallel()
	if got, want := tebra.LedgerHash("u-1", "r-1"), "NuU591zRsxwPs0MfbRa1GhsPkcLQUgRjD0Q0ZChQZFE"; got != want {
		t.Errorf("LedgerHash() = %s, want %s", got, want)
	}
	if got, want := tebra.Fingerprint("u-1", []byte("r-1")), tebra.LedgerHash("u-1", "r-1"); got != want {
		t.Errorf("Fingerprint() = %s, want the same digest of the same texts, %s", got, want)
	}
}

func TestWhiteSpaceDoesNotMakeAnotherRequest(t *testing.T) {
	t.Parallel()
	want := tebra.Fingerprint("createAppointment", []byte(`{"a":"x  y","b":[1,2]}`))
	for params, same := range map[string]bool{
		"{\"a\": \"x  y\", \"b\": [1, 2]}":         true,
		"{\n\t\"a\":\"x  y\",\r\n\t\"b\":[1,2]\n}": true,
		`{"a":"x y","b":[1,2]}`:                    false,
		`{"b":[1,2],"a":"x  y"}`:                   false,
	} {
		if got := tebra.Fingerprint("createAppointment", []byte(params)); (got == want) != same {
			t.Errorf("Fingerprint(%q) is that of the compact params: %v, want %v", params, got == want, same)
		}
	}
}

func TestNoBytesShiftBetweenUserAndID(t *testing.T) {
	t.Parallel()
	const text = "\x00\x01alice:alice\x00:1"
	seen := map[string]int{}
	for i := range len(text) + 1 {
		hash := tebra.LedgerHash(text[:i], text[i:])
		if j, ok := seen[hash]; ok {
			t.Errorf("LedgerHash() is the same for the text cut at %d and at %d", i, j)
		}
		seen[hash] = i
	}
	// Nor can a user make up the length that stands before the text.
	if tebra.LedgerHash("", "\x00\x00\x00\x00\x00\x00\x00\x01ab") == tebra.LedgerHash("a", "b") {
		t.Error("LedgerHash() is the same for another user's request with a made-up length")
	}
	if tebra.LedgerHash("a", "b") == tebra.LedgerHash("b", "a") {
		t.Error("LedgerHash() is the same with user and ID exchanged")
	}
}

func TestNoKeyHoldsWhatAPersonTyped(t *testing.T) {
	t.Parallel()
	k, err := tebra.NewKeys(tebra.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^tebra:ledger:[A-Za-z0-9_-]{43}$`)
	for _, typed := range []string{"", "jane.doe@example.org", "*\r\nFLUSHALL\r\n", strings.Repeat("Łé", 5000), "\xff"} {
		if got := k.Ledger(tebra.LedgerHash(typed, typed)); !form.MatchString(got) {
			t.Errorf("Ledger(LedgerHash(%.20q…)) = %q, want 43 letters of base64", typed, got)
		}
	}
}
