package php

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// What the rows of the tables below expect of a read and of a write.
var (
	isDone       = want{Answered, "", false}
	isRejected   = want{Refused, tebra.Rejected, false}
	isDown       = want{TryAgain, tebra.Unavailable, true}
	isThrottled  = want{TryAgain, tebra.RateLimited, false}
	isBad        = want{TryAgain, tebra.BadResponse, false}
	isTooLarge   = want{Refused, tebra.ResponseTooLarge, false}
	isUnsure     = want{Unknown, tebra.OutcomeUnknown, false}
	isUnsureDown = want{Unknown, tebra.OutcomeUnknown, true}
)

// conformance has a row for each line of FACTS, and for each of its traps, that a
// server can be told to produce. Go's stand-in and a real PHP must agree on all of them.
var conformance = []struct {
	name        string
	behave      string
	read, write want
	times       time.Duration // timeout, 0 for patience
	maxBytes    int64
}{
	{name: "200 success", behave: "ok", read: isDone, write: isDone},
	{name: "200 success, late", behave: "latency=50ms", read: isDone, write: isDone},

	{name: "400 validation_error", behave: "400", read: isRejected, write: isRejected},
	{name: "401", behave: "401", read: isDown, write: isDown},
	{name: "403", behave: "403", read: isDown, write: isDown},
	{name: "404, wrong URL", behave: "404", read: isDown, write: isDown},
	{name: "405 method_error", behave: "405", read: isDown, write: isDown},
	{name: "429 from a proxy", behave: "429,retry-after=7", read: isThrottled, write: isThrottled},
	{name: "503 soap_fault", behave: "503", read: isDown, write: isUnsureDown},
	{name: "503 soap_fault after the effect", behave: "act-503", read: isDown, write: isUnsureDown},
	{name: "503 soap_fault that says throttled", behave: "throttle-503", read: isThrottled, write: isThrottled},
	{name: "500 internal_error", behave: "500", read: isDown, write: isUnsureDown},
	{name: "500 after the effect", behave: "act-500", read: isDown, write: isUnsureDown},
	{name: "502", behave: "502", read: isDown, write: isUnsureDown},
	{name: "504", behave: "act-504", read: isDown, write: isUnsureDown},
	{name: "timeout after sending", behave: "hang", read: isDown, write: isUnsureDown, times: shortTime},
	{name: "timeout after the effect", behave: "act-hang", read: isDown, write: isUnsureDown, times: shortTime},
	{name: "timeout while the answer trickles", behave: "trickle=50ms", read: isDown, write: isUnsureDown, times: shortTime},
	{name: "connection lost after sending", behave: "drop", read: isDown, write: isUnsureDown},
	{name: "connection lost after the effect", behave: "act-drop", read: isDown, write: isUnsureDown},
	{name: "connection lost within the answer", behave: "half", read: isDown, write: isUnsureDown},
	{name: "200 that is not JSON", behave: "text", read: isBad, write: isUnsure},
	{name: "200 without a body", behave: "empty", read: isBad, write: isUnsure},

	{name: "200 that fails at depth 0", behave: "fail=0", read: isRejected, write: isRejected},
	{name: "200 that fails at depth 1", behave: "fail=1", read: isRejected, write: isRejected},
	{name: "200 that fails at depth 2", behave: "fail=2", read: isRejected, write: isRejected},
	{name: "200 that fails at depth 8", behave: "fail=8", read: isRejected, write: isRejected},
	{name: "200 that says throttled", behave: "throttle", read: isThrottled, write: isThrottled},
	{name: "200 with ErrorResponse.IsError", behave: "iserror", read: isRejected, write: isRejected},
	{name: "200 with SecurityResponse not authorized", behave: "denied", read: isDown, write: isDown},

	{name: "200 as long as allowed", behave: "huge=100000", maxBytes: 100000, read: isDone, write: isDone},
	{name: "200 one byte too long", behave: "huge=100001", maxBytes: 100000, read: isTooLarge, write: isUnsure},
	{name: "200 of 100 MB", behave: "huge=104857600", read: isTooLarge, write: isUnsure},

	{name: "302, another place", behave: "302", read: isDown, write: isDown},
	{name: "307, another place", behave: "307", read: isDown, write: isDown},
	{name: "303, dealt with, see there", behave: "303", read: isBad, write: isUnsure},
	{name: "408 from a proxy", behave: "408", read: isDown, write: isUnsureDown},
	{name: "413", behave: "413", read: isRejected, write: isRejected},
	{name: "421, misdirected", behave: "421", read: isDown, write: isDown},
	{name: "425, too early", behave: "425", read: want{TryAgain, tebra.Unavailable, false}, write: want{TryAgain, tebra.Unavailable, false}},
	{name: "599, unknown 5xx", behave: "599", read: isDown, write: isUnsureDown},
}

