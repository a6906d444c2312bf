package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// TestARequestIsWrittenInTheVerifiedUsersName, whatever its body says, as a bridge
// reads it.
func TestARequestIsWrittenInTheVerifiedUsersName(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	status, got, _ := f.post("alice",
		`{"action":"syncSchedule","params":{"date":"2026-11-23"},"id":"r1","correlationId":"c1","userId":"mallory","timestamp":1}`)
	if status != http.StatusAccepted || got.ID != "r1" || got.CorrelationID != "c1" || got.Repeated {
		t.Fatalf("POST = %d %+v, want 202 with r1 and c1", status, got)
	}
	all := f.entries()
	if len(all) != 1 || all[0].ID != got.Entry {
		t.Fatalf("entries = %v, want one of ID %s", all, got.Entry)
	}
	var fields []string
	for name, value := range all[0].Values {
		fields = append(fields, name, value.(string))
	}
	request, err := tebra.DecodeEntry(fields, tebra.DefaultMaxRequestBytes)
	f.must(err)
	publisher, err := request.PublishedBy()
	if err != nil || publisher != "alice" || request.UserID != "alice" {
		t.Errorf("user %q, published by %q (%v), want alice twice", request.UserID, publisher, err)
	}
	if request.Action != "syncSchedule" || string(request.Params) != `{"date":"2026-11-23"}` {
		t.Errorf("request = %+v, want the action and the params that were sent", request)
	}
}

// TestWhatIsLeftOutIsFilledIn: IDs and params.
func TestWhatIsLeftOutIsFilledIn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	status, got, _ := f.post("alice", `{"action":"health"}`)
	if status != http.StatusAccepted || len(got.ID) != 36 || got.CorrelationID != got.ID {
		t.Fatalf("POST = %d %+v, want 202 with a new ID twice", status, got)
	}
	if values := f.entries()[0].Values; values["params"] != "{}" {
		t.Errorf("entry = %v, want params {}", values)
	}
}

// TestWithoutTracingTheBridgeBeginsTheTrace: a request goes on without a parent,
// whatever came with it, so that the bridge's sampling ratio holds.
func TestWithoutTracingTheBridgeBeginsTheTrace(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	for _, sent := range []string{"", "nonsense", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"} {
		if status, _, code := f.post("alice", `{"action":"health"}`, "traceparent", sent); status != http.StatusAccepted {
			t.Errorf("POST with traceparent %q = %d %s, want 202", sent, status, code)
		}
	}
	for _, entry := range f.entries() {
		if got, _ := entry.Values["traceparent"].(string); got != "" {
			t.Errorf("traceparent on the stream = %q, want none", got)
		}
	}
}

// TestWhatIsAcceptedIsNotTooLarge for a bridge of the same bound, to the byte.
func TestWhatIsAcceptedIsNotTooLarge(t *testing.T) {
	t.Parallel()
	const most = 1100
	f := newFixture(t, peertest.Redis(t), func(f *fixture) { f.cfg.MaxRequestBytes = most })
	taken := 0
	for n := most - 300; n < most; n++ {
		status, _, code := f.post("alice", `{"action":"health","id":"r`+fmt.Sprint(n)+`","params":{"x":`+padded(n)+`}}`)
		if status == http.StatusAccepted {
			taken++
		} else if code != "too_large" {
			t.Fatalf("POST of %d bytes of params = %d %s, want 202 or 413 too_large", n, status, code)
		}
	}
	largest := 0
	for _, entry := range f.entries() {
		var fields []string
		size := 0
		for name, value := range entry.Values {
			fields = append(fields, name, value.(string))
			size += len(name) + len(value.(string))
		}
		largest = max(largest, size)
		if _, err := tebra.DecodeEntry(fields, most); err != nil {
			t.Errorf("an entry that was accepted is refused: %v", err)
		}
	}
	if taken == 300 || largest != most {
		t.Errorf("took %d of 300 requests, the largest of %d bytes: want some refused and %d", taken, largest, most)
	}
}

// TestTheSameIDAgainAnswersTheSame: one entry, whatever is sent again; another
// request under the ID is refused, and other users have IDs of their own.
func TestTheSameIDAgainAnswersTheSame(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	const body = `{"action":"createAppointment","params":{"appointmentData":{"patientId":"7"}},"id":"r1","correlationId":"c1"}`
	_, first, _ := f.post("alice", body)
	status, again, _ := f.post("alice", body)
	if status != http.StatusAccepted || !again.Repeated || again.Entry != first.Entry || again.CorrelationID != "c1" || again.Since != first.Since {
		t.Errorf("POST again = %d %+v, want 202 and %+v, repeated", status, again, first)
	}
	if status, _, code := f.post("alice", strings.Replace(body, `"7"`, `"8"`, 1)); status != http.StatusConflict || code != "duplicate" {
		t.Errorf("POST of other params = %d %s, want 409 duplicate", status, code)
	}
	if status, other, _ := f.post("bob", body); status != http.StatusAccepted || other.Repeated {
		t.Errorf("POST of another user = %d %+v, want 202, not repeated", status, other)
	}
	if got := len(f.entries()); got != 2 {
		t.Errorf("%d entries, want 2: alice's and bob's", got)
	}
	for _, key := range f.rdb.Keys(context.Background(), f.keys.Prefix()+":*").Val() {
		if strings.Contains(key, "alice") || strings.Contains(key, "r1") {
			t.Errorf("key %q holds what somebody typed", key)
		}
	}
}

