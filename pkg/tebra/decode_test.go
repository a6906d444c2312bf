package tebra_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tebraproxy/pkg/tebra"
)

const roomy = tebra.DefaultMaxRequestBytes

// entry returns a flat entry that is accepted, with some fields set to other
// values, or left out where the value is absent.
func entry(changes ...string) []string {
	fields := []string{"id", "r-1", "action", "getProviders", "userId", "u-1", "correlationId", "c-1"}
	for i := 0; i < len(changes); i += 2 {
		fields = with(fields, changes[i], changes[i+1])
	}
	return fields
}

const absent = "\x00absent"

func with(fields []string, name, value string) []string {
	var out []string
	found := false
	for i := 0; i < len(fields); i += 2 {
		if fields[i] != name {
			out = append(out, fields[i], fields[i+1])
			continue
		}
		found = true
		if value != absent {
			out = append(out, name, value)
		}
	}
	if !found && value != absent {
		out = append(out, name, value)
	}
	return out
}

// nested returns a JSON object of that many levels.
func nested(levels int) string {
	return strings.Repeat(`{"a":`, levels-1) + `{}` + strings.Repeat(`}`, levels-1)
}

func whole(text string) []string { return []string{"message", text} }

func TestDecodeEntryRefusesWithAPreciseReason(t *testing.T) {
	t.Parallel()
	const (
		objectObject = `is "[object Object]": the client sent an object where it should have sent JSON.stringify(object)`
		bom          = "begins with a byte order mark: send the JSON without it"
		spaced       = "begins or ends with white space"
		control      = "holds a control character"
		tooLong      = "has 257 bytes; at most 256 are allowed"
	)
	long := strings.Repeat("x", 257)
	tests := []struct {
		name   string
		fields []string
		field  string
		reason string
	}{
		{"no fields", nil, "action", "is missing or empty"},
		{"odd fields", []string{"id", "r-1", "action", "getProviders", "userId"}, "", "the entry has a field without a value"},
		{"no action", entry("action", absent), "action", "is missing or empty"},
		{"empty action", entry("action", ""), "action", "is missing or empty"},
		{"no user", entry("userId", absent), "userId", "is missing or empty"},
		{"empty user", entry("userId", ""), "userId", "is missing or empty"},
		{"names are case-sensitive", entry("userId", absent, "userid", "u-1"), "userId", "is missing or empty"},

		{"params [object Object]", entry("params", "[object Object]"), "params", objectObject},
		{"params [object Map]", entry("params", " [object Map]"), "params", objectObject},
		{"params array", entry("params", `[{}]`), "params", "is a JSON array, not a JSON object"},
		{"params string", entry("params", `"{}"`), "params", "is a JSON string, not a JSON object"},
		{"params number", entry("params", `-1`), "params", "is a JSON number, not a JSON object"},
		{"params boolean", entry("params", `true`), "params", "is a JSON boolean, not a JSON object"},
		{"params null", entry("params", `null`), "params", "is JSON null, not a JSON object"},
		{"params not JSON", entry("params", `patientId=1`), "params", "is not JSON"},
		{"params undefined", entry("params", `undefined`), "params", "is not JSON"},
		{"params cut short", entry("params", `{"a":1`), "params", "is not JSON"},
		{"params and more", entry("params", `{} {}`), "params", "is not JSON"},
		{"params only a no-break space", entry("params", "\u00a0"), "params", "is not JSON"},
		{"params after a byte order mark", entry("params", "\ufeff{}"), "params", bom},
		{"params too deep", entry("params", nested(501)), "params", "is nested more than 500 levels deep"},
		{"params deeper than Go reads", entry("params", nested(10_001)), "params", "is nested more than 500 levels deep"},

		{"metadata not an object", entry("_metadata", `["u-1"]`), "_metadata", "is a JSON array, not a JSON object"},
		{"metadata [object Object]", entry("_metadata", "[object Object]"), "_metadata", objectObject},
		{"metadata not JSON", entry("_metadata", `{`), "_metadata", "is not JSON"},
		{"metadata too deep", entry("_metadata", nested(501)), "_metadata", "is nested more than 500 levels deep"},

		{"duplicate field", append(entry(), "userId", "u-2"), "userId", "is there twice"},
		{"duplicate field, the same value", append(entry(), "userId", "u-1"), "userId", "is there twice"},
		{"duplicate field that is not ours", append(entry(), "colour", "red", "colour", "red"), "colour", "is there twice"},
		{"duplicate field among many", append(manyFields(), "x99", ""), "x99", "is there twice"},
		{"name not UTF-8", append([]string{"\xff\xfe", "1"}, entry()...), "", "the name of field 1 is not UTF-8"},
		{"value not UTF-8", entry("userId", "u\xff"), "userId", "is not UTF-8"},
		{"params not UTF-8", entry("params", "{\"a\":\"\xff\"}"), "params", "is not UTF-8"},
		{"value of a field that is not ours not UTF-8", entry("colour", "\xc3"), "colour", "is not UTF-8"},
		{"long name of a field", append(entry(), strings.Repeat("é", 30), "1", strings.Repeat("é", 30), "1"), strings.Repeat("é", 20) + "…", "is there twice"},
		{"name of a field unfit for a log line", append(entry(), "a\nb", "1", "a\nb", "1"), `a\nb`, "is there twice"},

		{"long id", entry("id", long), "id", tooLong},
		{"long correlationId", entry("correlationId", long), "correlationId", tooLong},
		{"long action", entry("action", long), "action", tooLong},
		{"long userId", entry("userId", long), "userId", tooLong},
		{"long replayOf", entry("replayOf", long), "replayOf", tooLong},
		{"bytes count, not characters", entry("id", strings.Repeat("é", 128)+"x"), "id", tooLong},
		{"id of white space", entry("id", "  "), "id", spaced},
		{"id with space before", entry("id", " r-1"), "id", spaced},
		{"userId with a line break after", entry("userId", "u-1\n"), "userId", spaced},
		{"action with a no-break space after", entry("action", "getProviders\u00a0"), "action", spaced},
		{"correlationId with a line break", entry("correlationId", "c\r\nX-Admin: 1"), "correlationId", control},
		{"id with NUL", entry("id", "r\x001"), "id", control},
		{"id with DEL", entry("id", "r\x7f1"), "id", control},
		{"id with a control character past ASCII", entry("id", "é\u0085é"), "id", control},

		{"whole: not JSON", whole(`action=getProviders`), "message", "is not JSON"},
		{"whole: cut short", whole(`{"id":"r-1","action":"getProviders","userId":"u`), "message", "is not JSON"},
		{"whole: [object Object]", whole("[object Object]"), "message", objectObject},
		{"whole: array", whole(`[]`), "message", "is a JSON array, not a JSON object"},
		{"whole: JSON in JSON", whole(`"{\"action\":\"getProviders\"}"`), "message", "is a JSON string, not a JSON object"},
		{"whole: null", whole(`null`), "message", "is JSON null, not a JSON object"},
		{"whole: byte order mark", whole("\ufeff{}"), "message", bom},
		{"whole: empty text", whole(``), "action", "is missing or empty"},
		{"whole: empty object", whole(`{}`), "action", "is missing or empty"},
		{"whole: not UTF-8", whole("{\"action\":\"a\",\"userId\":\"u\",\"x\":\"\xff\"}"), "message", "is not UTF-8"},
		{"whole: too deep", whole(`{"action":"a","userId":"u","x":` + nested(501) + `}`), "message", "is nested more than 501 levels deep"},
		{"whole: action is a number", whole(`{"action":1,"userId":"u"}`), "message.action", "is a JSON number, not text"},
		{"whole: userId is a number", whole(`{"action":"a","userId":7}`), "message.userId", "is a JSON number, not text"},
		{"whole: userId is null", whole(`{"action":"a","userId":null}`), "userId", "is missing or empty"},
		{"whole: traceparent is an object", whole(`{"action":"a","userId":"u","traceparent":{}}`), "message.traceparent", "is a JSON object, not text"},
		{"whole: replayOf is a boolean", whole(`{"action":"a","userId":"u","replayOf":true}`), "message.replayOf", "is a JSON boolean, not text"},
		{"whole: id is a boolean", whole(`{"action":"a","userId":"u","id":false}`), "message.id", "is a JSON boolean, neither text nor a number"},
		{"whole: id is an object", whole(`{"action":"a","userId":"u","id":{"v":1}}`), "message.id", "is a JSON object, neither text nor a number"},
		{"whole: correlationId is an array", whole(`{"action":"a","userId":"u","correlationId":["c"]}`), "message.correlationId", "is a JSON array, neither text nor a number"},
		{"whole: timestamp is a boolean", whole(`{"action":"a","userId":"u","timestamp":true}`), "message.timestamp", "is a JSON boolean, neither text nor a number"},
		{"whole: params array", whole(`{"action":"a","userId":"u","params":[]}`), "params", "is a JSON array, not a JSON object"},
		{"whole: params null", whole(`{"action":"a","userId":"u","params":null}`), "params", "is JSON null, not a JSON object"},
		{"whole: params [object Object]", whole(`{"action":"a","userId":"u","params":"[object Object]"}`), "params", objectObject},
		{"whole: params text of a text", whole(`{"action":"a","userId":"u","params":"\"{}\""}`), "params", "is a JSON string, not a JSON object"},
		{"whole: metadata number", whole(`{"action":"a","userId":"u","_metadata":1}`), "_metadata", "is a JSON number, not a JSON object"},
		{"whole: id with an escaped line break", whole(`{"action":"a","userId":"u","id":"r\n1"}`), "id", control},
		{"whole: duplicate member", whole(`{"action":"a","userId":"u","userId":"v"}`), "message.userId", "is there twice"},
		{"whole: duplicate member, one of them escaped", whole(`{"action":"a","userId":"u","user\u0049d":"v"}`), "message.userId", "is there twice"},
		{"whole: duplicate member that is not ours", whole(`{"action":"a","userId":"u","x":1,"x":1}`), "message.x", "is there twice"},
		{"whole: duplicate null", whole(`{"action":"a","userId":"u","id":null,"id":"r"}`), "message.id", "is there twice"},
		{"whole: user differs from the flat one", []string{"userId", "u", "message", `{"action":"a","userId":"v"}`}, "message.userId", "differs from the entry's field userId"},
		{"whole: metadata differs from the flat one", []string{"_metadata", `{"publishedBy":"u"}`, "data", `{"action":"a","userId":"v","_metadata":{"publishedBy":"v"}}`}, "data._metadata", "differs from the entry's field _metadata"},
		{"whole, twice", []string{"message", `{"action":"a","userId":"u"}`, "data", `{"action":"a","userId":"u"}`}, "data", "the entry holds a whole request twice, in message and in data"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := tebra.DecodeEntry(tt.fields, roomy)
			want := tebra.DecodeError{Code: tebra.Malformed, Field: tt.field, Reason: tt.reason}
			got, ok := tebra.IsDecodeError(err)
			if !ok || *got != want {
				t.Errorf("DecodeEntry() error = %+v, want %+v", err, want)
			}
		})
	}
}

