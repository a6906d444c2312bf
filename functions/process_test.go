package functions

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// held puts the stand-in behind a gate: a call tells that it has arrived, and goes
// on once it is let go, or its caller leaves.
type held struct {
	arrived chan struct{}
	open    chan struct{}
	once    sync.Once
}

func holdAPI(h *held) option {
	h.arrived, h.open = make(chan struct{}, 100), make(chan struct{})
	return func(f *fixture) {
		f.t.Cleanup(h.letGo)
		f.url = f.serveAPI(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.arrived <- struct{}{}
			select {
			case <-h.open:
			case <-r.Context().Done():
			}
			f.api.ServeHTTP(w, r)
		}))
	}
}

func (h *held) letGo() { h.once.Do(func() { close(h.open) }) }

// wait waits for a call to arrive.
func (h *held) wait(t testing.TB) {
	t.Helper()
	await(t, h.arrived, "a call to arrive at the API")
}

func await[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
	}
	return v
}

// pushing pushes m in the background.
func (f *fixture) pushing(h http.Handler, m message) <-chan int {
	status := make(chan int, 1)
	go func() { status <- post(h, m.body()).Code }()
	return status
}

func (f *fixture) wantStatus(status <-chan int, want int) {
	f.t.Helper()
	if got := await(f.t, status, "the push to be answered"); got != want {
		f.t.Errorf("push = %d, want %d; the log:\n%s", got, want, f.logs)
	}
}

func TestWhatMayNotBeCalledIsAnswered(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for name, test := range map[string]struct {
		request request
		waited  time.Duration
		want    tebra.ErrorCode
	}{
		"an action that nobody knows":           {request: request{action: "dropTables"}, want: tebra.UnknownAction},
		"an action that is granted to nobody":   {request: request{action: "getProviders"}, want: tebra.Unauthorized},
		"a user without the role":               {request: request{action: "syncSchedule", user: "user-2"}, want: tebra.Unauthorized},
		"a disabled user":                       {request: request{action: "syncSchedule", user: "user-3"}, want: tebra.Unauthorized},
		"a user whom nobody knows":              {request: request{action: "createAppointment", user: "user-9"}, want: tebra.Unauthorized},
		"a user whom another published for":     {request: request{action: "syncSchedule", metadata: `{"publishedBy":"user-2"}`}, want: tebra.Unauthorized},
		"a publisher who is no text":            {request: request{action: "syncSchedule", metadata: `{"publishedBy":7}`}, want: tebra.Unauthorized},
		"a publisher who is there twice":        {request: request{action: "syncSchedule", metadata: `{"publishedBy":"user-1","publishedBy":"user-2"}`}, want: tebra.Unauthorized},
		"a read that waited beyond its ttl":     {request: request{action: "searchPatients"}, waited: 61 * time.Second, want: tebra.Expired},
		"a write that waited beyond its ttl":    {request: aWrite, waited: 4*time.Hour + time.Second, want: tebra.Expired},
		"one that is expired and not permitted": {request: request{action: "searchPatients", user: "user-2"}, waited: 61 * time.Second, want: tebra.Expired},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server)
			m := f.publish(test.request)
			f.advance(test.waited)
			f.wantPush(f.processor(), m, http.StatusNoContent)
			f.wantCalls(0)
			f.wantState(m, after(decision{complete, test.want, http.StatusNoContent}, 1))
			if got := f.responses(m); len(got) == 1 && got[0].Error == "" {
				t.Errorf("response = %+v, want a text for the user", got[0])
			}
		})
	}
}

func TestWhatMayBeCalledIs(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for name, test := range map[string]struct {
		request request
		waited  time.Duration
	}{
		"just within its ttl":               {request{action: "searchPatients", params: `{"lastName":"X"}`}, 50 * time.Second},
		"published by the user":             {request{action: "syncSchedule", metadata: `{"publishedBy":"user-1"}`}, 0},
		"with metadata and no publisher":    {request{action: "syncSchedule", metadata: `{"page":"day"}`}, 0},
		"a write within its ttl":            {aWrite, 3*time.Hour + 59*time.Minute},
		"a read of the default ttl (a day)": {aRead, 23*time.Hour + 59*time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server)
			m := f.publish(test.request)
			f.advance(test.waited)
			f.wantPush(f.processor(), m, http.StatusNoContent)
			f.wantState(m, after(answered, 1))
		})
	}
}

