package functions

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/tebra"
)

// What a call's outcome is made into.
var (
	answered    = decision{complete, "", http.StatusNoContent}
	rejected    = decision{complete, tebra.Rejected, http.StatusNoContent}
	overlong    = decision{complete, tebra.ResponseTooLarge, http.StatusNoContent}
	later       = decision{release, tebra.Unavailable, http.StatusServiceUnavailable}
	unreadable  = decision{release, tebra.BadResponse, http.StatusServiceUnavailable}
	slowDown    = decision{release, tebra.RateLimited, http.StatusTooManyRequests}
	outcomeOpen = decision{letComplete, tebra.OutcomeUnknown, http.StatusNoContent}
)

// outcomeRow is one thing that the API can do, and what is made of it.
type outcomeRow struct {
	name        string
	do          string         // what the stand-in is told
	instead     func(*fixture) // or: who stands in its place
	short       bool           // the call is expected to run into its timeout
	calls       int            // that reach the API
	read, write decision
}

// told is a row about a call that reaches the stand-in.
func told(do string, read, write decision) outcomeRow {
	return outcomeRow{name: do, do: do, calls: 1, read: read, write: write}
}

// slow is a row about a call that takes too long.
func slow(do string, read, write decision) outcomeRow {
	return outcomeRow{name: do, do: do, short: true, calls: 1, read: read, write: write}
}

// unsent is a row about a call that never leaves.
func unsent(name string, instead func(*fixture)) outcomeRow {
	return outcomeRow{name: name, instead: instead, short: true, read: later, write: later}
}

// outcomeRows are the lines of FACTS, "The PHP API we call", its table and its
// traps, with what HTTP adds to them.
func outcomeRows() []outcomeRow {
	return []outcomeRow{
		told("ok", answered, answered),
		told("latency=50ms", answered, answered),

		// json_error, validation_error, and every other 4xx that is not listed below.
		told("400", rejected, rejected),
		told("422", rejected, rejected),
		told("413", rejected, rejected),

		// Our configuration is wrong.
		told("401", later, later),
		told("403", later, later),
		told("404", later, later),
		told("405", later, later),
		told("407", later, later),
		told("421", later, later),
		told("301", later, later),
		told("307", later, later),
		told("denied", later, later),

		// The call was not made.
		told("429", slowDown, slowDown),
		told("429,retry-after=1", slowDown, slowDown),
		told("throttle", slowDown, slowDown),
		told("throttle-503", slowDown, slowDown),
		told("425", later, later),

		// The fault may come after the effect.
		told("500", later, outcomeOpen),
		told("act-500", later, outcomeOpen),
		told("502", later, outcomeOpen),
		told("act-502", later, outcomeOpen),
		told("503", later, outcomeOpen),
		told("act-503", later, outcomeOpen),
		told("504", later, outcomeOpen),
		told("act-504", later, outcomeOpen),
		told("408", later, outcomeOpen),

		// Sent, and no whole answer.
		slow("hang", later, outcomeOpen),
		slow("act-hang", later, outcomeOpen),
		slow("trickle=100ms", later, outcomeOpen),
		told("drop", later, outcomeOpen),
		told("act-drop", later, outcomeOpen),
		told("half", later, outcomeOpen),

		// Never sent.
		unsent("a closed port", func(f *fixture) { f.deps.API = f.client(php.Config{URL: closedPort(f)}) }),
		unsent("a name that DNS does not know", func(f *fixture) { f.deps.API = f.client(php.Config{Dial: noSuchHost}) }),
		unsent("a port that speaks no TLS", func(f *fixture) { f.deps.API = f.client(php.Config{URL: "https" + f.url[len("http"):]}) }),
		unsent("a port that says nothing", func(f *fixture) { f.deps.API = f.client(php.Config{URL: "https://" + silentPort(f)}) }),

		// 200, and not an answer.
		told("text", unreadable, outcomeOpen),
		told("empty", unreadable, outcomeOpen),
		told(fmt.Sprintf("huge=%d", 100<<20), overlong, outcomeOpen),
		{name: "an object without success", instead: sayingOnly(`{"status":"up"}`), calls: 1, read: answered, write: outcomeOpen},

		// 200 that hides a failure.
		told("fail=0", rejected, rejected),
		told("fail=1", rejected, rejected),
		told("fail=2", rejected, rejected),
		told("fail=3", rejected, rejected),
		told("fail=8", rejected, rejected),
		told("iserror", rejected, rejected),
	}
}

