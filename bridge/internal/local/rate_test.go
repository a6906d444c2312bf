package local_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// longRuns is the environment variable that asks for waits as long as in
// production.
const longRuns = "TEBRA_LONG"

// read matches a read among the actions of a local run's policy.
var read = regexp.MustCompile(`(?m)^(  (?:get|search|sync|test|health)\w*: \{.*)\}$`)

// policyFile returns the path of a local run's policy with lane appointments at
// an interval of its own, and a timeout for the calls of reads.
func policyFile(t *testing.T, interval, timeout time.Duration) string {
	t.Helper()
	text, err := os.ReadFile("policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "policy.yaml")
	text = read.ReplaceAll(text, fmt.Appendf(nil, "${1}, timeout: %v}", timeout))
	text = fmt.Appendf(text, "lanes:\n  appointments: {interval: %v}\n", interval)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// threeInstances returns a run of three instances of the functions on a Redis of
// their own.
func threeInstances(t *testing.T) local.Options {
	t.Helper()
	opts := local.DefaultOptions()
	opts.Instances = 3
	opts.Redis = peertest.Redis(t).URL()
	return opts
}

// send puts a request on the stream.
func send(t *testing.T, p *local.Pipeline, id, action, params string) {
	t.Helper()
	args := &redis.XAddArgs{Stream: p.Keys.Requests(), Values: flat(id, action, params)}
	if err := p.Redis.XAdd(t.Context(), args).Err(); err != nil {
		t.Fatalf("XADD %s: %v", id, err)
	}
}

// countAnswers costs less than [readAnswers], for those who wait.
func countAnswers(t *testing.T, p *local.Pipeline) int {
	t.Helper()
	n, err := p.Redis.XLen(t.Context(), p.Keys.Responses()).Result()
	if err != nil {
		t.Fatalf("XLEN responses: %v", err)
	}
	return int(n)
}

// hasAnswer reports whether one of the latest answers is that of a request.
func hasAnswer(t *testing.T, p *local.Pipeline, id string) bool {
	t.Helper()
	latest, err := p.Redis.XRevRangeN(t.Context(), p.Keys.Responses(), "+", "-", 10).Result()
	if err != nil {
		t.Fatalf("XREVRANGE responses: %v", err)
	}
	return slices.ContainsFunc(latest, func(m redis.XMessage) bool { return m.Values["requestId"] == id })
}

// readStatuses returns all that was said of requests' states.
func readStatuses(t *testing.T, p *local.Pipeline) []tebra.StatusUpdate {
	t.Helper()
	messages, err := p.Redis.XRange(t.Context(), p.Keys.Status(), "-", "+").Result()
	if err != nil {
		t.Fatalf("XRANGE status: %v", err)
	}
	var statuses []tebra.StatusUpdate
	for _, m := range messages {
		fields := map[string]string{}
		for k, v := range m.Values {
			fields[k], _ = v.(string)
		}
		s, err := tebra.ParseStatus(fields)
		if err != nil {
			t.Fatalf("status entry %s: %v", m.ID, err)
		}
		statuses = append(statuses, s)
	}
	return statuses
}

// checkNoLetters fails the test when an operator would find a dead letter.
func checkNoLetters(t *testing.T, p *local.Pipeline) {
	t.Helper()
	if n := countLetters(t, p); n > 0 {
		t.Errorf("%d dead letters, want none", n)
	}
}

// jitter is by how much two calls may come closer than their slots, which are
// exactly an interval apart: the first may be late, by a timer, a look at the
// breaker and a call over loopback. (The catalogue's intervals have a margin of
// 250 ms over Tebra's limits for just that; see FACTS.) On a busy machine the
// scheduler comes on top, which is measured: see [standstill].
const jitter = 100 * time.Millisecond

// standstill measures for how long this machine does not let the process run, and
// returns a function that says how long that was at the most until then.
func standstill(t *testing.T) (longest func() time.Duration) {
	const tick = 5 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	var most atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for last := time.Now(); ; {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			now := time.Now()
			most.Store(max(most.Load(), int64(now.Sub(last)-tick)))
			last = now
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	return func() time.Duration { return time.Duration(most.Load()) }
}

// TestABurstKeepsItsLanesRateAndDelaysNoOtherLane sends 60 requests of one lane at
// once to three instances, and a write of another in the middle.
//
// It is not parallel to others, because it measures times.
func TestABurstKeepsItsLanesRateAndDelaysNoOtherLane(t *testing.T) {
	const burst = 60
	interval := 300 * time.Millisecond
	if os.Getenv(longRuns) != "" {
		interval = 1250 * time.Millisecond // the catalogue's
	}
	t.Logf("an interval of %v; with %s=1 it is 1.25s", interval, longRuns)
	opts := threeInstances(t)
	opts.PolicyFile = policyFile(t, interval, 30*time.Second)
	p := startPipeline(t, opts)
	longest, sent := standstill(t), time.Now()
	for i := range burst {
		send(t, p, fmt.Sprintf("sync-%02d", i), "syncSchedule", `{"date":"2026-11-23"}`)
	}
	calls := func() int { return len(p.API.Journal()) }
	peertest.Eventually(t, burst*interval, "a third of the burst", func() bool { return calls() >= burst/3 })

	asked := time.Now()
	send(t, p, "write", "createAppointment", `{"appointmentData":{"patientId":"7"}}`)
	peertest.Eventually(t, time.Second, "the answer to a write of another lane", func() bool { return hasAnswer(t, p, "write") })
	t.Logf("the write in the middle was answered after %v", time.Since(asked).Round(time.Millisecond))
	if n := calls(); n >= burst {
		t.Fatalf("%d calls were made when the write was answered, want it in the middle of the burst", n)
	}

	peertest.Eventually(t, burst*interval+30*time.Second, "all answers", func() bool { return countAnswers(t, p) > burst })
	checkSpacing(t, p, sent, interval, jitter+longest(), burst)
	checkFirstAttempts(t, p, burst+1)
	checkNoLetters(t, p)
}

// checkSpacing holds the times at which the API got a lane's calls against its
// interval: any two against each other less the jitter, and each against the time
// since the first was sent, before which there was no slot, without any.
func checkSpacing(t *testing.T, p *local.Pipeline, sent time.Time, interval, jitter time.Duration, want int) {
	t.Helper()
	var at []time.Time
	for _, e := range p.API.Journal() {
		if e.Action == "syncSchedule" {
			at = append(at, e.Time)
		}
	}
	if err := p.API.JournalErr(); err != nil || len(at) != want {
		t.Fatalf("the API got %d calls of the burst (%v), want %d", len(at), err, want)
	}
	slices.SortFunc(at, time.Time.Compare)
	for i := range at {
		if got, want := at[i].Sub(sent), time.Duration(i)*interval; got < want {
			t.Errorf("call %d reached the API after %v, want at least %v", i, got, want)
		}
		for j := range i {
			if got, want := at[i].Sub(at[j]), time.Duration(i-j)*interval; got < want-jitter {
				t.Errorf("calls %d and %d reached the API %v apart, want at least %v less a jitter of %v", j, i, got, want, jitter)
			}
		}
	}
	shortest, _ := p.API.MinSpacing("syncSchedule")
	span := at[len(at)-1].Sub(at[0])
	t.Logf("%d calls in %v, %d intervals are %v; no two closer than %v, with a jitter of up to %v",
		len(at), span, len(at)-1, time.Duration(len(at)-1)*interval, shortest, jitter)
}

// checkFirstAttempts checks that every request succeeded at its first attempt and
// that none was ever given back.
func checkFirstAttempts(t *testing.T, p *local.Pipeline, want int) {
	t.Helper()
	answers := readAnswers(t, p)
	if len(answers) != want {
		t.Errorf("%d answers, want %d", len(answers), want)
	}
	for _, a := range answers {
		if a.ErrorCode != "" || a.Attempts != 1 {
			t.Errorf("%s: errorCode %q after %d attempts, want success after 1", a.RequestID, a.ErrorCode, a.Attempts)
		}
	}
	for _, s := range readStatuses(t, p) {
		if s.ErrorCode != "" {
			t.Errorf("%s was %s with errorCode %q, want none to be given back", s.RequestID, s.State, s.ErrorCode)
		}
	}
}
