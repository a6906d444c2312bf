package php

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"tebraproxy/pkg/tebra"
)

// recorder keeps the last request it got.
type recorder struct {
	header http.Header
	body   []byte
}

func (s *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.header = r.Header
	s.body, _ = io.ReadAll(r.Body)
	io.WriteString(w, `{"success":true}`)
}

func TestTheRequestIsAsTheAPIWantsIt(t *testing.T) {
	t.Parallel()
	var got recorder
	c := newClient(t, Config{URL: serve(t, &got).URL + "/api", Tokens: fixedToken("token-1")})
	isDone.check(t, c.Call(t.Context(), Request{
		Action: `say "hi"`, Params: json.RawMessage(`{ "n": 1.0, "s":"<ü>" }`),
		RequestID: "r-1", CorrelationID: "c-1",
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}))
	if want := `{"action":"say \"hi\"","params":{ "n": 1.0, "s":"<ü>" }}`; string(got.body) != want {
		t.Errorf("body = %s, want %s", got.body, want)
	}
	for name, want := range map[string]string{
		"X-API-Key": testKey, "Content-Type": "application/json", "Idempotency-Key": "r-1", "X-Correlation-ID": "c-1",
		"traceparent":   "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"Authorization": "Bearer token-1",
	} {
		if value := got.header.Get(name); value != want {
			t.Errorf("header %s = %q, want %q", name, value, want)
		}
	}
}

func TestIDsThatNoHeaderCanCarryNeitherFailNorInject(t *testing.T) {
	t.Parallel()
	var got recorder
	c := newClient(t, Config{URL: serve(t, &got).URL})
	isDone.check(t, c.Call(t.Context(), Request{
		Action: "health", RequestID: "a\r\nX-API-Key: other", CorrelationID: "ü\x00%" + strings.Repeat("x", maxHeaderBytes),
		Traceparent: "00-zz\r\nEvil: 1",
	}))
	if got, want := got.header.Get("Idempotency-Key"), "a%0D%0AX-API-Key:%20other"; got != want {
		t.Errorf("Idempotency-Key = %q, want %q", got, want)
	}
	if got := got.header.Values("X-API-Key"); len(got) != 1 || got[0] != testKey {
		t.Errorf("X-API-Key = %q, want our key only", got)
	}
	for _, name := range []string{"X-Correlation-ID", "traceparent", "Evil"} {
		if _, ok := got.header[http.CanonicalHeaderKey(name)]; ok {
			t.Errorf("header %s was sent, want it left out", name)
		}
	}
}

func FuzzHeaderTextKeepsDifferentIDsApart(f *testing.F) {
	f.Add("a b", "a%20b")
	f.Add("%", "%25")
	f.Add("é\n", "e\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		got, other := headerText(a), headerText(b)
		if got != "" && !fitsHeader(got) {
			t.Errorf("headerText(%q) = %q, want visible ASCII", a, got)
		}
		if a != b && got == other && got != "" {
			t.Errorf("headerText(%q) = headerText(%q) = %q, want two values", a, b, got)
		}
	})
}

func TestARedirectIsNotFollowedAndTheKeyStaysHere(t *testing.T) {
	t.Parallel()
	elsewhere := make(chan http.Header, 10)
	other := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere <- r.Header }))
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, location := range []string{other.URL, "//[bad", ""} {
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", location)
				w.WriteHeader(status)
			})).URL
			got := newClient(t, Config{URL: url}).Call(t.Context(), aRead(""))
			if got.Outcome != TryAgain || got.Status != status {
				t.Errorf("%d to %q: Call() = %v with status %d, want try again with %d", status, location, got.Outcome, got.Status, status)
			}
		}
	}
	if n := len(elsewhere); n != 0 {
		t.Errorf("%d requests went elsewhere, want none", n)
	}
}

// canary stands for health data: it may be in what the user gets, never in a cause.
const canary = "canary-Testa-Synthetic"

// rawServer answers every connection with the same bytes, after reading one request.
func rawServer(t *testing.T, answer string) string {
	t.Helper()
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, answer)
		conn.Close()
	}))
	return s.URL
}

