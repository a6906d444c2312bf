package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"tebraproxy/bridge/internal/fleet"
	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/stream"
)

var (
	requests = flag.Int("chaos.requests", 0, "how many requests to send, 2000 for a short run of a minute; 0 makes no run")
	pubsub   = flag.String("chaos.pubsub", "pump", "pump (the local Pub/Sub) or emulator (Google's, which loses messages; see the package's documentation)")
	seed     = flag.Uint64("chaos.seed", 0, "run this seed only; 0 is a fixed one, then a random one")
	rate     = flag.Int("chaos.rate", 0, "requests sent a second; 0 is what suits the Pub/Sub")
	keep     = flag.Bool("chaos.keep", false, "keep the logs of a run that passes, too")
)

func TestMain(m *testing.M) { fleet.Main(m) }

// fixedSeed is that of the run that is always made.
const fixedSeed = 20261123

// TestPromisesHoldUnderFaults is the chaos run; doc.go says what it does.
func TestPromisesHoldUnderFaults(t *testing.T) {
	if *requests == 0 {
		t.Skip("it takes minutes and both processors: ask for it with -chaos.requests 2000")
	}
	if *pubsub != "emulator" && *pubsub != "pump" {
		t.Fatalf("-chaos.pubsub is %q: want emulator or pump", *pubsub)
	}
	seeds := map[string]uint64{"fixed": fixedSeed, "random": rand.Uint64N(1_000_000_000)}
	if *seed != 0 {
		seeds = map[string]uint64{"given": *seed}
	}
	for _, name := range []string{"fixed", "random", "given"} {
		if s, ok := seeds[name]; ok {
			t.Run(name+" seed", func(t *testing.T) { chaos(t, s) })
		}
	}
}

// ledgerLease is one of the shortened deadlines, which nest as production's do.
const ledgerLease = 15 * time.Second

// ackDeadline is that of the subscriptions. With Google's emulator it is production's:
// the emulator counts the time for which a message waits for one of its two push
// threads.
func ackDeadline() time.Duration {
	if *pubsub == "pump" {
		return 10 * time.Second
	}
	return 120 * time.Second
}

var environ = []string{
	"PHP_TIMEOUT=1s", "RATE_WAIT=2500ms", "HANDLER_TIMEOUT=9s", "ACK_DEADLINE=10s", "LEDGER_LEASE=15s", "LEDGER_TTL=48h",
	"MAX_IN_FLIGHT=100", "CLAIM_IDLE=3s", "ANSWER_DEADLINE=2h", "RETENTION=24h", fmt.Sprintf("MAX_REQUEST_BYTES=%d", maxRequestBytes),
}

// rules is how the API misbehaves. 5% fail, 2% hang past the timeout, 1% are
// executed and then lose their connection; half of the first two are executed
// too.
var rules = []phptest.Rule{
	{Do: "500", Probability: 0.025}, {Do: "act-500", Probability: 0.025},
	{Do: "hang", Probability: 0.01}, {Do: "act-hang", Probability: 0.01},
	{Do: "act-drop", Probability: 0.01},
	{Do: "throttle", Probability: 0.02}, {Do: "throttle-503", Probability: 0.005},
	{Do: "429,retry-after=1", Probability: 0.001},
	{Do: "half", Probability: 0.003}, {Do: "text", Probability: 0.003},
	{Do: "latency=10ms,ok", Probability: 0.1},
}