// TestEveryOutcomeIsAccountedFor holds the table of outcome.go against the real
// handler: what is in Redis, in the dead letters and told to Pub/Sub after each
// thing that the API can do, and after the same message comes once more.
func TestEveryOutcomeIsAccountedFor(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for _, row := range outcomeRows() {
		for _, r := range []struct {
			request
			want decision
		}{{aRead, row.read}, {aWrite, row.write}} {
			t.Run(row.name+"/"+r.action, func(t *testing.T) {
				t.Parallel()
				row.check(newFixture(t, server, row.setUp), r.request, r.want)
			})
		}
	}
}

func (row outcomeRow) setUp(f *fixture) {
	if row.short {
		f.cfg.PHPTimeout = time.Second
	}
	if row.instead != nil {
		row.instead(f)
	}
}

func (row outcomeRow) check(f *fixture, r request, want decision) {
	f.t.Helper()
	if row.do != "" {
		f.behave(row.do, 1)
	}
	processor, m := f.processor(), f.publish(r)
	f.wantPush(processor, m, want.http)
	f.wantCalls(row.calls)
	first := after(want, 1)
	f.wantState(m, first)
	if want.step != release {
		// A redelivery of what was answered changes nothing.
		f.wantPush(processor, m, http.StatusNoContent)
		f.wantCalls(row.calls)
		f.wantState(m, first)
		return
	}
	if row.instead != nil {
		return
	}
	// What was given back is called again, and answered.
	f.wantPush(processor, m, http.StatusNoContent)
	f.wantCalls(row.calls + 1)
	second := after(answered, 2)
	second.statuses = slices.Concat(first.statuses, second.statuses)
	f.wantState(m, second)
	if n := f.api.Executions(m.env.RequestID); r.action == aWrite.action && n != 1 {
		f.t.Errorf("the write was executed %d times, want once", n)
	}
}

// after is the state of a message after its n-th attempt was decided on so.
func after(d decision, n int) state {
	processing := fmt.Sprintf("processing %d", n)
	ended := func(word string) []string {
		if d.code == "" {
			return []string{processing, fmt.Sprintf("%s %d", word, n)}
		}
		return []string{processing, fmt.Sprintf("%s %d %s", word, n, d.code)}
	}
	switch {
	case d.step == complete && d.code == "":
		return state{answers: []string{"ok"}, statuses: ended("success")}
	case d.step == complete:
		return state{answers: []string{string(d.code)}, statuses: ended("error")}
	case d.step == letComplete:
		return state{answers: []string{string(d.code)}, statuses: ended("error"), letters: []string{string(d.code)}}
	default:
		return state{statuses: ended("pending"), open: true, retrying: true}
	}
}

// closedPort is the URL of a port on which nobody listens.
func closedPort(f *fixture) string {
	ln := listen(f)
	f.must(ln.Close())
	return "http://" + ln.Addr().String()
}

// silentPort accepts connections and says nothing.
func silentPort(f *fixture) string {
	ln := listen(f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	f.t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

func listen(f *fixture) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	f.must(err)
	return ln
}

func noSuchHost(context.Context, string, string) (net.Conn, error) {
	return nil, &net.DNSError{Err: "no such host", Name: "api.invalid", IsNotFound: true}
}

// sayingOnly puts somebody in the API's place who answers 200 with one text.
func sayingOnly(text string) func(*fixture) {
	return func(f *fixture) {
		url := f.serveAPI(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }))
		f.deps.API = f.client(php.Config{URL: url})
	}
}

