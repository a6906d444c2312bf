package gateway

import (
	"strings"
	"testing"

	"tebraproxy/pkg/tebra"
)

func TestAPositionComesBackAsItWas(t *testing.T) {
	t.Parallel()
	want := position{tebra.EntryID{Millis: 1732332332000, Seq: 7}, tebra.EntryID{Millis: 1<<64 - 1, Seq: 1<<64 - 1}}
	if got, err := parsePosition(want.String()); got != want || err != nil {
		t.Errorf("parsePosition(%v) = %v, %v, want it back", want, got, err)
	}
	for _, text := range []string{
		"", "status:1-0", "status:1-0,responses:2-0,x:1-0", "responses:1-0,status:1-0", "status:1,responses:2",
		"status:-,responses:-", "status:01-0,responses:1-0", "status:1-0,responses:1-0 ", "1-0", strings.Repeat("x", 1000),
		"status:18446744073709551616-0,responses:1-0",
	} {
		if got, err := parsePosition(text); err == nil {
			t.Errorf("parsePosition(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	f.Add("status:1-0,responses:2-0")
	f.Add("status:,responses:")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePosition(s)
		if err == nil && p.String() != s {
			t.Errorf("parsePosition(%q).String() = %q, want it back", s, p.String())
		}
		if err != nil && p != (position{}) {
			t.Errorf("parsePosition(%q) = %v with an error", s, p)
		}
	})
}