func TestNoCauseRepeatsWhatTheAPISaid(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"not HTTP":              canary + "\r\n\r\n",
		"a bad header line":     "HTTP/1.1 200 OK\r\n" + canary + "\r\n\r\n",
		"a bad status":          "HTTP/1.1 2x0 " + canary + "\r\n\r\n",
		"a bad length":          "HTTP/1.1 200 OK\r\nContent-Length: " + canary + "\r\n\r\n",
		"a bad chunk":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + canary + "\r\n",
		"an unknown encoding":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + canary + "\r\n\r\n",
		"a reason phrase":       "HTTP/1.1 500 " + canary + "\r\nContent-Length: 0\r\n\r\n",
		"an error":              "HTTP/1.1 400 Bad\r\n\r\n" + `{"success":false,"error":"` + canary + `","type":"` + canary + `"}`,
		"a fault":               "HTTP/1.1 503 Bad\r\n\r\n" + `{"success":false,"fault_string":"` + canary + `"}`,
		"a hidden failure":      "HTTP/1.1 200 OK\r\n\r\n" + `{"success":true,"data":{"success":false,"message":"` + canary + `"}}`,
		"not JSON":              "HTTP/1.1 200 OK\r\n\r\n" + canary,
		"half an answer":        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + canary,
		"a redirect":            "HTTP/1.1 302 Found\r\nLocation: http://" + canary + "/\r\n\r\n",
		"switching protocols":   "HTTP/1.1 101 " + canary + "\r\nUpgrade: " + canary + "\r\nConnection: Upgrade\r\n\r\n",
		"an endless header":     "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: "+canary+"\r\n", 10000),
		"early hints, then end": "HTTP/1.1 103 Early Hints\r\nLink: " + canary + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := newClient(t, Config{URL: rawServer(t, answer)}).Call(t.Context(), aWrite(""))
			if got.Outcome == Answered || got.Outcome == TryAgain && name != "a redirect" {
				t.Errorf("Call() = %v, want a failure that is final for a write", got.Outcome)
			}
			if strings.Contains(got.Cause, canary) {
				t.Errorf("Cause = %q, want nothing that the API said", got.Cause)
			}
			if got.Outcome != Refused && strings.Contains(got.UserText, canary) {
				t.Errorf("UserText = %q, want the API's words in a refusal only", got.UserText)
			}
		})
	}
}

func TestSwitchingProtocolsDoesNotHoldTheCall(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		<-done // keeps the connection open for as long as the call may take
	})).URL
	got := newClient(t, Config{URL: url}).Call(t.Context(), aWrite(""))
	close(done)
	isUnsure.check(t, got)
}

// For reads the main programs keep such bytes out of all logs, see doc.go.
// Not parallel: it looks at the process's default logger.
func TestBytesPastTheContentLengthOfAWriteAreNotLogged(t *testing.T) {
	var logged bytes.Buffer
	before := log.Writer()
	log.SetOutput(&logged)
	t.Cleanup(func() { log.SetOutput(before) })
	body := `{"success":true}`
	answer := "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 16\r\n\r\n" + body + canary
	read := make(chan error, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			read <- err
			return
		}
		defer conn.Close()
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			read <- err
			return
		}
		io.Copy(io.Discard, request.Body)
		io.WriteString(conn, answer)
		_, err = io.Copy(io.Discard, conn) // until the client closes
		read <- err
	}()
	isDone.check(t, newClient(t, Config{URL: "http://" + listener.Addr().String()}).Call(t.Context(), aWrite("")))
	<-read
	if strings.Contains(logged.String(), canary) {
		t.Errorf("the default logger got %q, want nothing of the answer", logged.String())
	}
}

func TestTheKeyIsInNoText(t *testing.T) {
	t.Parallel()
	echo := `{"success":false,"error":"bad key ` + testKey + `"}`
	for _, status := range []int{200, 400, 401, 500} {
		got := newClient(t, Config{URL: answerWith(t, status, echo)}).Call(t.Context(), aRead(""))
		if strings.Contains(got.Cause+got.UserText, testKey) {
			t.Errorf("%d: cause %q, text %q, want no key in them", status, got.Cause, got.UserText)
		}
	}
	_, err := New(Config{URL: "http://user:" + testKey + "@host", APIKey: testKey + "\n"})
	if err == nil || strings.Contains(err.Error(), testKey) {
		t.Errorf("New() = %v, want an error without the key", err)
	}
}

func TestNewNamesAllThatIsWrong(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		cfg  Config
		want []string
	}{
		"nothing set":     {Config{}, []string{"API URL", "API key"}},
		"no scheme":       {Config{URL: "host/path", APIKey: "k"}, []string{"http:// or https://"}},
		"no host":         {Config{URL: "https:///path", APIKey: "k"}, []string{"a host"}},
		"no URL":          {Config{URL: "http://a b", APIKey: "k"}, []string{"not a URL"}},
		"a user":          {Config{URL: "http://u@h", APIKey: "k"}, []string{"user or password"}},
		"a key's newline": {Config{URL: "http://h", APIKey: "k\n"}, []string{"newline"}},
		"a negative size": {Config{URL: "http://h", APIKey: "k", MaxResponseBytes: -1}, []string{"negative"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := New(row.cfg)
			for _, want := range row.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("New() = %v, want an error with %q", err, want)
				}
			}
		})
	}
}