// TestAPostCostsTheSameHoweverLargeAnswersAre: Redis is not made to copy any, and yet
// all that is said of a request comes after the position that the post is answered with.
func TestAPostCostsTheSameHoweverLargeAnswersAre(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.RealRedis(t), nil)
	f.answer("alice", "before", padded(1<<20))
	peertest.Eventually(t, patience, "the reader at the end", func() bool { return f.g.hub.position()[ofResponses] != tebra.EntryID{} })
	looked := func() string {
		stats, err := f.rdb.Info(t.Context(), "commandstats").Result()
		f.must(err)
		return regexp.MustCompile(`cmdstat_xinfo\|stream:calls=\d+`).FindString(stats)
	}
	before := looked()
	_, posted, _ := f.post("alice", `{"action":"health","id":"r1"}`)
	if got := looked(); got != before || before == "" {
		t.Errorf("XINFO STREAM before a post: %q, after it: %q, want the same", before, got)
	}
	want := []string{f.say("alice", "r1"), f.answer("alice", "r1", "1")}
	if got := f.listen("alice", posted.Since).updates(2); !slices.Equal(got, want) {
		t.Errorf("after %s came %v, want %v", posted.Since, got, want)
	}
}

// TestBodiesInMemoryAreBounded: while others' fill it, one is refused for a moment,
// and a place is free again once a post is over, however it ended.
func TestBodiesInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	const rest = 1 << 10
	if !f.g.posting.take("others", postBytes-f.g.mostBody()-rest) {
		t.Fatal("not even that fits")
	}
	statuses, leave := f.beginPost("alice")
	full := func() bool {
		if f.g.posting.take("another", rest+1) {
			f.g.posting.done("another", rest+1)
			return false
		}
		return true
	}
	peertest.Eventually(t, patience, "a post that is being read", full)
	if status, _, code := f.post("bob", `{"action":"health","params":{"x":`+padded(rest)+`}}`); status != http.StatusServiceUnavailable || code != "unavailable" {
		t.Errorf("POST beside as much as may be = %d %s, want 503 unavailable", status, code)
	}
	if status, _, code := f.post("bob", `{"action":"health"}`); status != http.StatusAccepted {
		t.Errorf("POST of a small one that fits = %d %s, want 202", status, code)
	}
	leave()
	<-statuses
	peertest.Eventually(t, patience, "the room of a client that left", func() bool { return !full() })
}

// beginPost begins a post whose body never comes, and returns what tells its status, 0
// for none, and what ends it.
func (f *fixture) beginPost(user string) (<-chan int, func()) {
	f.t.Helper()
	body, unsent := io.Pipe()                                      // of a length that nobody knows
	leave := func() { unsent.CloseWithError(io.ErrUnexpectedEOF) } // the connection ends with it
	f.t.Cleanup(leave)
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.url+"/v1/requests", body)
	f.must(err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+user)
	status := make(chan int, 1)
	go func() {
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			status <- 0
			return
		}
		resp.Body.Close()
		status <- resp.StatusCode
	}()
	return status, leave
}

// TestWhoSendsNoBodyToItsEndKeepsNobodyElseFromPosting: what one user may begin leaves
// room for the others.
func TestWhoSendsNoBodyToItsEndKeepsNobodyElseFromPosting(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	fit, refused := int(userPostBytes/f.g.mostBody()), 0
	tries := int(postBytes/f.g.mostBody()) + 1
	var ends []func()
	var begun []<-chan int
	for range tries {
		status, leave := f.beginPost("alice")
		begun, ends = append(begun, status), append(ends, leave)
	}
	peertest.Eventually(t, patience, "all but what one user may begin to be refused", func() bool {
		for i, status := range begun {
			select {
			case got := <-status:
				if begun[i] = nil; got != http.StatusServiceUnavailable {
					t.Errorf("a post too many = %d, want 503", got)
				}
				refused++
			default:
			}
		}
		return refused == tries-fit
	})
	body := `{"action":"health","params":{"x":` + padded(1<<20-200) + `}}`
	if status, _, code := f.post("bob", body); status != http.StatusAccepted {
		t.Errorf("another user's POST = %d %s, want 202", status, code)
	}
	for i, leave := range ends {
		leave()
		if begun[i] != nil {
			<-begun[i]
		}
	}
}

