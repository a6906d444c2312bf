package php

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const throttle = "429: GetPatients endpoint requested more than allowed over time interval 1000 milliseconds"

func TestAFailureIsFoundWhereverItHides(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, body string
		want       finding
	}{
		{"none", `{"success":true,"data":{"list":[{"success":true},{"id":1}]}}`, answered},
		{"in data", `{"success":true,"data":{"success":false}}`, refused},
		{"in data.appointments, as syncSchedule does", `{"success":true,"data":{"appointments":{"success":false}}}`, refused},
		{"in a list", `{"success":true,"data":[{"success":true},[{"success":false}]]}`, refused},
		{"beside data", `{"success":true,"data":1,"meta":{"success":false}}`, refused},
		{"said twice", `{"success":true,"success":false}`, refused},
		{"said twice, false first", `{"success":false,"success":true}`, refused},
		{"with white space", "{ \"success\" :\t\r\n false }", refused},
		{"with an escape", `{"success":true,"data":{"\u0073uccess":false}}`, refused},
		{"as a text that looks like it", `{"success":true,"data":"{\"success\":false}"}`, answered},
		{"as a text with quotes and brackets", `{"success":true,"data":["\\\"}]{[",{"a\"}":"\\"}]}`, answered},
		{"as a text that is false", `{"success":true,"data":{"success":"false"}}`, answered},
		{"as another's name", `{"success":true,"data":{"Success":false,"successful":false}}`, answered},
		{"IsError", `{"success":true,"data":{"ErrorResponse":{"IsError":true}}}`, refused},
		{"IsError is false", `{"success":true,"data":{"ErrorResponse":{"IsError":false}}}`, answered},
		{"IsError elsewhere means nothing", `{"success":true,"data":{"IsError":true}}`, answered},
		{"not authenticated", `{"success":true,"data":{"SecurityResponse":{"Authenticated":false,"Authorized":true}}}`, misconfigured},
		{"not authorized", `{"success":true,"data":{"SecurityResponse":{"Authenticated":true,"Authorized":false}}}`, misconfigured},
		{"authorized", `{"success":true,"data":{"SecurityResponse":{"Authenticated":true,"Authorized":true}}}`, answered},
		{"Authorized elsewhere means nothing", `{"success":true,"data":{"Authorized":false}}`, answered},
		{"denied outweighs refused", `{"success":false,"data":{"SecurityResponse":{"Authorized":false}}}`, misconfigured},
		{"throttled", `{"success":true,"data":{"success":false,"message":"` + throttle + `"}}`, throttled},
		{"throttled, text first", `{"success":true,"data":{"message":"` + throttle + `","success":false}}`, throttled},
		{"throttled, in an error object", `{"success":false,"error":{"message":"` + throttle + `"}}`, throttled},
		{"throttled, in the second text", `{"success":false,"error":"x","fault_string":"` + throttle + `"}`, throttled},
		{"throttled, by Tebra", `{"success":true,"data":{"ErrorResponse":{"ErrorMessage":"` + throttle + `","IsError":true}}}`, throttled},
		{"throttled outweighs denied", `{"success":false,"error":"` + throttle + `","data":{"SecurityResponse":{"Authorized":false}}}`, throttled},
		{"the throttle text in a success", `{"success":true,"data":{"message":"` + throttle + `"}}`, answered},
		{"the throttle text in what isn't an error text", `{"success":false,"data":{"notes":"` + throttle + `"}}`, refused},
		{"more than allowed, but no 429", `{"success":false,"error":"requested more than allowed"}`, refused},
		{"429 after it", `{"success":false,"error":"more than allowed, 429"}`, refused},
		{"429 far before it", `{"success":false,"error":"429` + strings.Repeat(" ", throttleReach) + `more than allowed"}`, refused},
		{"no envelope", `{}`, bare},
		{"success of another kind", `{"success":1}`, garbled},
		{"success that is null", `{"success":null}`, garbled},
		{"a list", `[{"success":true}]`, garbled},
		{"a text", `"success"`, garbled},
		{"null", `null`, garbled},
		{"nothing", ``, garbled},
		{"two values", `{"success":true}{"success":true}`, garbled},
		{"a warning before", `<br />Warning: x{"success":true}`, garbled},
		{"cut off", `{"success":true,"data":[1,2`, garbled},
		{"not UTF-8", "{\"success\":true,\"data\":\"\xff\"}", garbled},
		{"deep, but bounded", deep(9000), answered},
		{"too deep", deep(10001), garbled},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if got := inspect([]byte(row.body), false).finding(); got != row.want {
				t.Errorf("inspect(%.100s) = %d, want %d", row.body, got, row.want)
			}
		})
	}
}