func TestDecodeEntryAccepts(t *testing.T) {
	t.Parallel()
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	plain := func(change func(*tebra.Request)) tebra.Request {
		r := tebra.Request{ID: "r-1", Action: "getProviders", Params: json.RawMessage(`{}`), UserID: "u-1", CorrelationID: "c-1"}
		change(&r)
		return r
	}
	same := func(*tebra.Request) {}
	params := func(text string) func(*tebra.Request) {
		return func(r *tebra.Request) { r.Params = json.RawMessage(text) }
	}
	metadata := func(text string) func(*tebra.Request) {
		return func(r *tebra.Request) { r.Metadata = json.RawMessage(text) }
	}
	timestamp := func(text string) func(*tebra.Request) {
		return func(r *tebra.Request) { r.Timestamp = text }
	}
	ids := func(id, correlationID string) func(*tebra.Request) {
		return func(r *tebra.Request) { r.ID, r.CorrelationID = id, correlationID }
	}
	// member returns the JSON form of the plain request with one more member.
	member := func(text string) []string {
		return whole(`{"id":"r-1","action":"getProviders","userId":"u-1","correlationId":"c-1",` + text + `}`)
	}
	limit := strings.Repeat("é", 128) // 256 bytes
	tests := []struct {
		name   string
		fields []string
		want   tebra.Request
	}{
		{"params absent", entry(), plain(same)},
		{"params empty", entry("params", ""), plain(same)},
		{"params of white space", entry("params", " \r\n\t"), plain(same)},
		{"params with space around, dropped", entry("params", "\n {\"a\": 1}\t"), plain(params(`{"a": 1}`))},
		{"params with space within, kept", entry("params", "{ \"a\" :\n1 }"), plain(params("{ \"a\" :\n1 }"))},
		{"params with duplicates and escapes within, kept", entry("params", `{"a":"\u0041","a":1e400}`), plain(params(`{"a":"\u0041","a":1e400}`))},
		{"params as deep as may be", entry("params", nested(500)), plain(params(nested(500)))},
		{"params with many objects side by side", entry("params", `{"a":[`+strings.Repeat(`{},`, 600)+`{}]}`), plain(params(`{"a":[` + strings.Repeat(`{},`, 600) + `{}]}`))},
		{"params with braces in text", entry("params", `{"a":"`+strings.Repeat(`{[\"`, 600)+`"}`), plain(params(`{"a":"` + strings.Repeat(`{[\"`, 600) + `"}`))},
		{"metadata", entry("_metadata", `{"publishedBy":"u-1"}`), plain(metadata(`{"publishedBy":"u-1"}`))},
		{"metadata empty", entry("_metadata", ""), plain(same)},
		{"timestamp RFC 3339", entry("timestamp", "2025-11-23T03:45:32Z"), plain(timestamp("2025-11-23T03:45:32Z"))},
		{"timestamp epoch milliseconds", entry("timestamp", "1763869532000"), plain(timestamp("1763869532000"))},
		{"timestamp of another form, kept", entry("timestamp", "yesterday"), plain(timestamp("yesterday"))},
		{"timestamp beyond all measure, dropped", entry("timestamp", strings.Repeat("1", 257)), plain(same)},
		{"traceparent good", entry("traceparent", trace), plain(func(r *tebra.Request) { r.Traceparent = trace })},
		{"traceparent in capitals, dropped", entry("traceparent", strings.ToUpper(trace)), plain(same)},
		{"traceparent of another version, dropped", entry("traceparent", "ff"+trace[2:]), plain(same)},
		{"traceparent with a zero trace, dropped", entry("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"), plain(same)},
		{"traceparent with a zero span, dropped", entry("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"), plain(same)},
		{"traceparent too long, dropped", entry("traceparent", trace+"-00"), plain(same)},
		{"replayOf", entry("replayOf", "1763869532000-0"), plain(func(r *tebra.Request) { r.ReplayOf = "1763869532000-0" })},
		{"no id", entry("id", absent), plain(ids("", "c-1"))},
		{"no correlationId", entry("correlationId", absent), plain(ids("r-1", ""))},
		{"neither", entry("id", "", "correlationId", ""), plain(ids("", ""))},
		{"names of 256 bytes", entry("id", limit, "correlationId", limit, "action", limit, "userId", limit, "replayOf", limit),
			tebra.Request{ID: limit, CorrelationID: limit, Action: limit, UserID: limit, ReplayOf: limit, Params: json.RawMessage(`{}`)}},
		{"space within an id", entry("id", "r 1"), plain(ids("r 1", "c-1"))},
		{"fields that are not ours", entry("type", "request", "", "nameless"), plain(same)},
		{"more fields than a handful", manyFields(), plain(same)},
		{"message beside an action is not ours", entry("message", `{"action":"x","userId":"y"}`), plain(same)},
		{"message and data beside an action", entry("message", "hello", "data", "world"), plain(same)},

		{"in message", whole(`{"id":"r-1","action":"getProviders","userId":"u-1","correlationId":"c-1"}`), plain(same)},
		{"in data", []string{"data", `{"id":"r-1","action":"getProviders","userId":"u-1","correlationId":"c-1"}`}, plain(same)},
		{"in payload", []string{"payload", ` {"id":"r-1","action":"getProviders","userId":"u-1","correlationId":"c-1"} `}, plain(same)},
		{"in message, beside an empty action", append(whole(`{"id":"r-1","action":"getProviders","userId":"u-1","correlationId":"c-1"}`), "action", ""), plain(same)},
		{"some fields flat, the same in message", []string{"userId", "u-1", "id", "r-1", "message", `{"id":"r-1","action":"getProviders","userId":"u-1","correlationId":"c-1"}`}, plain(same)},
		{"some fields flat, absent in message", []string{"userId", "u-1", "id", "r-1", "message", `{"id":null,"action":"getProviders","correlationId":"c-1"}`}, plain(same)},
		{"timestamp flat, and another in message", []string{"timestamp", "1", "message", `{"id":"r-1","action":"getProviders","userId":"u-1","correlationId":"c-1","timestamp":2}`}, plain(timestamp("2"))},
		{"ids are numbers", whole(`{"id":12,"action":"getProviders","userId":"u-1","correlationId":-3.5e7}`), plain(ids("12", "-3.5e7"))},
		{"ids are null", whole(`{"id":null,"action":"getProviders","userId":"u-1","correlationId":null}`), plain(ids("", ""))},
		{"text with escapes", whole(`{"id":"r\u002d1","action":"getProviders","userId":"u\u002d1","correlation\u0049d":"c-1"}`), plain(same)},
		{"half a surrogate pair", whole(`{"id":"r\ud800","action":"getProviders","userId":"u-1","correlationId":"c-1"}`), plain(ids("r\ufffd", "c-1"))},
		{"timestamp is a number", member(`"timestamp":1763869532000`), plain(timestamp("1763869532000"))},
		{"params is an object", member(`"params": { "a": [1, "}"] }`), plain(params(`{ "a": [1, "}"] }`))},
		{"params is the text of an object", member(`"params":"{\"a\":1}"`), plain(params(`{"a":1}`))},
		{"params is an empty text", member(`"params":""`), plain(same)},
		{"params in message as deep as may be", member(`"params":` + nested(500)), plain(params(nested(500)))},
		{"metadata is an object", member(`"_metadata":{"publishedBy":"u-1"}`), plain(metadata(`{"publishedBy":"u-1"}`))},
		{"metadata is the text of an object", member(`"_metadata":"{\"publishedBy\":\"u-1\"}"`), plain(metadata(`{"publishedBy":"u-1"}`))},
		{"metadata is null", member(`"_metadata":null`), plain(same)},
		{"traceparent is null", member(`"traceparent":null`), plain(same)},
		{"members that are not ours", member(`"type":["request",{"x":"y"}],"n":null`), plain(same)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tebra.DecodeEntry(tt.fields, roomy)
			if err != nil {
				t.Fatalf("DecodeEntry() error = %v, want none", err)
			}
			if !equal(got, tt.want) {
				t.Errorf("DecodeEntry() = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func manyFields() []string {
	fields := entry()
	for i := range 100 {
		fields = append(fields, "x"+strconv.Itoa(i), "")
	}
	return fields
}

// equal compares requests, with nil and empty JSON told apart.
func equal(a, b tebra.Request) bool { return fmt.Sprintf("%#v", a) == fmt.Sprintf("%#v", b) }

func TestDecodeEntryBoundsNamesAndValuesTogether(t *testing.T) {
	t.Parallel()
	for _, fields := range [][]string{
		entry("params", `{"a":"b"}`),
		whole(`{"id":"r-1","action":"getProviders","userId":"u-1","correlationId":"c-1","params":{"a":"b"}}`),
	} {
		size := len(strings.Join(fields, ""))
		if _, err := tebra.DecodeEntry(fields, size); err != nil {
			t.Errorf("DecodeEntry() of an entry of exactly the bound: error = %v, want none", err)
		}
		got, err := tebra.DecodeEntry(fields, size-1)
		want := tebra.DecodeError{
			Code:   tebra.TooLarge,
			Reason: fmt.Sprintf("the entry has %d bytes; at most %d are carried", size, size-1),
		}
		if e, ok := tebra.IsDecodeError(err); !ok || *e != want {
			t.Errorf("DecodeEntry() of a byte more: error = %+v, want %+v", err, want)
		}
		if want := (tebra.Request{ID: "r-1", Action: "getProviders", UserID: "u-1", CorrelationID: "c-1"}); !equal(got, want) {
			t.Errorf("DecodeEntry() of a byte more = %+v, want %+v", got, want)
		}
	}
}

func TestDecodeEntryTellsWhoSentWhatItRefuses(t *testing.T) {
	t.Parallel()
	id := tebra.Request{ID: "r-1", Action: "getProviders", UserID: "u-1", CorrelationID: "c-1"}
	change := func(f func(*tebra.Request)) tebra.Request {
		r := id
		f(&r)
		return r
	}
	const members = `"id":"r-1","action":"getProviders","userId":"u-1","correlationId":"c-1"`
	big := strings.Repeat("x", roomy)
	tests := []struct {
		name   string
		fields []string
		want   tebra.Request
	}{
		{"odd fields", append(entry(), "params"), id},
		{"bad params", entry("params", "[object Object]"), id},
		{"bad metadata, good params", entry("_metadata", "1", "params", `{"a":1}`), change(func(r *tebra.Request) { r.Params = json.RawMessage(`{"a":1}`) })},
		{"duplicates: the first counts", append(entry(), "id", "r-2"), id},
		{"not UTF-8", append([]string{"\xff", "\xff"}, entry("userId", "u\xff1")...), change(func(r *tebra.Request) { r.UserID = "u\ufffd1" })},
		{"no action", entry("action", absent), change(func(r *tebra.Request) { r.Action = "" })},
		{"id too long, but short enough to repeat", entry("id", strings.Repeat("r", 1024)), change(func(r *tebra.Request) { r.ID = strings.Repeat("r", 1024) })},
		{"id too long to repeat", entry("id", strings.Repeat("é", 600)), change(func(r *tebra.Request) { r.ID = strings.Repeat("é", 512) })},
		{"bad traceparent", entry("params", "1", "traceparent", "1"), id},
		{"whole: duplicates", whole(`{` + members + `,"id":"r-2"}`), id},
		{"whole: cut short", whole(`{` + members + `,"params":{"a":"b`), id},
		{"whole: cut short within a number", whole(`{"correlationId":"c-1","id":12`), tebra.Request{CorrelationID: "c-1"}},
		{"whole: text after it", whole(`{` + members + `} and more`), id},
		{"whole: a comma after the last", whole(`{` + members + `,}`), id},
		{"whole: not UTF-8", whole("{" + members + ",\"x\":\"\xff\"}"), id},
		{"whole: another wrong type", whole(`{"userId":7,"id":"r-1","action":"getProviders","correlationId":"c-1"}`), change(func(r *tebra.Request) { r.UserID = "" })},
		{"whole: twice, the first counts", append(whole(`{`+members+`}`), "data", `{"id":"r-2"}`), id},
		{"whole: beside a bad field", append(whole(`{`+members+`}`), "x", "\xff"), id},
		{"whole: user differs", append(whole(`{`+members+`}`), "userId", "u-0"), change(func(r *tebra.Request) { r.UserID = "u-0" })},
		{"whole: garbage for values", whole(`{"id":"r""x","correlationId":12z,"action":"a"}`), tebra.Request{Action: "a"}},
		{"too large", entry("params", big), id},
		{"too large, odd", append(entry("params", big), "x"), id},
		{"too large, for its ids", entry("id", big, "userId", big+"\xff"), change(func(r *tebra.Request) { r.ID, r.UserID = big[:1024], big[:1024] })},
		{"too large, an id not UTF-8", entry("id", "r\xff\xfe1", "params", big), change(func(r *tebra.Request) { r.ID = "r\ufffd1" })},
		{"too large, ids after params", whole(`{"params":{"a":"` + big + `"},` + members + `}`), id},
		{"too large, ids with escapes and numbers", whole(`{"id":12,"correlationId":"c\u002d1","userId":[],"params":"` + big + `"}`), tebra.Request{ID: "12", CorrelationID: "c-1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tebra.DecodeEntry(tt.fields, roomy)
			if err == nil {
				t.Fatal("DecodeEntry() error = none, want one")
			}
			if !equal(got, tt.want) {
				t.Errorf("DecodeEntry() = %+v, want %+v", got, tt.want)
			}
			if data := got.AppendJSON(nil); !json.Valid(data) {
				t.Errorf("AppendJSON() of a refused request = %s, want valid JSON", data)
			}
		})
	}
}

// Comparing each name with all before it would take this hostile entry minutes; it
// takes a fraction of a second.
func TestDecodeEntryTakesNoLongTimeOverManyNames(t *testing.T) {
	t.Parallel()
	const names, limit = 400_000, 20 * time.Second
	flat := entry()
	var object strings.Builder
	object.WriteString(`{"action":"a","userId":"u"`)
	for i := range names {
		name := strconv.Itoa(i)
		flat = append(flat, name, "")
		fmt.Fprintf(&object, `,"%d":0`, i)
	}
	object.WriteString("}")
	for name, fields := range map[string][]string{"flat": flat, "whole": whole(object.String())} {
		start := time.Now()
		if _, err := tebra.DecodeEntry(fields, 1<<23); err != nil {
			t.Errorf("DecodeEntry() of many %s names: error = %v, want none", name, err)
		}
		if took := time.Since(start); took > limit {
			t.Errorf("DecodeEntry() of %d %s names took %v, want at most %v", names, name, took, limit)
		}
	}
}

func TestErrorsHoldNothingOfAValue(t *testing.T) {
	t.Parallel()
	const canary = "CANARY"
	names := []string{"id", "action", "params", "userId", "timestamp", "correlationId", "_metadata", "traceparent", "replayOf", "message", "data", "payload"}
	values := []string{
		canary, canary + "\xff", " " + canary, "\x01" + canary, canary + strings.Repeat("x", 300), `"` + canary + `"`,
		`["` + canary + `"]`, `{"a":"` + canary, `{"action":{"a":"` + canary + `"}}`, `{"id":["` + canary + `"]}`,
		`{"userId":"` + canary + `","userId":"` + canary + `"}`, "\ufeff" + canary, "[object " + canary + "]",
		`{"` + canary + `":1,"params":` + strings.Repeat(`[`, 600) + `}`, strings.Repeat(canary, 200_000),
	}
	errs := 0
	for _, name := range names {
		for _, value := range values {
			for _, fields := range [][]string{
				{name, value}, entry(name, value), append(entry(), name, value, name, value), {name},
				append(whole(`{"action":"`+canary+`","userId":"other"}`), name, value),
				whole(`{"action":"a","userId":"u","` + name + `":` + strconv.QuoteToASCII(value) + `}`),
			} {
				_, err := tebra.DecodeEntry(fields, roomy)
				if err == nil {
					continue
				}
				errs++
				if strings.Contains(err.Error(), canary) {
					t.Errorf("DecodeEntry(%.80q) error = %q, which holds a value", fields, err)
				}
			}
		}
	}
	if errs < len(names)*len(values) {
		t.Errorf("DecodeEntry() refused %d entries, want at least %d", errs, len(names)*len(values))
	}
}

func TestErrorsCutTheNamesOfFields(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("n\n", 1000)
	for _, fields := range [][]string{
		append(entry(), name, "", name, ""), entry(name, "\xff"),
		whole(`{"` + strings.Repeat("n", 1000) + `":1,"` + strings.Repeat("n", 1000) + `":1}`),
	} {
		_, err := tebra.DecodeEntry(fields, roomy)
		if err == nil || len(err.Error()) > 150 || strings.Contains(err.Error(), "\n") {
			t.Errorf("DecodeEntry() error = %q, want a short line", err)
		}
	}
}

func TestDecodeMessageRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, data, want string }{
		{"nothing", ``, "field data: has no id or no correlationId: it was not written by a bridge"},
		{"not UTF-8", "{\"id\":\"\xff\"}", "field data: is not UTF-8"},
		{"not JSON", `id`, "field data: is not JSON"},
		{"not an object", `[]`, "field data: is a JSON array, not a JSON object"},
		{"duplicate", `{"id":"r","id":"r"}`, "field data.id: is there twice"},
		{"no id", `{"action":"a","userId":"u","correlationId":"c"}`, "field data: has no id or no correlationId: it was not written by a bridge"},
		{"no correlationId", `{"action":"a","userId":"u","id":"r"}`, "field data: has no id or no correlationId: it was not written by a bridge"},
		{"no action", `{"userId":"u","id":"r","correlationId":"c"}`, "field action: is missing or empty"},
		{"bad params", `{"action":"a","userId":"u","id":"r","correlationId":"c","params":[]}`, "field params: is a JSON array, not a JSON object"},
		{"a whole request in message", `{"id":"r","correlationId":"c","message":"{\"action\":\"a\",\"userId\":\"u\"}"}`, "field action: is missing or empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := tebra.DecodeMessage([]byte(tt.data))
			if e, ok := tebra.IsDecodeError(err); !ok || e.Error() != tt.want || e.Code != tebra.Malformed {
				t.Errorf("DecodeMessage() error = %v, want %s", err, tt.want)
			}
		})
	}
}

func TestDecodeMessageSharesNoMemoryWithItsData(t *testing.T) {
	t.Parallel()
	data := []byte(`{"id":"r","action":"a","userId":"u","correlationId":"c","params":{"a":1},"_metadata":{"b":2}}`)
	got, err := tebra.DecodeMessage(data)
	if err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprintf("%#v", got)
	clear(data)
	if after := fmt.Sprintf("%#v", got); after != before {
		t.Errorf("after its data was overwritten the request is %s, want %s", after, before)
	}
}

func TestIsDecodeErrorFindsWrappedOnes(t *testing.T) {
	t.Parallel()
	want := &tebra.DecodeError{Code: tebra.TooLarge, Reason: "big"}
	if got, ok := tebra.IsDecodeError(fmt.Errorf("entry 1-0: %w", want)); !ok || got != want {
		t.Errorf("IsDecodeError(wrapped) = %v, %v, want %v, true", got, ok, want)
	}
	if got, ok := tebra.IsDecodeError(errors.New("other")); ok || got != nil {
		t.Errorf("IsDecodeError(other) = %v, %v, want nil, false", got, ok)
	}
}

func TestIdentifyFillsInOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name              string
		id, correlationID string
		wantID, wantCorr  string
		wantDerived       int
	}{
		{"both there", "r", "c", "r", "c", 0},
		{"no correlation ID", "r", "", "r", "r", 0},
		{"no ID", "", "c", "derived", "c", 1},
		{"neither", "", "", "derived", "derived", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, derived := tebra.Request{ID: tt.id, CorrelationID: tt.correlationID}, 0
			r.Identify(func() string { derived++; return "derived" })
			if r.ID != tt.wantID || r.CorrelationID != tt.wantCorr || derived != tt.wantDerived {
				t.Errorf("Identify() = %q, %q with %d derived, want %q, %q with %d", r.ID, r.CorrelationID, derived, tt.wantID, tt.wantCorr, tt.wantDerived)
			}
		})
	}
}