// TestGarbageIsNotAskedForEver: after three attempts a read whose answers are no
// answers is given up on.
func TestGarbageIsNotAskedForEver(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t))
	f.behave("text", 0)
	processor, m := f.processor(), f.publish(aRead)
	f.wantPush(processor, m, http.StatusServiceUnavailable)
	f.wantPush(processor, m, http.StatusServiceUnavailable)
	f.wantPush(processor, m, http.StatusNoContent)
	f.wantCalls(3)
	f.wantState(m, state{
		answers: []string{"bad_response"}, letters: []string{"bad_response"},
		statuses: []string{
			"processing 1", "pending 1 bad_response", "processing 2", "pending 2 bad_response", "processing 3", "error 3 bad_response",
		},
	})
}

// TestAnswersCarryWhatTheAPISaid: data on success, its words on a refusal, ours
// where a person must look.
func TestAnswersCarryWhatTheAPISaid(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for _, test := range []struct {
		do, data, text string
	}{
		{do: "fail=1", text: "A made-up failure"},
		{do: "400", text: "A made-up validation error"},
		{do: "act-500", text: tebra.OutcomeUnknown.Meaning()},
	} {
		t.Run(test.do, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server)
			f.behave(test.do, 1)
			m := f.publish(aWrite)
			f.wantPush(f.processor(), m, http.StatusNoContent)
			if got := f.responses(m); len(got) != 1 || got[0].Error != test.text {
				t.Errorf("responses = %+v, want one with error %q", got, test.text)
			}
		})
	}
	t.Run("ok", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, server)
		m := f.publish(request{action: "health"})
		f.wantPush(f.processor(), m, http.StatusNoContent)
		const want = `{"stand_in":true,"status":"healthy"}`
		if got := f.responses(m); len(got) != 1 || string(got[0].Data) != want {
			t.Errorf("responses = %+v, want one with data %s", got, want)
		}
	})
}

// TestTheTableIsWhole: an outcome that decide does not know would be tried again
// for ever, so every pair of outcome and code that php can give has its row.
func TestTheTableIsWhole(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		result  php.Result
		open    bool
		attempt int
		want    decision
	}{
		{"answered", php.Result{Outcome: php.Answered}, false, 1, answered},
		{"answered while open", php.Result{Outcome: php.Answered}, true, 1, answered},
		{"refused", php.Result{Outcome: php.Refused, Code: tebra.Rejected}, true, 1, rejected},
		{"the zero value", php.Result{}, true, 1, outcomeOpen},
		{"failed while open", php.Result{Outcome: php.TryAgain, Code: tebra.Unavailable}, true, 9,
			decision{returnToLane, tebra.Unavailable, http.StatusNoContent}},
		{"garbled while open", php.Result{Outcome: php.TryAgain, Code: tebra.BadResponse}, true, 3,
			decision{returnToLane, tebra.BadResponse, http.StatusNoContent}},
		{"failed too often while open", php.Result{Outcome: php.TryAgain, Code: tebra.Unavailable}, true, 10,
			decision{letComplete, tebra.DeadLettered, http.StatusNoContent}},
		{"garbled twice", php.Result{Outcome: php.TryAgain, Code: tebra.BadResponse}, false, 2, unreadable},
		{"garbled three times", php.Result{Outcome: php.TryAgain, Code: tebra.BadResponse}, false, 3,
			decision{letComplete, tebra.BadResponse, http.StatusNoContent}},
		{"unavailable for ever", php.Result{Outcome: php.TryAgain, Code: tebra.Unavailable}, false, 1000, later},
	} {
		if got := decide(test.result, test.open, test.attempt); got != test.want {
			t.Errorf("%s: decide() = %v %q %d, want %v %q %d", test.name,
				got.step, got.code, got.http, test.want.step, test.want.code, test.want.http)
		}
	}
}