func runConformance(t *testing.T, url string) {
	for _, row := range conformance {
		for kind, request := range map[string]Request{"read": aRead(row.behave), "write": aWrite(row.behave)} {
			t.Run(row.name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				if row.times > 0 {
					request.Timeout = row.times
				}
				got := newClient(t, Config{URL: url, MaxResponseBytes: row.maxBytes}).Call(t.Context(), request)
				if request.Write {
					row.write.check(t, got)
				} else {
					row.read.check(t, got)
				}
				if got.Tries != 1 {
					t.Errorf("Tries = %d, want 1: the server was reached", got.Tries)
				}
			})
		}
	}
}

func TestEachLineOfFactsHasItsOutcome(t *testing.T) {
	t.Parallel()
	_, url := standIn(t)
	runConformance(t, url)
}

func TestEachLineOfFactsHasItsOutcomeWithARealPHP(t *testing.T) {
	t.Parallel()
	// The rows that hang hold a worker each for 10 s.
	runConformance(t, peertest.PHP(t, "testdata/api/index.php", "TEBRA_INTERNAL_API_KEY="+testKey, "PHP_CLI_SERVER_WORKERS=12").URL())
}

// actionCalls are calls of each action of FACTS, right and wrong.
var actionCalls = []struct {
	name, action, params string
	want                 want
}{
	{"a day's schedule", "syncSchedule", `{"date":"2026-03-04"}`, isDone},
	{"today's schedule", "syncSchedule", `{}`, isDone},
	{"today's schedule, params as PHP writes an empty object", "syncSchedule", `[]`, isDone},
	{"a schedule of no day", "syncSchedule", `{"date":"2026-02-30"}`, isRejected},
	{"appointments", "getAppointments", `{"fromDate":"2026-03-04","toDate":"2026-03-05"}`, isDone},
	{"appointments without an end", "getAppointments", `{"fromDate":"2026-03-04"}`, isRejected},
	{"appointments backwards", "getAppointments", `{"fromDate":"2026-03-05","toDate":"2026-03-04"}`, isRejected},
	{"a patient", "getPatient", `{"patientId":"7"}`, isDone},
	{"a patient by number", "getPatient", `{"patientId":7}`, isDone},
	{"no patient", "getPatient", `{}`, isRejected},
	{"patients by name", "searchPatients", `{"lastName":"Übung"}`, isDone},
	{"patients by no name", "searchPatients", `{"lastName":""}`, isRejected},
	{"providers", "getProviders", `{}`, isDone},
	{"test of the connection", "testConnection", `{}`, isDone},
	{"health", "health", `{}`, isDone},
	{"health status", "getHealthStatus", ``, isDone},
	{"create", "createAppointment", `{"appointmentData":{"note":"n"}}`, isDone},
	{"create nothing", "createAppointment", `{}`, isRejected},
	{"create a list", "createAppointment", `{"appointmentData":[1]}`, isRejected},
	{"update", "updateAppointment", `{"appointmentData":{"note":"n"}}`, isDone},
	{"getPatients is not known to this deployment", "getPatients", `{}`, isRejected},
	{"an unknown action", "dropTables", `{}`, isRejected},
	{"an unknown behaviour", "health", `{"_behave":"no such word"}`, isRejected},
}

func TestTheStandInAnswersEachActionAsARealPHPDoes(t *testing.T) {
	t.Parallel()
	_, goURL := standIn(t)
	phpURL := peertest.PHP(t, "testdata/api/index.php", "TEBRA_INTERNAL_API_KEY="+testKey).URL()
	for _, row := range actionCalls {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			request := Request{
				Action: row.action, Params: json.RawMessage(row.params), Timeout: patience, RequestID: "r-1",
				Write: row.action == "createAppointment" || row.action == "updateAppointment",
			}
			fromGo := newClient(t, Config{URL: goURL}).Call(t.Context(), request)
			fromPHP := newClient(t, Config{URL: phpURL}).Call(t.Context(), request)
			row.want.check(t, fromGo)
			row.want.check(t, fromPHP)
			if got, want := decoded(t, fromPHP.Data), decoded(t, fromGo.Data); !reflect.DeepEqual(got, want) {
				t.Errorf("PHP's data = %v, want the stand-in's %v", got, want)
			}
			if row.params == `{"_behave":"no such word"}` {
				return // each describes it in its own words
			}
			if fromPHP.UserText != fromGo.UserText {
				t.Errorf("PHP's text = %q, want the stand-in's %q", fromPHP.UserText, fromGo.UserText)
			}
		})
	}
}

