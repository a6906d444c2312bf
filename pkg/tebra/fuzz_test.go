package tebra_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"tebraproxy/pkg/tebra"
)

// failer is what *testing.T and *rapid.T share.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
}

// checkDecodeEntry decodes any entry at all and checks what must hold of each.
func checkDecodeEntry(t failer, fields []string, maxBytes int) {
	t.Helper()
	before := slices.Clone(fields)
	r, err := tebra.DecodeEntry(fields, maxBytes)
	if !slices.Equal(fields, before) {
		t.Errorf("DecodeEntry(%q) changed its fields", before)
	}
	if err != nil {
		checkRefused(t, r, err)
		return
	}
	if size := len(strings.Join(fields, "")); size > maxBytes {
		t.Errorf("DecodeEntry() accepted %d bytes, want at most %d", size, maxBytes)
	}
	r.Identify(func() string { return "derived" })
	data := r.AppendJSON(nil)
	again, err := tebra.DecodeMessage(data)
	if err != nil || !equal(again, r) {
		t.Errorf("DecodeMessage(%q) = %+v, %v, want %+v", data, again, err, r)
	}
	e := envelopeOf(r)
	if got, err := tebra.ParseEnvelope(e.Attributes()); err != nil || got != e {
		t.Errorf("ParseEnvelope(Attributes()) = %+v, %v, want %+v", got, err, e)
	}
}

// checkRefused checks what must hold of a request that is refused with err.
func checkRefused(t failer, r tebra.Request, err error) {
	t.Helper()
	e, ok := tebra.IsDecodeError(err)
	if !ok || e.Reason == "" || (e.Code != tebra.Malformed && e.Code != tebra.TooLarge) {
		t.Errorf("error = %#v, want a *DecodeError of one of two codes, with a reason", err)
	}
	if text := err.Error(); !utf8.ValidString(text) || len(text) > 500 || strings.ContainsAny(text, "\r\n\x00") {
		t.Errorf("error = %q, want a short line", text)
	}
	for _, name := range []string{r.ID, r.CorrelationID, r.Action, r.UserID, r.ReplayOf} {
		if len(name) > tebra.MaxAttributeBytes || !utf8.ValidString(name) {
			t.Errorf("a refused request has the name %q, want at most %d bytes of UTF-8", name, tebra.MaxAttributeBytes)
		}
	}
	if data := r.AppendJSON(nil); !json.Valid(data) || !utf8.Valid(data) {
		t.Errorf("AppendJSON() of a refused request = %q, want valid JSON", data)
	}
}

// fuzzFields cuts fuzz input into names and values: a byte 0 ends each.
func fuzzFields(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\x00")
}

func fuzzMap(text string) map[string]string {
	fields := fuzzFields(text)
	m := make(map[string]string)
	for i := 0; i+1 < len(fields); i += 2 {
		m[fields[i]] = fields[i+1]
	}
	return m
}

// attributesOf returns attributes as the fields that fuzzMap reads.
func attributesOf(e tebra.Envelope) (fields []string) {
	e.EachAttribute(func(name, value string) { fields = append(fields, name, value) })
	return fields
}

func FuzzDecodeEntry(f *testing.F) {
	add := func(fields ...string) { f.Add(strings.Join(fields, "\x00"), roomy) }
	add(typicalEntry()...)
	add(entry("params", `{"a":[1,{"b":"\u0041\""}]}`, "_metadata", `{"publishedBy":"u-1"}`, "timestamp", "1763869532000")...)
	add(entry("params", "[object Object]", "id", "\xff")...)
	add(append(entry(), "id", "r-2", "odd")...)
	add(whole(` {"id":12,"action":"a\n","userId":"u","params":"{}","_metadata":null,"x":[{}]} `)...)
	add("data", `{"id":"r`, "payload", `{"action":{}}`)
	add("message", "\ufeff{}", "userId", "u", "correlationId", " ")
	f.Add(strings.Join(whole(`{"params":{"a":"b"},"correlationId":"c"}`), "\x00"), 10)
	f.Fuzz(func(t *testing.T, text string, maxBytes int) { checkDecodeEntry(t, fuzzFields(text), maxBytes) })
}