func TestARoleSourceThatIsDownRefusesNobody(t *testing.T) {
	t.Parallel()
	down := true
	source := sourceFunc(func(context.Context, string) ([]string, error) {
		if down {
			return nil, errSource
		}
		return []string{"tester"}, nil
	})
	f := newFixture(t, peertest.Redis(t), rolesFrom(source))
	processor, m := f.processor(), f.publish(aWrite)
	f.wantPush(processor, m, http.StatusServiceUnavailable)
	f.wantCalls(0)
	f.wantState(m, after(later, 1))
	down = false
	f.wantPush(processor, m, http.StatusNoContent)
	f.wantCalls(1)
	if got := f.answers(m); len(got) != 1 || got[0] != "ok" {
		t.Errorf("answers = %q, want one success", got)
	}
}

// TestLookingUpRolesIsBounded: whatever the source does, the time that is counted
// for it in the configuration holds.
func TestLookingUpRolesIsBounded(t *testing.T) {
	t.Parallel()
	bound := make(chan time.Duration, 1)
	source := sourceFunc(func(ctx context.Context, _ string) ([]string, error) {
		deadline, _ := ctx.Deadline()
		bound <- time.Until(deadline)
		return nil, errSource
	})
	f := newFixture(t, peertest.Redis(t), rolesFrom(source))
	f.push(f.processor(), f.publish(aRead))
	if got := <-bound; got <= 0 || got > rolesTimeout {
		t.Errorf("the source has %v to answer, want at most %v", got, rolesTimeout)
	}
}

func TestTheSameRequestAgainIsAnsweredAgainAndNotCalled(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for _, r := range []request{aRead, aWrite} {
		t.Run(r.action, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server)
			r.id = "one-id"
			processor := f.processor()
			first, second := f.publish(r), f.publish(r)
			f.wantPush(processor, first, http.StatusNoContent)
			f.wantPush(processor, second, http.StatusNoContent)
			f.wantCalls(1)
			f.wantState(first, after(answered, 1))
			f.wantState(second, state{answers: []string{"ok"}, statuses: []string{"success 1"}})
			if a, b := f.responses(first)[0], f.responses(second)[0]; string(a.Data) != string(b.Data) {
				t.Errorf("the second answer has data %.80s, want the first's, %.80s", b.Data, a.Data)
			}
		})
	}
}

func TestAnotherRequestUnderTheSameIDIsADuplicate(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for name, other := range map[string]request{
		"other params": {id: "one-id", action: "createAppointment", params: `{"appointmentData":{"a":2}}`},
		"other action": {id: "one-id", action: "syncSchedule"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server)
			r := aWrite
			r.id = "one-id"
			processor := f.processor()
			first, second := f.publish(r), f.publish(other)
			f.wantPush(processor, first, http.StatusNoContent)
			f.wantPush(processor, second, http.StatusNoContent)
			f.wantCalls(1)
			f.wantState(second, state{answers: []string{"duplicate"}, statuses: []string{"error 0 duplicate"}})
		})
	}
}

func TestAnotherUsersRequestOfTheSameIDIsItsOwn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t))
	r := aWrite
	r.id = "one-id"
	processor := f.processor()
	stranger := r
	stranger.user = "user-2"
	f.wantPush(processor, f.publish(stranger), http.StatusNoContent)
	m := f.publish(r)
	f.wantPush(processor, m, http.StatusNoContent)
	f.wantState(m, after(answered, 1))
}

func TestARedeliveryDuringTheCallIsBusy(t *testing.T) {
	t.Parallel()
	var h held
	f := newFixture(t, peertest.Redis(t), holdAPI(&h))
	processor, m := f.processor(), f.publish(aWrite)
	first := f.pushing(processor, m)
	h.wait(t)
	f.wantPush(processor, m, http.StatusTooManyRequests)
	h.letGo()
	f.wantStatus(first, http.StatusNoContent)
	f.wantPush(processor, m, http.StatusNoContent)
	f.wantCalls(1)
	f.wantState(m, after(answered, 1))
}

func TestAReplayedRequestIsCalledOnceMore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t))
	f.behave("act-500", 1)
	processor, old := f.processor(), f.publish(aWrite)
	f.wantPush(processor, old, http.StatusNoContent)
	f.wantState(old, after(outcomeOpen, 1))

	renewed := f.replay(old, true)
	f.wantPush(processor, renewed, http.StatusNoContent)
	f.wantState(renewed, after(answered, 1))
	f.wantPush(processor, old, http.StatusNoContent)
	f.wantState(old, after(outcomeOpen, 1))
	f.wantCalls(2)
}