func decoded(t *testing.T, data json.RawMessage) (v any) {
	t.Helper()
	if data == nil {
		return nil
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("the data are no JSON: %v", err)
	}
	return v
}

// refuse is a Dial that fails as net.Dialer does.
func refuse(err error) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
}

func TestWhatCertainlyNeverReachedTheAPIIsTriedAgainEvenAWrite(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := serve(t, http.NotFoundHandler())

	for name, cfg := range map[string]Config{
		"connection refused":         {URL: closed.URL},
		"DNS":                        {URL: "http://api.example.invalid", Dial: refuse(&net.DNSError{Err: "no such host", IsNotFound: true})},
		"dial timeout":               {URL: "http://api.example.invalid", Dial: refuse(&net.DNSError{Err: "i/o timeout", IsTimeout: true})},
		"a certificate not trusted":  {URL: secure.URL, TLS: &tls.Config{RootCAs: x509.NewCertPool()}},
		"no TLS on the other side":   {URL: "https" + plain.URL[len("http"):]},
		"a port that no one can use": {URL: "http://127.0.0.1:99999"},
	} {
		for _, request := range []Request{aRead(""), aWrite("")} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				got := newClient(t, cfg).Call(t.Context(), request)
				isDown.check(t, got)
				if got.Tries != 3 {
					t.Errorf("Tries = %d, want 3", got.Tries)
				}
			})
		}
	}
}

func TestATimeoutBeforeSendingIsNeverSent(t *testing.T) {
	t.Parallel()
	blackHole := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	request := aWrite("")
	request.Timeout = shortTime
	got := newClient(t, Config{URL: "http://api.example.invalid", Dial: blackHole}).Call(t.Context(), request)
	isDown.check(t, got)
}

func TestACallerWhoLeavesIsNoSignOfTroubleAtTheAPI(t *testing.T) {
	t.Parallel()
	gone, leave := context.WithCancelCause(t.Context())
	leave(errors.New("stopping"))
	_, url := standIn(t)
	for _, request := range []Request{aRead(""), aWrite("")} {
		got := newClient(t, Config{URL: url}).Call(gone, request)
		want{TryAgain, tebra.Unavailable, false}.check(t, got)
	}
}

func TestACallerWhoLeavesAfterSendingLeavesAWriteUnknown(t *testing.T) {
	t.Parallel()
	for kind, row := range map[string]struct {
		request Request
		want    want
	}{
		"read":  {aRead(""), want{TryAgain, tebra.Unavailable, false}},
		"write": {aWrite(""), isUnsure},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			url := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body) // or the server won't notice that the caller leaves
				leave()
				<-r.Context().Done()
			})).URL
			row.want.check(t, newClient(t, Config{URL: url}).Call(ctx, row.request))
		})
	}
}

func TestParamsThatAreNoJSONAreNeverSent(t *testing.T) {
	t.Parallel()
	for _, params := range []string{`[object Object]`, `{}, "action":"other"`, `{"a":`} {
		got := newClient(t, Config{URL: "http://api.example.invalid", Dial: refuse(errors.New("dialed"))}).
			Call(t.Context(), Request{Action: "createAppointment", Params: json.RawMessage(params), Write: true})
		want{Refused, tebra.Malformed, false}.check(t, got)
		if got.Tries != 0 {
			t.Errorf("params %q: Tries = %d, want 0", params, got.Tries)
		}
	}
}

func TestEachFindingHasARowThatKeepsThePromises(t *testing.T) {
	t.Parallel()
	if got, want := len(table), int(tooLarge)+1; got != want {
		t.Fatalf("the table has %d rows, want %d, one for each finding", got, want)
	}
	notMade := map[finding]bool{neverSent: true, abandonedUnsent: true, misconfigured: true, throttled: true, tooEarly: true}
	for f, row := range table {
		if row.read.outcome == Unknown {
			t.Errorf("finding %d: a read is unknown, want never: it can be made again", f)
		}
		if got, want := row.write.outcome == TryAgain, notMade[finding(f)]; got != want {
			t.Errorf("finding %d: a write is tried again = %t, want %t: exactly when it was certainly not made", f, got, want)
		}
		for _, v := range []verdict{row.read, row.write} {
			if (v.code == "") != (v.outcome == Answered) || (v.code == tebra.OutcomeUnknown) != (v.outcome == Unknown) {
				t.Errorf("finding %d: %v with code %q, want no code when answered, outcome_unknown when unknown", f, v.outcome, v.code)
			}
			if v.code != "" && v.code.Meaning() == "" {
				t.Errorf("finding %d: code %q has no meaning", f, v.code)
			}
		}
	}
}