func deep(levels int) string {
	return `{"success":true,"data":` + strings.Repeat("[", levels) + strings.Repeat("]", levels) + `}`
}

func TestTheThrottleTextInAnErrorOutweighsItsStatus(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{URL: "http://api.example.invalid"})
	for _, body := range []string{`{"error":"` + throttle + `"}`, `{"success":true,"message":"` + throttle + `"}`, "<h1>" + throttle + "</h1>"} {
		for status, want := range map[int]finding{400: throttled, 500: throttled, 503: throttled, 302: misconfigured} {
			if got := c.classify(status, nil, []byte(body)).finding; got != want {
				t.Errorf("classify(%d, %s) = %d, want %d", status, body, got, want)
			}
		}
	}
}

func TestEveryStatusHasAFinding(t *testing.T) {
	t.Parallel()
	good := inspect([]byte(`{"success":true}`), false)
	special := map[int]finding{
		303: garbled, 401: misconfigured, 403: misconfigured, 404: misconfigured, 405: misconfigured,
		407: misconfigured, 408: lost, 421: misconfigured, 425: tooEarly, 429: throttled,
	}
	byClass := map[int]finding{2: answered, 3: misconfigured, 4: refused, 5: failed}
	for status := range 1000 {
		want, ok := special[status]
		if !ok {
			want, ok = byClass[status/100]
		}
		if !ok {
			want = garbled
		}
		if got := findingOf(status, good); got != want {
			t.Errorf("findingOf(%d) = %d, want %d", status, got, want)
		}
	}
}

func TestRetryAfterIsReadAndBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                                    0,
		"0":                                   0,
		" 7 ":                                 7 * time.Second,
		"600":                                 MaxRetryAfter,
		"601":                                 MaxRetryAfter,
		"18446744073709551615":                MaxRetryAfter,
		"99999999999999999999":                0,
		"-1":                                  0,
		"1.5":                                 0,
		"soon":                                0,
		now.Add(5e9).Format(http.TimeFormat):  5 * time.Second,
		now.Add(-5e9).Format(http.TimeFormat): 0,
		now.AddDate(1, 0, 0).Format(http.TimeFormat): MaxRetryAfter,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", value, got, want)
		}
	}
}

func TestRetryAfterReachesTheCaller(t *testing.T) {
	t.Parallel()
	_, url := standIn(t)
	c := newClient(t, Config{URL: url})
	for words, want := range map[string]time.Duration{
		"429,retry-after=7": 7 * time.Second, "503,retry-after=9": 9 * time.Second,
		"throttle,retry-after=3": 3 * time.Second, "400,retry-after=7": 0,
	} {
		if got := c.Call(t.Context(), aRead(words)); got.RetryAfter != want {
			t.Errorf("%s: RetryAfter = %v, want %v", words, got.RetryAfter, want)
		}
	}
}

// oracle says what inspect should find, slowly, with the standard decoder.
func oracle(body []byte) (object, failed, denied bool) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var walk func(name string) bool
	walk = func(name string) bool { // returns whether the value is an object
		token, _ := decoder.Token()
		opening, ok := token.(json.Delim)
		if !ok {
			return false
		}
		for decoder.More() {
			if opening == '[' {
				walk("")
				continue
			}
			member, _ := decoder.Token()
			var value json.RawMessage
			if at := memberValue(body[decoder.InputOffset():]); at != "" {
				value = json.RawMessage(at)
			}
			switch {
			case member == "success" && string(value) == "false",
				member == "IsError" && name == "ErrorResponse" && string(value) == "true":
				failed = true
			case (member == "Authenticated" || member == "Authorized") && name == "SecurityResponse" && string(value) == "false":
				denied = true
			}
			walk(member.(string))
		}
		decoder.Token()
		return opening == '{'
	}
	object = walk("")
	return object, failed, denied
}

// memberValue returns the literal true or false that follows a member's name, or "".
func memberValue(rest []byte) string {
	rest = bytes.TrimLeft(rest, " \t\r\n:")
	for _, literal := range []string{"true", "false"} {
		if bytes.HasPrefix(rest, []byte(literal)) {
			return literal
		}
	}
	return ""
}