func TestAnEntryThatWasReplacedIsAnsweredByItsReplay(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t))
	f.behave("500", 1)
	processor, old := f.processor(), f.publish(aRead)
	f.wantPush(processor, old, http.StatusServiceUnavailable)
	renewed := f.replay(old, true)
	f.wantPush(processor, old, http.StatusNoContent)
	f.wantCalls(1)
	f.wantState(old, state{statuses: []string{"processing 1", "pending 1 unavailable"}})
	f.wantPush(processor, renewed, http.StatusNoContent)
	f.wantCalls(2)
	if got := f.answers(renewed); len(got) != 1 || got[0] != "ok" {
		t.Errorf("answers = %q, want one success", got)
	}
}

// replay puts m back on the stream as an operator does, and takes the new entry as
// a bridge does.
func (f *fixture) replay(m message, force bool) message {
	f.t.Helper()
	req, err := tebra.DecodeMessage(m.data)
	f.must(err)
	replayed, err := f.deps.Ledger.Replay(f.t.Context(), ledger.Replay{
		Request: req, EntryID: m.env.EntryID, Lane: m.env.Lane, Write: f.deps.Policy.IsWrite(req.Action), Force: force,
	})
	f.must(err)
	req.CorrelationID += "-replayed" // only so that the test tells their answers apart
	return f.admit(req, replayed.EntryID)
}

func TestAWriteWhoseEpochIsGoneIsNotCalled(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t))
	m := f.publish(aWrite)
	f.must(f.rdb.Del(t.Context(), f.keys.Ledger(m.env.Ledger)).Err())
	f.wantPush(f.processor(), m, http.StatusNoContent)
	f.wantCalls(0)
	f.wantState(m, state{
		answers: []string{"outcome_unknown"}, letters: []string{"outcome_unknown"}, statuses: []string{"error 0 outcome_unknown"},
	})
}

// TestNoAnswerWithoutItsDeadLetter: a person must be able to find what is said to
// need one.
func TestNoAnswerWithoutItsDeadLetter(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), handlerTimeout(500*time.Millisecond), phpTimeout(100*time.Millisecond))
	f.letters.setFail(errSource)
	f.behave("act-500", 1)
	processor, m := f.processor(), f.publish(aWrite)
	f.wantPush(processor, m, http.StatusServiceUnavailable)
	f.wantState(m, state{statuses: []string{"processing 1"}, open: true})

	f.letters.setFail(nil)
	f.wantPush(processor, m, http.StatusTooManyRequests) // until the lease is over
	f.advance(f.cfg.LedgerLease)
	f.wantPush(processor, m, http.StatusNoContent)
	f.wantCalls(1)
	f.wantState(m, state{
		answers: []string{"outcome_unknown"}, letters: []string{"outcome_unknown"},
		statuses: []string{"processing 1", "error 1 outcome_unknown"},
	})
}

func TestWhoHasNoTurnInTimeComesAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), func(f *fixture) { f.cfg.RateWait = time.Second })
	dates := request{action: "getAppointments", params: `{"fromDate":"2026-01-01","toDate":"2026-01-01"}`}
	processor, first, second := f.processor(), f.publish(dates), f.publish(dates)
	f.wantPush(processor, first, http.StatusNoContent)
	f.wantPush(processor, second, http.StatusTooManyRequests)
	f.wantCalls(1)
	f.wantState(second, after(slowDown, 1))
}

// TestThePreparationLeavesTheCallItsTime: the handler's own deadline never cuts a
// write short, because nobody would know its outcome then.
func TestThePreparationLeavesTheCallItsTime(t *testing.T) {
	t.Parallel()
	left := make(chan time.Duration, 1)
	f := newFixture(t, peertest.Redis(t), handlerTimeout(2*time.Second), phpTimeout(1500*time.Millisecond),
		rolesFrom(sourceFunc(func(ctx context.Context, _ string) ([]string, error) {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			<-ctx.Done()
			return nil, ctx.Err()
		})))
	m := f.publish(aWrite)
	f.wantPush(f.processor(), m, http.StatusServiceUnavailable)
	if got, most := <-left, f.cfg.HandlerTimeout-f.cfg.PHPTimeout; got > most {
		t.Errorf("what comes before the call had %v, want at most %v", got, most)
	}
	f.wantCalls(0)
	f.wantState(m, after(later, 1))
}

