package local_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/tebra"
)

// An outage, as the stand-in has it.
type outage struct {
	do string // the word for it
	// harmless says that a call certainly had no effect, so that writes are tried
	// again too. In other outages they come only once nothing is called any more:
	// before, they would rightly end with outcome_unknown.
	harmless bool
}

func TestAnOutageLosesNothingAndFloodsNothing(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]outage{
		"nobody is home":              {"404", true},
		"every connection is dropped": {"drop", false},
		"every call hangs":            {"hang", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := threeInstances(t)
			opts.MinBackoff, opts.MaxBackoff = local.FastMinBackoff, local.FastMaxBackoff
			// A read that takes too long on a busy machine is tried again; a write
			// is not, so it keeps its 30 s.
			opts.PolicyFile = policyFile(t, 100*time.Millisecond, 2*time.Second)
			p := startPipeline(t, opts)
			goThrough(t, p, o)
		})
	}
}

// goThrough begins an outage under traffic, ends it, and checks what became of
// everybody.
func goThrough(t *testing.T, p *local.Pipeline, o outage) {
	longest := standstill(t)
	lasts := outageLength(t)
	traffic := &traffic{p: p, every: lasts / 240}
	if err := p.API.Behave(phptest.Rule{Do: o.do}); err != nil {
		t.Fatal(err)
	}
	for range 20 { // most of them wait for their turn when the breaker opens
		traffic.send(t, "syncSchedule", `{"date":"2026-11-23"}`)
	}
	if o.harmless {
		traffic.send(t, "createAppointment", write)
	}
	stop := traffic.begin(t)
	began := time.Now()
	shut := await(t, p, "the breaker to open", func(s breaker.Snapshot) bool { return s.State != breaker.Closed })
	t.Logf("the breaker opened %v after the first request", shut.Since.Sub(began).Round(time.Millisecond))
	peertest.Eventually(t, 15*time.Second, "what was published to be back in Redis", func() bool { return nothingPublished(t, p) })
	for range 5 {
		traffic.send(t, "createAppointment", write)
		traffic.send(t, "updateAppointment", write)
	}
	probes := awaitProbes(t, p, began, lasts)
	stop()
	if !nothingPublished(t, p) {
		t.Error("requests were published while the breaker was open, want them to wait in Redis")
	}
	if n := countAnswers(t, p); n > 0 {
		t.Errorf("%d answers during the outage, want none", n)
	}
	ended := time.Now()
	p.API.Reset()
	checkOnlyProbes(t, p, shut.Since.Add(learn+longest()), ended)

	await(t, p, "the breaker to close", func(s breaker.Snapshot) bool { return s.State == breaker.Closed })
	closed := time.Now()
	peertest.Eventually(t, 3*time.Second, "the backlog to flow", func() bool { return countAnswers(t, p) > 0 })
	peertest.Eventually(t, 15*time.Second, "the backlog to be answered", func() bool { return countAnswers(t, p) >= traffic.count() })
	t.Logf("down for %v with %d probes; closed %v after the API was back; %d requests answered within %v",
		ended.Sub(began).Round(time.Second), probes, closed.Sub(ended).Round(time.Millisecond), traffic.count(), time.Since(closed).Round(time.Millisecond))
	traffic.checkAnswers(t)
	checkNoLetters(t, p)
	peertest.Eventually(t, 10*time.Second, "nothing pending, parked or open", func() bool { return settled(t, p) })
}

const write = `{"appointmentData":{"patientId":"7"}}`

// traffic is what was asked. It is safe for concurrent use.
type traffic struct {
	p     *local.Pipeline
	every time.Duration

	mu     sync.Mutex
	writes []string
	ids    []string
}