func FuzzInspectAgreesWithTheStandardDecoder(f *testing.F) {
	for _, seed := range []string{
		`{"success":true,"data":{"a":[1,-2.5e3,null,true,"x\"\\"]}}`, `{"success":true,"data":{"success":false,"message":"m"}}`,
		`{"success":true,"data":{"SecurityResponse":{"Authorized":false}}}`, `{"data":{"ErrorResponse":{"IsError":true}}}`,
		`{"\u0073uccess":false}`, `[]`, ` { } `, `"`, `{"error":"` + throttle + `"}`, `{"success":"\ud800"}`,
		`{"error":{"message":{"error":""}},"errors":[]}`, "\xff", `{"a":{"success":false},"success":true}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in := inspect(body, false)
		if !json.Valid(body) || !utf8.Valid(body) {
			if in.object {
				t.Fatalf("inspect(%q) is an object, want not: it is no JSON in UTF-8", body)
			}
			return
		}
		object, failed, denied := oracle(body)
		if !object {
			failed, denied = false, false
		}
		if in.object != object || in.failed != failed || in.denied != denied {
			t.Errorf("inspect(%q) = object %t, failed %t, denied %t, want %t, %t, %t",
				body, in.object, in.failed, in.denied, object, failed, denied)
		}
		if object && !json.Valid(in.data) {
			t.Errorf("inspect(%q) has data %q, want JSON", body, in.data)
		}
	})
}

func FuzzClassifyKeepsTheBounds(f *testing.F) {
	f.Add(200, "", []byte(`{"success":true}`))
	f.Add(400, "1", []byte(`{"error":"x\u0000"}`))
	f.Add(503, "Wed, 04 Mar 2026 12:00:00 GMT", []byte(throttle))
	c := newClient(f, Config{URL: "http://api.example.invalid"})
	f.Fuzz(func(t *testing.T, status int, after string, body []byte) {
		s := c.classify(status, http.Header{"Retry-After": {after}}, body)
		for _, write := range []bool{false, true} {
			got := judge(s, write)
			if write && got.Outcome == TryAgain && status >= 500 && !bytes.Contains(body, []byte("429")) {
				t.Errorf("classify(%d, %q): a write is tried again, want unknown", status, body)
			}
			if len(got.UserText) > MaxUserTextBytes || !utf8.ValidString(got.UserText) || strings.ContainsAny(got.UserText, "\n\r\x00") {
				t.Errorf("classify(%d, %q): text %q, want one valid line of at most %d bytes", status, body, got.UserText, MaxUserTextBytes)
			}
			if got.RetryAfter < 0 || got.RetryAfter > MaxRetryAfter {
				t.Errorf("classify(%d, Retry-After %q): %v, want 0 to %v", status, after, got.RetryAfter, MaxRetryAfter)
			}
			if got.Outcome == Answered && (status/100 != 2 || !json.Valid(got.Data)) {
				t.Errorf("classify(%d, %q) is answered with %q, want a 2xx with JSON", status, body, got.Data)
			}
		}
	})
}

// schedule is the answer to syncSchedule of a busy day, about size bytes long.
func schedule(size int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"success":true,"data":{"date":"2026-03-04","appointments":{"success":true,"appointments":[`)
	for i := 0; b.Len() < size; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"ID":"SYN-%d","PatientFullName":"Testa Synthetic","DateOfBirth":"1900-01-01","Status":"Scheduled",`+
			`"StartTime":"2026-03-04T09:00:00Z","EndTime":"2026-03-04T09:30:00Z","Notes":"made up, \"quoted\"\nand broken",`+
			`"Provider":{"ID":80001,"FullName":"Sample Provider, MD"},"Confirmed":false,"Copay":12.50,"Tags":["a","b"]}`, i)
	}
	b.WriteString(`]}}}`)
	return b.Bytes()
}

func BenchmarkInspectAScheduleOf1MB(b *testing.B) {
	body := schedule(1 << 20)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if got := inspect(body, false).finding(); got != answered {
			b.Fatalf("inspect() = %d, want answered", got)
		}
	}
}

func BenchmarkCall(b *testing.B) {
	_, url := standIn(b)
	c := newClient(b, Config{URL: url})
	for b.Loop() {
		if got := c.Call(b.Context(), aRead("")); got.Outcome != Answered {
			b.Fatalf("Call() = %v (%s), want answered", got.Outcome, got.Cause)
		}
	}
}