type fixedToken string

func (t fixedToken) Token(context.Context) (string, error) { return string(t), nil }

type noToken struct{}

func (noToken) Token(context.Context) (string, error) {
	return "", errors.New("metadata server said no\nand more")
}

func TestWithoutATokenNothingIsSent(t *testing.T) {
	t.Parallel()
	api, url := standIn(t)
	for _, tokens := range []TokenSource{noToken{}, fixedToken(""), fixedToken("a\r\nb")} {
		got := newClient(t, Config{URL: url, Tokens: tokens}).Call(t.Context(), aWrite(""))
		isDown.check(t, got)
		if strings.Contains(got.Cause, "\n") {
			t.Errorf("Cause = %q, want one line", got.Cause)
		}
	}
	if n := len(api.Journal()); n != 0 {
		t.Errorf("%d calls arrived, want none", n)
	}
}

func TestTheUserGetsTheAPIsWordsMadeFit(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		status     int
		body, want string
	}{
		"as they are":            {400, `{"success":false,"error":"patientId is required"}`, "patientId is required"},
		"escapes and lines":      {400, `{"error":"a\nb\u0000c\u2028d \u00fc"}`, "a b c d ü"},
		"half a surrogate":       {400, `{"error":"a\ud800b"}`, "a\uFFFDb"},
		"the innermost":          {200, `{"success":false,"error":"outer","data":{"success":false,"message":"inner"}}`, "inner"},
		"outer where none inner": {200, `{"success":false,"error":"outer","data":{"success":false}}`, "outer"},
		"an error object":        {400, `{"error":{"message":"deeper"}}`, "deeper"},
		"ErrorMessage":           {200, `{"success":true,"data":{"ErrorResponse":{"ErrorMessage":"no","IsError":true}}}`, "no"},
		"none":                   {400, `{"success":false}`, tebra.Rejected.Meaning()},
		"not JSON":               {413, `<html>too large</html>`, tebra.Rejected.Meaning()},
		"not of a success":       {200, `{"success":true,"message":"fine","data":{"success":false}}`, tebra.Rejected.Meaning()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := newClient(t, Config{URL: answerWith(t, row.status, row.body)}).Call(t.Context(), aRead(""))
			isRejected.check(t, got)
			if got.UserText != row.want {
				t.Errorf("UserText = %q, want %q", got.UserText, row.want)
			}
		})
	}
}

func TestTheAPIsWordsAreBounded(t *testing.T) {
	t.Parallel()
	body := `{"success":false,"error":"` + strings.Repeat("ü", 5000) + `"}`
	got := newClient(t, Config{URL: answerWith(t, 400, body)}).Call(t.Context(), aRead(""))
	if n := len(got.UserText); n > MaxUserTextBytes || n < MaxUserTextBytes-4 || !utf8.ValidString(got.UserText) {
		t.Errorf("UserText has %d bytes, valid %t, want nearly %d, valid", n, utf8.ValidString(got.UserText), MaxUserTextBytes)
	}
}

func TestDataIsTheDataMemberOrTheWholeAnswer(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, body, read, write string }{
		{"data", `{"success":true,"data":{"a":[1, 2]}}`, `{"a":[1, 2]}`, `{"a":[1, 2]}`},
		{"data before success", `{"data":[1],"success":true}`, `[1]`, `[1]`},
		{"null data", `{"success":true,"data":null}`, `null`, `null`},
		{"the later of two, as JSON.parse has it", `{"success":true,"data":1,"data":2}`, `2`, `2`},
		{"no data", " {\"success\":true,\"message\":\"m\"}\n", `{"success":true,"message":"m"}`, `{"success":true,"message":"m"}`},
		{"a name with an escape", `{"succes\u0073":true,"d\u0061ta":"x"}`, `"x"`, `"x"`},
		{"no envelope: no proof of a write", `{"status":"healthy"}`, `{"status":"healthy"}`, ``},
		{"no envelope, but data", `{"data":{"a":1}}`, `{"a":1}`, ``},
		{"data of data is data", `{"success":true,"data":{"data":1}}`, `{"data":1}`, `{"data":1}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Config{URL: answerWith(t, 200, row.body)})
			if got := c.Call(t.Context(), aRead("")); string(got.Data) != row.read {
				t.Errorf("a read's data = %s, want %s", got.Data, row.read)
			}
			got := c.Call(t.Context(), aWrite(""))
			if string(got.Data) != row.write {
				t.Errorf("a write's data = %s, want %s", got.Data, row.write)
			}
			if row.write == "" {
				isUnsure.check(t, got)
			}
		})
	}
}