// TestBodiesThatAreNoRequestsAreRefused, with a reason and without a trace on the
// stream.
func TestBodiesThatAreNoRequestsAreRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), func(f *fixture) { f.cfg.MaxRequestBytes = 2000 })
	for name, test := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"nothing":              {``, 400, "malformed"},
		"no object":            {`[]`, 400, "malformed"},
		"half an object":       {`{"action":"health"`, 400, "malformed"},
		"two objects":          {`{"action":"health"}{}`, 400, "malformed"},
		"no action":            {`{"params":{}}`, 400, "malformed"},
		"an empty action":      {`{"action":""}`, 400, "malformed"},
		"another member":       {`{"action":"health","role":"admin"}`, 400, "malformed"},
		"a member in disguise": {`{"action":"health","Params":{}}`, 400, "malformed"},
		"a member twice":       {`{"action":"health","action":"x"}`, 400, "malformed"},
		"params as text":       {`{"action":"health","params":"{}"}`, 400, "malformed"},
		"params as null":       {`{"action":"health","params":null}`, 400, "malformed"},
		"an ID as number":      {`{"action":"health","id":7}`, 400, "malformed"},
		"a long ID":            {`{"action":"health","id":"` + strings.Repeat("x", 257) + `"}`, 400, "malformed"},
		"a control character":  {`{"action":"health","id":"a\nb"}`, 400, "malformed"},
		"a large one":          {`{"action":"health","params":{"x":"` + strings.Repeat("x", 2000) + `"}}`, 413, "too_large"},
		"a huge one":           {`{"action":"health","params":{"x":"` + strings.Repeat("x", 1<<20) + `"}}`, 413, "too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			if status, _, code := f.post("alice", test.body); status != test.status || code != test.code {
				t.Errorf("POST = %d %s, want %d %s", status, code, test.status, test.code)
			}
		})
	}
	if status, _, code := f.post("alice", `{"action":"health"}`, "Content-Type", "text/plain"); status != 415 || code != "unsupported_media_type" {
		t.Errorf("POST of text = %d %s, want 415", status, code)
	}
	if got := len(f.entries()); got != 0 {
		t.Errorf("%d entries, want none", got)
	}
}

// TestWhoeverHasNoTokenIsToldWhy.
func TestWhoeverHasNoTokenIsToldWhy(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	for token, want := range map[string]struct {
		status int
		code   string
	}{
		"":                         {401, "token_missing"},
		"expired":                  {401, "token_expired"},
		strings.Repeat("x", 17000): {401, "token_invalid"},
		"nobody-answers":           {503, "unavailable"},
	} {
		for path, method := range map[string]string{"/v1/requests": http.MethodPost, "/v1/events": http.MethodGet} {
			resp := f.do(method, path, token, `{"action":"health"}`)
			var got refusal
			f.must(decode(resp, &got))
			if resp.StatusCode != want.status || got.Error.Code != want.code {
				t.Errorf("%s %s as %.10q = %d %s, want %d %s", method, path, token, resp.StatusCode, got.Error.Code, want.status, want.code)
			}
			if want.status == 401 && resp.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s as %.10q says no WWW-Authenticate", method, path, token)
			}
		}
	}
}

// TestAUserHasARate that all instances share; others have their own.
func TestAUserHasARate(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	one := newFixture(t, server, func(f *fixture) { f.cfg.UserRate = 3 })
	two := newFixture(t, server, func(f *fixture) { f.cfg.UserRate, f.cfg.Prefix = 3, one.cfg.Prefix })
	for i, f := range []*fixture{one, two, one} {
		if status, _, code := f.post("alice", `{"action":"health"}`); status != http.StatusAccepted {
			t.Fatalf("POST %d = %d %s, want 202", i+1, status, code)
		}
	}
	resp := two.do(http.MethodPost, "/v1/requests", "alice", `{"action":"health"}`)
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("POST 4 = %d, Retry-After %q, want 429 and seconds", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if status, _, _ := two.post("bob", `{"action":"health"}`); status != http.StatusAccepted {
		t.Errorf("POST of another user = %d, want 202", status)
	}
}

func FuzzParseBody(f *testing.F) {
	for _, seed := range []string{``, `{}`, `{"action":"a","params":{"a":[1,null]},"id":"1","correlationId":"2","userId":null,"timestamp":1}`, `{"a`, `{"params":`, `[[`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		g := &Gateway{cfg: Config{MaxRequestBytes: 1 << 20}}
		r, err := g.request(body, "alice", "")
		if err == nil && (r.UserID != "alice" || r.Action == "" || r.ID == "" || r.CorrelationID == "" || len(r.Params) == 0 || r.Params[0] != '{') {
			t.Errorf("request(%q) = %+v, which is not whole", body, r)
		}
	})
}
