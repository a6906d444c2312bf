package functions

import (
	"context"
	"net/http"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
)

// durable is a Redis that keeps what it has acknowledged, also when it is killed.
func durable(t testing.TB) *peertest.RedisServer {
	return peertest.RealRedis(t, peertest.WithArgs("--appendonly", "yes", "--appendfsync", "always"))
}

// hurried gives the handler little time.
func hurried(f *fixture) {
	f.cfg.PHPTimeout, f.cfg.HandlerTimeout = 1500*time.Millisecond, 3*time.Second
}

func TestWithoutRedisNothingIsClaimedAndNothingCalled(t *testing.T) {
	t.Parallel()
	server := durable(t)
	f := newFixture(t, server, hurried)
	m := f.publish(aWrite)
	server.Kill()
	f.wantPush(f.processor(), m, http.StatusServiceUnavailable)
	f.wantPush(f.recorder(), m, http.StatusServiceUnavailable)
	f.wantCalls(0)
	server.Start()
	f.wantPush(f.processor(), m, http.StatusNoContent)
	f.wantState(m, after(answered, 1))
}

// TestRedisGoneAfterTheClaim: the write is not marked as started, so it is not
// called, and may be called later.
func TestRedisGoneAfterTheClaim(t *testing.T) {
	t.Parallel()
	server := durable(t)
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	f := newFixture(t, server, hurried, rolesFrom(sourceFunc(func(context.Context, string) ([]string, error) {
		asked <- struct{}{}
		<-answer
		return []string{"tester"}, nil
	})))
	processor, m := f.processor(), f.publish(aWrite)
	status := f.pushing(processor, m)
	await(t, asked, "the roles to be asked for")
	server.Kill()
	close(answer)
	f.wantStatus(status, http.StatusServiceUnavailable)
	f.wantCalls(0)

	server.Start()
	f.advance(f.cfg.LedgerLease)
	f.wantPush(processor, m, http.StatusNoContent)
	f.wantCalls(1)
	f.wantState(m, state{answers: []string{"ok"}, statuses: []string{"processing 1", "processing 2", "success 2"}})
}

// TestRedisGoneAfterTheCall: the answer is kept trying for as long as the handler's
// deadline allows. Then a read runs again, and a write is unknown.
func TestRedisGoneAfterTheCall(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]struct{ off, on func(*peertest.RedisServer) }{
		"killed": {(*peertest.RedisServer).Kill, (*peertest.RedisServer).Start},
		"silent": {(*peertest.RedisServer).Pause, (*peertest.RedisServer).Resume},
	} {
		for _, test := range []struct {
			request request
			want    state
			calls   int
		}{
			{aRead, state{answers: []string{"ok"}, statuses: []string{"processing 1", "processing 2", "success 2"}}, 2},
			{aWrite, state{answers: []string{"outcome_unknown"}, letters: []string{"outcome_unknown"},
				statuses: []string{"processing 1", "error 1 outcome_unknown"}}, 1},
		} {
			t.Run(name+"/"+test.request.action, func(t *testing.T) {
				t.Parallel()
				var h held
				server := durable(t)
				f := newFixture(t, server, hurried, holdAPI(&h))
				processor, m := f.processor(), f.publish(test.request)
				began := time.Now()
				status := f.pushing(processor, m)
				h.wait(t)
				cut.off(server)
				h.letGo()
				f.wantStatus(status, http.StatusServiceUnavailable)
				took := time.Since(began)
				if most := f.cfg.HandlerTimeout + finishGrace + time.Second; took < f.cfg.HandlerTimeout || took > most {
					t.Errorf("gave up after %v, want %v to %v", took, f.cfg.HandlerTimeout, most)
				}

				cut.on(server)
				f.advance(f.cfg.LedgerLease)
				f.wantPush(processor, m, http.StatusNoContent)
				f.wantCalls(test.calls)
				f.wantState(m, test.want)
			})
		}
	}
}

func TestRedisBackInTimeLosesNothing(t *testing.T) {
	t.Parallel()
	var h held
	server := durable(t)
	f := newFixture(t, server, holdAPI(&h))
	processor, m := f.processor(), f.publish(aWrite)
	status := f.pushing(processor, m)
	h.wait(t)
	server.Kill()
	h.letGo()
	peertest.Eventually(t, patience, "the call to be answered", func() bool { return len(f.api.Journal()) == 1 })
	server.Start()
	f.wantStatus(status, http.StatusNoContent)
	f.wantCalls(1)
	f.wantState(m, after(answered, 1))
}

// TestRedisThatForgotEverythingStillGetsTheAnswer: and the call is not made again.
func TestRedisThatForgotEverythingStillGetsTheAnswer(t *testing.T) {
	t.Parallel()
	var h held
	f := newFixture(t, peertest.Redis(t), holdAPI(&h))
	processor, m := f.processor(), f.publish(aWrite)
	status := f.pushing(processor, m)
	h.wait(t)
	f.must(f.rdb.FlushAll(t.Context()).Err())
	h.letGo()
	f.wantStatus(status, http.StatusNoContent)
	f.must(f.rdb.XGroupCreateMkStream(t.Context(), f.keys.Requests(), "parked", "0").Err())
	want := state{answers: []string{"ok"}, statuses: []string{"success 1"}}
	f.wantState(m, want)
	f.wantPush(processor, m, http.StatusNoContent)
	f.wantCalls(1)
	f.wantState(m, want)
}