func TestPublishedByIsKnownOrRefused(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, metadata, want, wantErr string }{
		{"no metadata", ``, "", ""},
		{"none", `{"source":"web"}`, "", ""},
		{"text", `{"source":"web","publishedBy":"u-1"}`, "u-1", ""},
		{"escapes", `{"published\u0042y":"u\u002d1"}`, "u-1", ""},
		{"another's capitals are not ours", `{"publishedBy":"u-1","PublishedBy":"u-2","publishedby":"u-3"}`, "u-1", ""},
		{"not at the top", `{"a":{"publishedBy":"u-2"}}`, "", ""},
		{"number", `{"publishedBy":1}`, "", "publishedBy is a JSON number, not text"},
		{"null", `{"publishedBy":null}`, "", "publishedBy is JSON null, not text"},
		{"empty", `{"publishedBy":""}`, "", "publishedBy is empty"},
		{"twice", `{"publishedBy":"u-1","publishedBy":"u-2"}`, "", "publishedBy is there twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tebra.Request{Metadata: json.RawMessage(tt.metadata)}.PublishedBy()
			if got != tt.want {
				t.Errorf("PublishedBy() = %q, want %q", got, tt.want)
			}
			if tt.wantErr == "" && err != nil {
				t.Errorf("PublishedBy() error = %v, want none", err)
			}
			want := tebra.DecodeError{Code: tebra.Malformed, Field: "_metadata", Reason: tt.wantErr}
			if e, ok := tebra.IsDecodeError(err); tt.wantErr != "" && (!ok || *e != want) {
				t.Errorf("PublishedBy() error = %v, want %v", err, &want)
			}
		})
	}
}