func TestALaneWaitsForAsLongAsTheAPIAsks(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for name, test := range map[string]struct {
		request     request
		after       string
		least, most time.Duration
	}{
		"seconds":           {request{action: "getPatient", params: `{"patientId":"1"}`}, "60", 50 * time.Second, 61 * time.Second},
		"at most so long":   {request{action: "getPatient", params: `{"patientId":"1"}`}, "86400", 9 * time.Minute, 10*time.Minute + time.Second},
		"nothing was asked": {request{action: "getPatient", params: `{"patientId":"1"}`}, "", 0, 100 * time.Millisecond},
		"no rate to hold":   {aRead, "60", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server)
			f.behave(strings.TrimSuffix("429,retry-after="+test.after, ",retry-after="), 1)
			m := f.publish(test.request)
			f.wantPush(f.processor(), m, http.StatusTooManyRequests)
			f.wantState(m, after(slowDown, 1))
			ahead, err := f.deps.Rate.Ahead(t.Context(), m.env.Lane)
			f.must(err)
			if ahead < test.least || ahead > test.most {
				t.Errorf("the lane waits %v, want %v to %v", ahead, test.least, test.most)
			}
		})
	}
}

// parkedState is that of a message that went back to Redis after so many calls.
func parkedState(calls int) state {
	return state{statuses: []string{"processing 1", fmt.Sprintf("pending %d unavailable", calls)}, parked: true}
}

func TestTheFailureThatOpensTheBreakerIsReturned(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for _, r := range []request{aRead, aWrite} {
		t.Run(r.action, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server, touchyBreaker)
			f.behave("401", 0) // no call is made, so that a write may come again too
			processor, m := f.processor(), f.publish(r)
			f.wantPush(processor, m, http.StatusNoContent)
			f.wantCalls(1)
			f.wantState(m, parkedState(1))

			// It is called when it is published again.
			f.api.Reset()
			f.must(f.deps.Breaker.Probed(t.Context(), true))
			f.wantPush(processor, m, http.StatusNoContent)
			f.wantCalls(2)
			if got := f.answers(m); len(got) != 1 || got[0] != "ok" {
				t.Errorf("answers = %q, want one success", got)
			}
		})
	}
}

// TestWhatFailsByItselfDoesNotGoRoundForEver: each return to Redis makes it a new
// message, whose attempts Pub/Sub counts from the beginning.
func TestWhatFailsByItselfDoesNotGoRoundForEver(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), touchyBreaker)
	f.behave("500", 0)
	processor, m := f.processor(), f.publish(aRead)
	for range giveUpReturned {
		f.wantPush(processor, m, http.StatusNoContent)
		f.must(f.deps.Breaker.Probed(t.Context(), true)) // the others are well
	}
	f.wantCalls(giveUpReturned)
	got := f.state(m)
	if len(got.answers) != 1 || got.answers[0] != "dead_lettered" || len(got.letters) != 1 || got.letters[0] != "dead_lettered" {
		t.Errorf("state = %v, want one answer and one dead letter, dead_lettered", got)
	}
}

func TestNothingIsCalledWhileTheBreakerIsOpen(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), touchyBreaker)
	f.openBreaker()
	processor, read, write := f.processor(), f.publish(aRead), f.publish(aWrite)
	f.wantPush(processor, read, http.StatusNoContent)
	f.wantPush(processor, write, http.StatusNoContent)
	f.wantCalls(0)
	f.wantState(read, parkedState(0))
	f.wantState(write, parkedState(0))
}

func (f *fixture) openBreaker() {
	f.t.Helper()
	state, err := f.deps.Breaker.Record(f.t.Context(), false)
	f.must(err)
	if state.String() != "open" {
		f.t.Fatalf("the breaker is %v after a failure, want open", state)
	}
}

// TestWhoWaitedForATurnLooksAgain: the API may have gone down meanwhile.
func TestWhoWaitedForATurnLooksAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), touchyBreaker)
	f.must(f.deps.Rate.Hold(t.Context(), "limited", time.Second))
	processor, m := f.processor(), f.publish(request{action: "getPatient", params: `{"patientId":"1"}`})
	status := f.pushing(processor, m)
	peertest.Eventually(t, patience, "the request to wait for its turn", func() bool {
		ahead, err := f.deps.Rate.Ahead(t.Context(), "limited")
		f.must(err)
		return ahead > 0 && len(f.statuses(m)) == 1
	})
	f.openBreaker()
	f.wantStatus(status, http.StatusNoContent)
	f.wantCalls(0)
	f.wantState(m, parkedState(0))
}