// chaos makes one run.
func chaos(t *testing.T, seed uint64) {
	dir := logDir(t)
	t.Logf("seed %d, %d requests; logs in %s", seed, *requests, dir)
	rng := func(use uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, use)) }
	all := plan(rng(1), *requests)
	f := fleet.Start(t, fleet.Config{
		Dir: dir, Pump: *pubsub == "pump",
		RedisArgs: []string{"--appendonly", "yes", "--appendfsync", "always"},
		Bridges:   2, Processors: 3, Recorders: 1,
		Policy: policyText, Rules: rules, Seed: seed, Journal: true, Environ: environ,
		MinBackoff: 200 * time.Millisecond, MaxBackoff: 3 * time.Second, MaxAttempts: 10, AckDeadline: ackDeadline(),
	})
	began := time.Now()
	faults := newSchedule(t, f, rng(2), time.Second)
	s := &sender{rdb: f.Client, keys: f.Keys}
	breakAndSend(t, faults, s, all)
	c := settle(t, f, all, faults, dir)
	c.check()
	for _, name := range leaks(t, dir, "journal.jsonl", "policy.yaml") {
		c.fail("no contents in logs", name)
	}
	t.Log(c.figures(time.Since(began), faults.log))
	if found := c.found; len(found) > 0 {
		t.Errorf("seed %d, logs in %s:\n%s", seed, dir, c.explain(found, faults.log))
	}
}

// logDir returns a directory that stays when the test fails.
func logDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() && !*keep {
			_ = os.RemoveAll(dir) // it is in the temporary directory
		}
	})
	return dir
}

// sendRate is how many requests are sent a second: what two processors can take
// with all that breaks, and what the emulator's two push threads can, some of whose
// pushes hang.
func sendRate() int {
	switch {
	case *rate > 0:
		return *rate
	case *pubsub == "pump":
		return 100
	default:
		return 25
	}
}

// outageLength is a minute in a long run.
func outageLength() time.Duration {
	return min(time.Minute, time.Duration(*requests)*3*time.Millisecond)
}

// breakAndSend sends everything while parts are broken, with an outage of the API
// in the middle.
func breakAndSend(t *testing.T, faults *schedule, s *sender, all []planned) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		s.send(ctx, all, sendRate())
	})
	wg.Go(func() {
		for ctx.Err() == nil && s.sent.Load() < int64(len(all))*2/5 {
			pause(ctx, 20*time.Millisecond)
		}
		faults.outage(outageLength())
	})
	faults.run(ctx)
	wg.Wait()
	if got := s.sent.Load(); got != int64(len(all)) {
		t.Fatalf("%d of %d requests were sent", got, len(all))
	}
}

// settleTimeout is how long the last request may take once nothing is broken any
// more: some leases, and the whole retry policy.
func settleTimeout() time.Duration {
	return 2*time.Minute + time.Duration(*requests/1000)*2*time.Second
}

// settle waits until nothing waits any more and all is answered, and then a little
// longer, to see that nothing more comes; or until time is up, which the check
// explains.
func settle(t *testing.T, f *fleet.Fleet, all []planned, faults *schedule, dir string) *checker {
	t.Helper()
	const quiet = 3 * time.Second
	st := stream.New(f.Client, f.Keys)
	deadline := time.Now().Add(settleTimeout())
	last, since := "", time.Now()
	for time.Now().Before(deadline) {
		w, err := st.Waiting(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		counts, busy := progress(t, f)
		if now := fmt.Sprint(w, counts); now != last {
			last, since = now, time.Now()
		}
		if w.Idle() && busy == 0 && time.Since(since) > quiet {
			break
		}
		pause(t.Context(), 100*time.Millisecond)
	}
	for _, p := range f.Parts() {
		if !p.Running() {
			t.Errorf("%s has ended by itself (%s); its log is %s", p.Name(), p.Exit(), p.LogFile())
		}
	}
	faults.note("all is settled, or time is up")
	return newChecker(gather(t, f, all, dir))
}

// progress returns what changes while anything happens, and how many entries are
// open.
func progress(t *testing.T, f *fleet.Fleet) (counts string, open int64) {
	t.Helper()
	ctx := t.Context()
	lanes, err := f.Client.SMembers(ctx, f.Keys.Lanes()).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, lane := range lanes {
		n, err := f.Client.ZCard(ctx, f.Keys.Open(lane)).Result()
		if err != nil {
			t.Fatal(err)
		}
		open += n
	}
	var out strings.Builder
	for _, key := range []string{f.Keys.Responses(), f.Keys.Status()} {
		n, err := f.Client.XLen(ctx, key).Result()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(&out, n, " ")
	}
	return out.String(), open
}