func TestAppendJSONWritesAnyTextAsValidJSON(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "plain", `"\`, "\x00\x1f\x7f", "é\u2028</script>\U0001f600", "bad \xff\xed\xa0\x80"} {
		data := tebra.Request{ID: s}.AppendJSON(nil)
		var got struct{ ID string }
		if err := json.Unmarshal(data, &got); err != nil || !utf8.Valid(data) {
			t.Fatalf("AppendJSON() with id %q = %q, which is not JSON: %v", s, data, err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && got.ID != want {
			t.Errorf("AppendJSON() with id %q carries %q, want %q", s, got.ID, want)
		}
	}
}

func TestDecodeEntryAndAppendJSONAllocateLittle(t *testing.T) {
	fields := typicalEntry()
	r, err := tebra.DecodeEntry(fields, roomy)
	if err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(100, func() { _, _ = tebra.DecodeEntry(fields, roomy) }); got > 2 {
		t.Errorf("DecodeEntry() of a flat entry makes %v allocations, want at most 2", got)
	}
	r.UserID = "Zoë" // text past ASCII goes another way
	buf := make([]byte, 0, 4096)
	if got := testing.AllocsPerRun(100, func() { buf = r.AppendJSON(buf[:0]) }); got != 0 {
		t.Errorf("AppendJSON() into a buffer with room makes %v allocations, want 0", got)
	}
}
