package php

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/tebra"
)

const testKey = "test-key-3141592653"

// patience is for calls that are expected to end by themselves.
const patience = 20 * time.Second

// shortTime is for calls that are expected to run into their timeout.
const shortTime = 250 * time.Millisecond

func newClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	if cfg.APIKey == "" {
		cfg.APIKey = testKey
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatalf("New() = %v, want no error", err)
	}
	t.Cleanup(c.Close)
	return c
}

// serve serves h on a free loopback port until the test ends.
func serve(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// standIn serves the Go stand-in for the API.
func standIn(t testing.TB) (*phptest.Server, string) {
	t.Helper()
	api := phptest.New(phptest.Config{APIKey: testKey})
	return api, serve(t, api).URL
}

// answerWith serves one fixed answer to everybody.
func answerWith(t testing.TB, status int, body string) string {
	t.Helper()
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(body))
	})).URL
}

// aRead and aWrite are calls that succeed when nothing goes wrong; words are for _behave.
func aRead(words string) Request {
	return Request{
		Action: "getPatient", Params: withBehave(`"patientId":"1"`, words), Timeout: patience,
		RequestID: "read-1", CorrelationID: "c-1",
	}
}

func aWrite(words string) Request {
	return Request{
		Action: "createAppointment", Params: withBehave(`"appointmentData":{"a":1}`, words), Timeout: patience,
		RequestID: "write-1", CorrelationID: "c-1", Write: true,
	}
}

func withBehave(params, words string) json.RawMessage {
	if words == "" {
		return json.RawMessage("{" + params + "}")
	}
	quoted, _ := json.Marshal(words)
	return json.RawMessage("{" + params + `,"_behave":` + string(quoted) + "}")
}

// want is what a test expects of a result.
type want struct {
	outcome        Outcome
	code           tebra.ErrorCode
	infrastructure bool
}

func (w want) check(t *testing.T, got Result) {
	t.Helper()
	if (want{got.Outcome, got.Code, got.Infrastructure}) != w {
		t.Errorf("Call() = %v, code %q, infrastructure %t (cause %q), want %v, %q, %t",
			got.Outcome, got.Code, got.Infrastructure, got.Cause, w.outcome, w.code, w.infrastructure)
	}
	if (got.Data != nil) != (got.Outcome == Answered) {
		t.Errorf("Call() is %v with data %.80q, want data exactly when answered", got.Outcome, got.Data)
	}
	if (got.Cause == "" || got.UserText == "") != (got.Outcome == Answered) {
		t.Errorf("Call() is %v with cause %q and text %q, want both exactly when not answered", got.Outcome, got.Cause, got.UserText)
	}
}
