package functions

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

func TestADeadLetterIsAnswered(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for _, r := range []request{aRead, aWrite} {
		t.Run(r.action, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server)
			f.behave("404", 1)
			m := f.publish(r)
			f.wantPush(f.processor(), m, http.StatusServiceUnavailable)
			recorder := f.recorder()
			f.wantPush(recorder, m, http.StatusNoContent)
			want := state{
				answers:  []string{"dead_lettered"},
				statuses: []string{"processing 1", "pending 1 unavailable", "error 1 dead_lettered"},
			}
			f.wantState(m, want)
			if got := f.responses(m); !strings.Contains(got[0].Error, tebra.Unavailable.Meaning()) {
				t.Errorf("the answer says %q, want what went wrong last in it", got[0].Error)
			}
			// Dead-lettered twice, or the last attempt pushed once more.
			f.wantPush(recorder, m, http.StatusNoContent)
			f.wantPush(f.processor(), m, http.StatusNoContent)
			f.wantState(m, want)
			f.wantCalls(1)
		})
	}
}

func TestADeadLetterThatWasNeverCalledIsAnswered(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t))
	m := f.publish(aWrite)
	f.wantPush(f.recorder(), m, http.StatusNoContent)
	f.wantState(m, state{answers: []string{"dead_lettered"}, statuses: []string{"error 0 dead_lettered"}})
}

// TestADeadLetterWhoseBodyNobodyCanReadIsAnswered: the attributes are enough.
func TestADeadLetterWhoseBodyNobodyCanReadIsAnswered(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for name, data := range map[string]string{"no JSON": "\xff\x00", "nothing": "", "another's": `{"id":"x"}`} {
		for _, r := range []request{aRead, aWrite} {
			t.Run(name+"/"+r.action, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, server)
				m := f.publish(r)
				m.data = []byte(data)
				f.wantPush(f.processor(), m, http.StatusBadRequest)
				f.wantPush(f.recorder(), m, http.StatusNoContent)
				f.wantState(m, state{answers: []string{"dead_lettered"}, statuses: []string{"error 0 dead_lettered"}})
				f.wantCalls(0)
			})
		}
	}
}

// TestADeadLetterWaitsForTheLastAttempt: it may arrive while that is still running.
func TestADeadLetterWaitsForTheLastAttempt(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for _, r := range []request{aRead, aWrite} {
		t.Run(r.action, func(t *testing.T) {
			t.Parallel()
			var h held
			f := newFixture(t, server, holdAPI(&h))
			recorder, m := f.recorder(), f.publish(r)
			attempt := f.pushing(f.processor(), m)
			h.wait(t)
			f.wantPush(recorder, m, http.StatusServiceUnavailable)
			h.letGo()
			f.wantStatus(attempt, http.StatusNoContent)
			f.wantPush(recorder, m, http.StatusNoContent)
			f.wantState(m, after(answered, 1))
		})
	}
}

// TestADeadLetterOfACrashedAttempt: its instance died during the call.
func TestADeadLetterOfACrashedAttempt(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for _, test := range []struct {
		request request
		want    string
	}{{aRead, "dead_lettered"}, {aWrite, "outcome_unknown"}} {
		t.Run(test.request.action, func(t *testing.T) {
			t.Parallel()
			var h held
			f := newFixture(t, server, holdAPI(&h))
			recorder, m := f.recorder(), f.publish(test.request)
			attempt := f.pushing(f.processor(), m)
			h.wait(t)
			f.advance(f.cfg.LedgerLease + time.Second)
			f.wantPush(recorder, m, http.StatusNoContent)
			want := state{answers: []string{test.want}, statuses: []string{"processing 1", "error 1 " + test.want}}
			f.wantState(m, want)

			// Should it be alive after all, its answer comes too late to count.
			h.letGo()
			f.wantStatus(attempt, http.StatusTooManyRequests)
			f.wantState(m, want)
		})
	}
}

func TestADeadLetterThatNeedsNoAnswerIsAcknowledged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t))
	reason := f.publish(aRead)
	reason.env.Reason = tebra.TooLarge
	for name, m := range map[string]message{
		"with our reason":   reason,
		"a probe":           probe(),
		"reason alone":      {env: tebra.Envelope{Reason: tebra.Malformed}},
		"not ours":          {data: []byte("hello")},
		"not whole":         {env: tebra.Envelope{RequestID: "x", EntryID: "1-1"}},
		"not of its ledger": {env: withLedger(f.publish(aRead).env, "other")},
	} {
		if got := f.push(f.recorder(), m); got != http.StatusNoContent {
			t.Errorf("%s: push = %d, want 204", name, got)
		}
	}
	if got := f.entries(f.keys.Responses()); len(got) != 0 {
		t.Errorf("responses = %v, want none", got)
	}
}

func withLedger(env tebra.Envelope, hash string) tebra.Envelope {
	env.Ledger = hash
	return env
}

func TestADeadLetterOfAReplacedEntryIsAcknowledged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t))
	f.behave("500", 1)
	old := f.publish(aRead)
	f.wantPush(f.processor(), old, http.StatusServiceUnavailable)
	f.replay(old, true)
	f.wantPush(f.recorder(), old, http.StatusNoContent)
	if got := f.answers(old); len(got) != 0 {
		t.Errorf("answers = %q, want none: its replay will be answered", got)
	}
}

// TestADeadLetterThatTheLedgerAnswersIsAudited: a second entry of an ID has its
// terminal answer by that, whoever asks first.
func TestADeadLetterThatTheLedgerAnswersIsAudited(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for decision, params := range map[string]string{"repeated": aWrite.params, "conflict": `{"appointmentData":{"a":2}}`} {
		t.Run(decision, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server)
			r := aWrite
			r.id = "same-" + decision
			f.wantPush(f.processor(), f.publish(r), http.StatusNoContent)
			r.params = params
			second := f.publish(r)
			f.wantPush(f.recorder(), second, http.StatusNoContent)
			if got := f.answers(second); len(got) != 1 {
				t.Errorf("answers = %q, want one", got)
			}
			found := 0
			for line := range strings.Lines(f.logs.String()) {
				if strings.Contains(line, `"entryId":"`+second.env.EntryID+`"`) && strings.Contains(line, `"decision":"`+decision+`"`) {
					found++
				}
			}
			if found != 1 {
				t.Errorf("%d audit records say %s of entry %s, want 1:\n%s", found, decision, second.env.EntryID, f.logs)
			}
		})
	}
}
