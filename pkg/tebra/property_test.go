package tebra_test

import (
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"tebraproxy/pkg/tebra"
)

// anyText draws text as hostile clients send it, of any bytes and any size.
func anyText() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringN(0, -1, 2000),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 3000), func(b []byte) string { return string(b) }),
	)
}

// goodName draws an ID, an action or a user that is accepted.
func goodName() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[A-Za-z0-9_-]{1,40}`),
		rapid.StringMatching(`[!-~]([ -~é相😀]{0,60}[!-~])?`),
	)
}

func goodJSON() *rapid.Generator[string] {
	text := rapid.Map(rapid.String(), func(s string) any { return s })
	number := rapid.Map(rapid.Float64(), func(f float64) any { return f })
	leaf := rapid.OneOf(text, number, rapid.Just(any(nil)), rapid.Just(any(true)))
	object := rapid.MapOf(rapid.String(), rapid.OneOf(leaf, rapid.Map(rapid.SliceOf(leaf), func(s []any) any { return s })))
	return rapid.Custom(func(t *rapid.T) string {
		marshal := json.Marshal
		if rapid.Bool().Draw(t, "indented") {
			marshal = func(v any) ([]byte, error) { return json.MarshalIndent(v, " ", "\t") }
		}
		data, err := marshal(object.Draw(t, "object"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	})
}

// goodEntry draws an entry that is accepted.
func goodEntry() *rapid.Generator[[]string] {
	return rapid.Custom(func(t *rapid.T) []string {
		fields := []string{"action", goodName().Draw(t, "action"), "userId", goodName().Draw(t, "userId")}
		optional := func(name string, value *rapid.Generator[string]) {
			if rapid.Bool().Draw(t, "has "+name) {
				fields = append(fields, name, value.Draw(t, name))
			}
		}
		optional("id", goodName())
		optional("correlationId", goodName())
		optional("params", goodJSON())
		optional("_metadata", goodJSON())
		optional("timestamp", rapid.StringN(0, 50, -1))
		optional("traceparent", rapid.StringMatching(`00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]`))
		optional("replayOf", rapid.StringMatching(`[0-9]{1,13}-[0-9]`))
		return fields
	})
}

func decode(t *rapid.T, fields []string) tebra.Request {
	r, err := tebra.DecodeEntry(fields, roomy)
	if err != nil {
		t.Fatalf("DecodeEntry(%q) error = %v, want none", fields, err)
	}
	r.Identify(func() string { return "00000000-0000-5000-8000-000000000001" })
	return r
}

func TestARequestComesOutOfItsMessageUnchanged(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := decode(t, goodEntry().Draw(t, "entry"))
		got, err := tebra.DecodeMessage(want.AppendJSON(nil))
		if err != nil {
			t.Fatalf("DecodeMessage(AppendJSON()) error = %v, want none", err)
		}
		if !equal(got, want) {
			t.Fatalf("DecodeMessage(AppendJSON()) = %+v, want %+v", got, want)
		}
	})
}

func TestAnEntryMeansTheSameFlatAndAsJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := decode(t, goodEntry().Draw(t, "entry"))
		field := rapid.SampledFrom([]string{"message", "data", "payload"}).Draw(t, "field")
		if got := decode(t, []string{field, string(want.AppendJSON(nil))}); !equal(got, want) {
			t.Fatalf("DecodeEntry() of the JSON form = %+v, want %+v", got, want)
		}
	})
}

func TestAnEnvelopeComesOutOfItsAttributesUnchanged(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := decode(t, goodEntry().Draw(t, "entry"))
		id := tebra.EntryID{Millis: rapid.Uint64().Draw(t, "millis"), Seq: rapid.Uint64().Draw(t, "sequence")}
		want := envelopeOf(r)
		want.EntryID = id.String()
		want.Lane = rapid.StringMatching(`[a-z][a-z0-9_-]{0,31}`).Draw(t, "lane")
		want.AdmittedAt = time.UnixMilli(rapid.Int64Min(0).Draw(t, "admitted at"))
		got, err := tebra.ParseEnvelope(want.Attributes())
		if err != nil {
			t.Fatalf("ParseEnvelope(Attributes()) error = %v, want none", err)
		}
		if got != want {
			t.Fatalf("ParseEnvelope(Attributes()) = %+v, want %+v", got, want)
		}
	})
}

func TestAttributesAreAlwaysFitForPubSub(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := func(name string) string { return anyText().Draw(t, name) }
		e := tebra.Envelope{
			RequestID: text("id"), CorrelationID: text("correlation ID"), Action: text("action"), UserID: text("user"),
			EntryID: text("entry"), Lane: text("lane"), Ledger: text("ledger"), Epoch: text("epoch"),
			Traceparent: text("traceparent"), Reason: tebra.ErrorCode(text("reason")),
			AdmittedAt: time.UnixMilli(rapid.Int64().Draw(t, "admitted at")), Probe: rapid.Bool().Draw(t, "probe"),
		}
		for name, value := range e.Attributes() {
			if value == "" || len(value) > tebra.MaxAttributeBytes || !utf8.ValidString(value) {
				t.Fatalf("attribute %s = %q, want 1 to %d bytes of UTF-8", name, value, tebra.MaxAttributeBytes)
			}
		}
	})
}

func TestAnyEntryIsAcceptedOrRefusedForGoodReason(t *testing.T) {
	t.Parallel()
	name := rapid.OneOf(rapid.SampledFrom([]string{
		"id", "action", "params", "userId", "timestamp", "correlationId", "_metadata", "traceparent", "replayOf",
		"message", "data", "payload",
	}), anyText())
	value := rapid.OneOf(anyText(), goodName(), goodJSON())
	rapid.Check(t, func(t *rapid.T) {
		var fields []string
		for range rapid.IntRange(0, 8).Draw(t, "fields") {
			fields = append(fields, name.Draw(t, "name"), value.Draw(t, "value"))
		}
		checkDecodeEntry(t, fields, rapid.IntRange(0, 5000).Draw(t, "bound"))
	})
}