func FuzzDecodeMessage(f *testing.F) {
	paths, err := filepath.Glob(filepath.Join("testdata", "request", "*.json"))
	if err != nil || len(paths) == 0 {
		f.Fatalf("found no messages in testdata/request (%v)", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{``, `{`, `{"id":"r","id":"r"}`, `{"id":1e5,"correlationId":-0,"action":"a","userId":"u","params":" {} "}`, "{\"id\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := tebra.DecodeMessage(data)
		if err != nil {
			checkRefused(t, r, err)
			return
		}
		// encoding/json is the second opinion on what the text says.
		var want struct {
			Params json.RawMessage `json:"params"`
		}
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("DecodeMessage(%q) accepted what encoding/json does not: %v", data, err)
		}
		again, err := tebra.DecodeMessage(r.AppendJSON(nil))
		if err != nil || !equal(again, r) {
			t.Errorf("decoded again = %+v, %v, want %+v", again, err, r)
		}
		if _, err := r.PublishedBy(); err != nil {
			checkRefused(t, r, err)
		}
	})
}

func FuzzParseEnvelope(f *testing.F) {
	e := typicalEnvelope()
	f.Add(strings.Join(attributesOf(e), "\x00"))
	e.Reason, e.UserID = tebra.TooLarge, ""
	f.Add(strings.Join(attributesOf(e), "\x00"))
	f.Add("probe\x001\x00admittedAt\x00+7")
	f.Add("admittedAt\x00-1")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := tebra.ParseEnvelope(fuzzMap(text))
		if err != nil {
			return
		}
		sent := e.Attributes()
		again, err := tebra.ParseEnvelope(sent)
		if err != nil {
			t.Fatalf("ParseEnvelope(%q) error = %v, want none for what we send ourselves", sent, err)
		}
		for name, value := range again.Attributes() {
			if value != sent[name] || len(value) > tebra.MaxAttributeBytes || !utf8.ValidString(value) {
				t.Errorf("attribute %s = %q, want %q", name, value, sent[name])
			}
		}
	})
}

func FuzzParseResponse(f *testing.F) {
	for _, r := range responses() {
		f.Add(strings.Join(r.Fields(), "\x00"))
	}
	f.Add("status\x00success\x00timestamp\x009999-12-31T23:59:59-23:59\x00duration\x009223372036854775807\x00attempts\x00-1")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := tebra.ParseResponse(fuzzMap(text))
		if err != nil {
			return
		}
		fields := r.Fields()
		again, err := tebra.ParseResponse(fieldMap(fields))
		if err != nil || !slices.Equal(again.Fields(), fields) {
			t.Errorf("ParseResponse(%q) = %+v, %v, want %+v", fields, again, err, r)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	for _, s := range statuses() {
		f.Add(strings.Join(s.Fields(), "\x00"))
	}
	f.Add("status\x00pending\x00timestamp\x000000-01-01T00:00:00+23:59\x00attempt\x00-1")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := tebra.ParseStatus(fuzzMap(text))
		if err != nil {
			return
		}
		fields := s.Fields()
		again, err := tebra.ParseStatus(fieldMap(fields))
		if err != nil || !slices.Equal(again.Fields(), fields) {
			t.Errorf("ParseStatus(%q) = %+v, %v, want %+v", fields, again, err, s)
		}
	})
}

func FuzzParseEntryID(f *testing.F) {
	for _, s := range []string{"1763869532000-0", "1763869532000", "0-0", "18446744073709551615-18446744073709551615", "18446744073709551616", "-", "1-", "-1", "007-07", "1-+1", "*", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := tebra.ParseEntryID(s)
		if err != nil {
			if len(err.Error()) > 300 {
				t.Errorf("ParseEntryID(%q) error has %d bytes, want a short line", s, len(err.Error()))
			}
			return
		}
		if again, err := tebra.ParseEntryID(id.String()); err != nil || again != id {
			t.Errorf("ParseEntryID(%q) = %v, %v, want %v", id.String(), again, err, id)
		}
	})
}