// send sends one request more.
func (f *traffic) send(t *testing.T, action, params string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := fmt.Sprintf("r-%04d", len(f.ids))
	f.ids = append(f.ids, id)
	if params == write {
		f.writes = append(f.writes, id)
	}
	if err := f.p.Redis.XAdd(t.Context(), &redis.XAddArgs{Stream: f.p.Keys.Requests(), Values: flat(id, action, params)}).Err(); err != nil {
		t.Errorf("XADD %s: %v", id, err)
	}
}

func (f *traffic) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ids)
}

// begin sends reads steadily until the function that it returns is called, which
// waits for the last.
func (f *traffic) begin(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(f.every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				f.send(t, "getHealthStatus", `{}`)
			}
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// checkAnswers checks that each request has one answer, a success, and that each
// write was made once.
func (f *traffic) checkAnswers(t *testing.T) {
	t.Helper()
	got := map[string]int{}
	for _, a := range readAnswers(t, f.p) {
		got[a.RequestID]++
		if a.ErrorCode != "" {
			t.Errorf("%s was answered with errorCode %q, want success", a.RequestID, a.ErrorCode)
		}
	}
	for _, id := range f.ids {
		if got[id] != 1 {
			t.Errorf("%s has %d answers, want 1", id, got[id])
		}
	}
	for _, id := range f.writes {
		if n := f.p.API.Executions(id); n != 1 {
			t.Errorf("write %s was executed %d times, want once", id, n)
		}
	}
	if err := f.p.API.JournalErr(); err != nil {
		t.Error(err)
	}
}

// await waits for a state of the breaker and returns it.
func await(t *testing.T, p *local.Pipeline, what string, ok func(breaker.Snapshot) bool) breaker.Snapshot {
	t.Helper()
	b := breaker.New(p.Redis, p.Keys, breaker.Config{})
	var s breaker.Snapshot
	peertest.Eventually(t, 30*time.Second, what, func() bool {
		var err error
		if s, err = b.State(t.Context()); err != nil {
			t.Fatalf("State() = %v", err)
		}
		return ok(s)
	})
	return s
}

// outageLength is how long the API is down at least.
func outageLength(t *testing.T) time.Duration {
	t.Helper()
	length := 12 * time.Second
	if os.Getenv(longRuns) != "" {
		length = time.Minute
	}
	t.Logf("an outage of %v; with %s=1 it is 1m0s", length, longRuns)
	return length
}

// awaitProbes waits until the outage has lasted long enough and a probe has
// failed. It returns how many probes there were.
func awaitProbes(t *testing.T, p *local.Pipeline, began time.Time, lasts time.Duration) int {
	t.Helper()
	probes := 0
	peertest.Eventually(t, lasts+30*time.Second, "a probe, and the end of the outage", func() bool {
		probes = 0
		for _, e := range p.API.Journal() {
			if isProbe(e) {
				probes++
			}
		}
		return probes > 0 && time.Since(began) >= lasts
	})
	if most := int(time.Since(began)/(10*time.Second)) + 1; probes > most {
		t.Errorf("%d probes in %v, want at most one every 10s", probes, time.Since(began))
	}
	return probes
}

func isProbe(e phptest.Entry) bool { return e.RequestID == "probe" }

// learn is how long calls may go on once the breaker is open: an instance uses what
// it knows for 250 ms, and while it asks again for 500 ms more; then the call has
// to get to the API.
const learn = time.Second

// checkOnlyProbes checks what the API saw from when all knew that the breaker was
// open until the end of the outage.
func checkOnlyProbes(t *testing.T, p *local.Pipeline, known, ended time.Time) {
	t.Helper()
	late := map[string]int{}
	for _, e := range p.API.Journal() {
		if e.Time.After(known) && e.Time.Before(ended) && !isProbe(e) {
			late[e.Action]++
		}
	}
	if len(late) > 0 {
		t.Errorf("calls that reached the API although the breaker was known to be open: %v, want probes only", late)
	}
}

// nothingPublished reports whether no request is open: all that is not answered
// waits in Redis.
func nothingPublished(t *testing.T, p *local.Pipeline) bool {
	t.Helper()
	lanes, err := p.Redis.SMembers(t.Context(), p.Keys.Lanes()).Result()
	if err != nil {
		t.Fatalf("SMEMBERS: %v", err)
	}
	for _, lane := range lanes {
		if p.Redis.ZCard(t.Context(), p.Keys.Open(lane)).Val() > 0 {
			return false
		}
	}
	parked, err := p.Redis.XPending(t.Context(), p.Keys.Requests(), tebra.GroupParked).Result()
	return err == nil && parked.Count > 0
}

// countLetters counts the dead letters that an operator would find.
func countLetters(t *testing.T, p *local.Pipeline) int {
	t.Helper()
	subs, err := pubsub.NewSubscriptionAdminClient(t.Context(), publish.ClientOptions(p.Info.PubSubEmulator)...)
	if err != nil {
		t.Fatalf("subscriber client: %v", err)
	}
	defer subs.Close()
	name := "projects/" + p.Info.Project + "/subscriptions/" + p.Info.InspectSubscription
	pulled, err := subs.Pull(t.Context(), &pubsubpb.PullRequest{
		Subscription: name, MaxMessages: 100,
		//lint:ignore SA1019 there is no other way to ask what is there now
		ReturnImmediately: true,
	})
	if err != nil {
		t.Fatalf("Pull: %v", err)
	}
	return len(pulled.GetReceivedMessages())
}

// TestARequestThatAlwaysFailsEndsAsADeadLetter sends requests that fail at every
// call, by themselves. The breaker can't tell one that is alone from an outage,
// but it has to end all the same.
func TestARequestThatAlwaysFailsEndsAsADeadLetter(t *testing.T) {
	t.Parallel()
	// A message is delivered ten times. One that comes back to its lane, because the
	// breaker opened, was called fewer times than that, and is a new message then,
	// which is delivered ten times.
	const most = 9 + 10
	for _, test := range []struct {
		name            string
		poison, healthy int
	}{
		{"alone", 1, 0},
		{"two that open the breaker together", 2, 0},
		{"among healthy ones", 2, 100},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			opts := local.DefaultOptions()
			opts.MinBackoff, opts.MaxBackoff = local.FastMinBackoff, local.FastMaxBackoff
			p := startPipeline(t, opts)
			for i := range test.poison {
				send(t, p, fmt.Sprintf("poison-%d", i), "health", `{"_behave":"500"}`)
			}
			for i := range test.healthy {
				send(t, p, fmt.Sprintf("healthy-%d", i), "getHealthStatus", `{}`)
			}
			answers := func() bool { return countAnswers(t, p) >= test.poison+test.healthy }
			peertest.Eventually(t, 45*time.Second, "all answers", answers)
			for _, a := range readAnswers(t, p) {
				want := tebra.ErrorCode("")
				if strings.HasPrefix(a.RequestID, "poison") {
					want = tebra.DeadLettered
				}
				if a.ErrorCode != want {
					t.Errorf("%s was answered with errorCode %q, want %q", a.RequestID, a.ErrorCode, want)
				}
			}
			calls := map[string]int{}
			for _, e := range p.API.Journal() {
				calls[e.RequestID]++
			}
			for i := range test.poison {
				if id := fmt.Sprintf("poison-%d", i); calls[id] < 5 || calls[id] > most {
					t.Errorf("%s was called %d times, want 5 to %d", id, calls[id], most)
				}
			}
			if got := countLetters(t, p); got != test.poison {
				t.Errorf("%d dead letters, want %d", got, test.poison)
			}
			peertest.Eventually(t, 10*time.Second, "nothing pending, parked or open", func() bool { return settled(t, p) })
			if n := countAnswers(t, p); n != test.poison+test.healthy {
				t.Errorf("%d answers in the end, want %d", n, test.poison+test.healthy)
			}
		})
	}
}