// TestWhatCanNotWaitInRedisIsGivenBack: an entry that was trimmed away can't be
// parked.
func TestWhatCanNotWaitInRedisIsGivenBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), touchyBreaker)
	m := f.publish(aRead)
	f.must(f.rdb.XDel(t.Context(), f.keys.Requests(), m.env.EntryID).Err())
	f.openBreaker()
	f.wantPush(f.processor(), m, http.StatusServiceUnavailable)
	f.wantState(m, after(later, 1))
	if strings.Contains(f.logs.String(), `"ERROR"`) {
		t.Errorf("the log has an error, want none:\n%s", f.logs)
	}
}

func probe() message { return message{env: tebra.Envelope{Probe: true}} }

func TestAProbeDecidesAboutTheBreaker(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for _, test := range []struct{ do, want string }{
		{"ok", "closed"},
		{"fail=1", "closed"}, // it is there, and says no
		{"throttle", "closed"},
		{"429", "closed"},
		{"500", "open"},
		{"503", "open"},
		{"401", "open"},
		{"drop", "open"},
		{"text", "open"}, // such as a page that says "down for maintenance"
		{"425", "open"},
	} {
		t.Run(test.do, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server, touchyBreaker)
			f.openBreaker()
			f.behave(test.do, 1)
			f.wantPush(f.processor(), probe(), http.StatusNoContent)
			f.wantCalls(1)
			snapshot, err := f.deps.Breaker.State(t.Context())
			f.must(err)
			if got := snapshot.State.String(); got != test.want {
				t.Errorf("after a probe that met %s the breaker is %s, want %s", test.do, got, test.want)
			}
			if j := f.api.Journal(); len(j) != 1 || j[0].Action != "testConnection" || j[0].Write {
				t.Errorf("the probe called %+v, want the catalogue's probe action", j)
			}
		})
	}
}

// TestEveryAttemptIsLoggedWithoutContents: a line for each, and in none of them
// what users typed, what the API said, or our key.
func TestEveryAttemptIsLoggedWithoutContents(t *testing.T) {
	t.Parallel()
	const typed, said = "canary-typed-4711", "canary-said-4712"
	server := peertest.Redis(t)
	for _, test := range []struct {
		status int
		body   string
	}{
		{200, `{"success":true,"data":{"name":"` + said + `"}}`},
		{200, `{"success":true,"data":{"success":false,"message":"` + said + `"}}`},
		{200, said}, {400, `{"success":false,"error":"` + said + `","type":"` + said + `"}`},
		{500, `{"success":false,"error":"` + said + `"}`}, {418, said}, {503, said}, {429, said},
	} {
		for _, r := range []request{aRead, aWrite} {
			t.Run(fmt.Sprint(test.status, r.action, len(test.body)), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, server, func(f *fixture) {
					f.url = f.serveAPI(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
						w.WriteHeader(test.status)
						w.Write([]byte(test.body))
					}))
				})
				r.params = `{"appointmentData":{"note":"` + typed + `"}}`
				r.metadata = `{"note":"` + typed + `"}`
				f.push(f.processor(), f.publish(r))
				f.wantNoCanary(typed, said, testKey)
				f.wantUserInAuditOnly()
				if !strings.Contains(f.logs.String(), `"attempt":1`) {
					t.Errorf("no line about the attempt in the log:\n%s", f.logs)
				}
			})
		}
	}
}

// wantUserInAuditOnly checks that only the audit log says who asked.
func (f *fixture) wantUserInAuditOnly() {
	f.t.Helper()
	audited := false
	for line := range strings.Lines(f.logs.String()) {
		audit := strings.Contains(line, `"logging.googleapis.com/labels":{"log":"audit"}`)
		audited = audited || audit && strings.Contains(line, testUser)
		if !audit && strings.Contains(line, testUser) {
			f.t.Errorf("the log names the user: %s", line)
		}
	}
	if !audited {
		f.t.Errorf("no audit record names the user:\n%s", f.logs)
	}
}

// wantNoCanary checks that none of the words came into the log, or into the name
// of a Redis key.
func (f *fixture) wantNoCanary(words ...string) {
	f.t.Helper()
	keys, err := f.rdb.Keys(f.t.Context(), f.cfg.Prefix+":*").Result()
	f.must(err)
	for _, word := range words {
		if strings.Contains(f.logs.String(), word) {
			f.t.Errorf("the log holds %q:\n%s", word, f.logs)
		}
		if strings.Contains(strings.Join(keys, " "), word) {
			f.t.Errorf("the keys hold %q: %q", word, keys)
		}
	}
}
