package load

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sync/errgroup"

	"tebraproxy/bridge/internal/fleet"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// drain is how bridges took what was waiting.
type drain struct {
	Bridges int `json:"bridges"`
	Waiting int `json:"waiting"`
	// Rate is the entries a second, First and Last while the first and the last fifth
	// was taken.
	Rate  float64 `json:"rate"`
	First float64 `json:"firstFifth"`
	Last  float64 `json:"lastFifth"`
	// Seconds is how long it took with the bridges' start, to which Cores belong.
	Seconds float64 `json:"seconds"`
	// Memory is the most that a bridge had, RedisBefore what Redis had with all waiting.
	Memory      int64              `json:"bridgeBytes"`
	RedisBefore int64              `json:"redisBytes"`
	Cores       map[string]float64 `json:"cores"`
}

// backlogResult is what TestBacklog measures.
type backlogResult struct {
	Machine string  `json:"machine"`
	Drains  []drain `json:"drains"`
	// EndToEnd is what is answered with so many waiting.
	EndToEnd []waiting `json:"endToEnd"`
}

type waiting struct {
	Waiting int     `json:"waiting"`
	Phase   string  `json:"phase"`
	Seconds float64 `json:"seconds"`
	flow
	Memory int64 `json:"bridgeBytes"`
	Redis  int64 `json:"redisBytes"`
}

// TestBacklog lets much wait, and measures how fast bridges alone publish it, and how
// fast it is answered while most of it still waits.
func TestBacklog(t *testing.T) {
	needProc(t)
	much := *backlog
	few, bridges := much/10, []int{1, 2, 4}
	if much == 0 {
		much, few, bridges = 4000, 2000, []int{2}
		t.Log("a few thousand entries, to see that it works; ask for more with -load.backlog 1000000")
	}
	result := backlogResult{Machine: machineText()}
	drains := []drain{{Bridges: 1, Waiting: much}}
	if much > few*2 {
		drains = append(drains, drain{Bridges: 1, Waiting: few})
	}
	for _, n := range bridges {
		drains = append(drains, drain{Bridges: n, Waiting: much / 5})
	}
	for _, d := range drains {
		t.Run(fmt.Sprintf("%d bridges drain %d", d.Bridges, d.Waiting), func(t *testing.T) {
			result.Drains = append(result.Drains, publishAll(t, d.Bridges, d.Waiting))
		})
	}
	for _, n := range []int{few, much} {
		t.Run(fmt.Sprintf("answered while %d wait", n), func(t *testing.T) {
			result.EndToEnd = append(result.EndToEnd, answeredWhile(t, n)...)
		})
	}
	t.Log("\n" + result.table())
	write(t, "backlog.json", result)
}

// publishAll lets bridges publish n entries to a topic that has no subscription.
func publishAll(t *testing.T, bridges, n int) drain {
	t.Helper()
	f := startBench(t, fleet.Config{Pump: true, Bridges: bridges, Processors: 1, Recorders: 1, Environ: []string{"MAX_IN_FLIGHT=1000000"}})
	unsubscribe(t, f)
	start := stopBridges(t, f)
	c := newClient(f.Client, f.Keys, "backlog", n, readOf("backlog", 0))
	if err := c.addAll(); err != nil {
		t.Fatal(err)
	}
	d := drain{Bridges: bridges, Waiting: n, RedisBefore: redisMemory(t, f)}
	all := processes(t, f)
	for _, p := range f.Bridges {
		delete(all, p.Name()) // they begin with nothing
	}
	m, began := startMeter(t, all), time.Now()
	started := make(chan error, 1)
	go func() { started <- start() }()
	var at [6]time.Time // when each fifth was taken; the first, when any was
	for fifths := 0; fifths < len(at); {
		taken := admitted(t, f)
		for ; fifths < len(at) && taken > 0 && taken >= n/5*fifths; fifths++ {
			at[fifths] = time.Now()
		}
		if time.Since(began) > 3*time.Minute {
			t.Fatalf("after 3 minutes %d of %d entries are taken", taken, n)
		}
		if started == nil {
			d.Memory = max(d.Memory, memoryOf(t, f.Bridges))
		}
		select {
		case err := <-started:
			started = nil
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(5 * time.Millisecond):
		}
	}
	if started != nil {
		if err := <-started; err != nil {
			t.Fatal(err)
		}
	}
	d.Memory = max(d.Memory, memoryOf(t, f.Bridges))
	d.Cores, d.Seconds = m.stop(), round(time.Since(began).Seconds())
	for _, p := range f.Bridges {
		d.Cores[p.Name()] = round(usageNow(t, p).CPU.Seconds() / d.Seconds)
	}
	rate := func(from, until int) float64 {
		return round(float64(n/5*(until-from)) / max(at[until].Sub(at[from]), 5*time.Millisecond).Seconds())
	}
	d.Rate, d.First, d.Last = rate(0, 5), rate(0, 1), rate(4, 5)
	return d
}

// unsubscribe deletes the push subscription of requests.
func unsubscribe(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := f.Subscriptions(t).DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: f.PushSubscription()}); err != nil {
		t.Fatal(err)
	}
}

// admitted returns how many entries bridges have taken, where none is answered.
func admitted(t *testing.T, f *fleet.Fleet) int {
	t.Helper()
	n, err := f.Client.ZCard(t.Context(), f.Keys.Open(tebra.DefaultLane)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

func usageNow(t *testing.T, p *peertest.Process) usage {
	t.Helper()
	u, err := usageOf(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// memoryOf returns the most that one of the processes has.
func memoryOf(t *testing.T, all []*peertest.Process) (most int64) {
	t.Helper()
	for _, p := range all {
		most = max(most, usageNow(t, p).RSS)
	}
	return most
}

func redisMemory(t *testing.T, f *fleet.Fleet) int64 {
	t.Helper()
	n, err := infoNumber(t.Context(), f.Client, "memory", "used_memory")
	if err != nil {
		t.Fatal(err)
	}
	return int64(n)
}

// answeredWhile measures how fast requests are answered while n wait that were there
// before: at first, while the bridge reads all of them and parks what has no room, so
// that what comes after them in another lane is not held up; and then.
func answeredWhile(t *testing.T, n int) []waiting {
	t.Helper()
	f := startBench(t, fleet.Config{Pump: true, Bridges: 1, Processors: 1, Recorders: 1})
	start := stopBridges(t, f)
	c := newClient(f.Client, f.Keys, "backlog", n, readOf("backlog", 0))
	listening, hush := context.WithCancel(t.Context())
	defer hush()
	heard, err := c.listen(listening, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.addAll(); err != nil {
		t.Fatal(err)
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	measure := func(phase string, until func() bool) waiting {
		m, began, before := startMeter(t, processes(t, f)), time.Now(), c.answered.Load()
		for !until() {
			if time.Since(began) > 3*time.Minute {
				t.Fatalf("after 3 minutes %d requests are answered", c.answered.Load())
			}
			sleepUntil(t.Context(), time.Now().Add(20*time.Millisecond))
		}
		w := waiting{Waiting: n, Phase: phase, Seconds: round(time.Since(began).Seconds()), Memory: memoryOf(t, f.Bridges), Redis: redisMemory(t, f)}
		w.Way, w.PubSub = wayOurs, "local"
		w.Rate, w.Cores = float64(c.answered.Load()-before)/time.Since(began).Seconds(), m.stop()
		return w
	}
	st := stream.New(f.Client, f.Keys)
	parking := measure("parking", func() bool {
		w, err := st.Waiting(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return !w.Unread
	})
	upTo := min(int64(n), c.answered.Load()+enough)
	then := measure("parked", func() bool { return c.answered.Load() >= upTo })
	hush()
	if err := heard(); err != nil {
		t.Error(err)
	}
	return []waiting{parking, then}
}

// enough answers show a rate.
const enough = 20_000

func (r backlogResult) table() string {
	var out strings.Builder
	out.WriteString(r.Machine + "\n\n| bridges | entries | entries/s | first fifth | last fifth | MiB of a bridge | MiB of Redis | µs bridge | µs Redis | others, cores |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, d := range r.Drains {
		bridges, each := 0.0, 1e6*d.Seconds/float64(d.Waiting)
		for name, v := range d.Cores {
			if strings.HasPrefix(name, "bridge") {
				bridges += v
			}
		}
		fmt.Fprintf(&out, "| %d | %d | %.0f | %.0f | %.0f | %.0f | %.0f | %.1f | %.1f | %.2f |\n", d.Bridges, d.Waiting, d.Rate,
			d.First, d.Last, mib(d.Memory), mib(d.RedisBefore), each*bridges, each*d.Cores["redis"], d.Cores["others"])
	}
	out.WriteString("\n| entries waiting | phase | seconds | MiB of a bridge | MiB of Redis | answered/s | " + flowColumns + "\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, w := range r.EndToEnd {
		fmt.Fprintf(&out, "| %d | %s | %.1f | %.0f | %.0f | %.0f | %s |\n", w.Waiting, w.Phase, w.Seconds, mib(w.Memory), mib(w.Redis), w.Rate, w.cells())
	}
	return out.String()
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// stopBridges stops the bridges; the returned function starts them again, all at
// once.
func stopBridges(t *testing.T, f *fleet.Fleet) (start func() error) {
	t.Helper()
	for _, p := range f.Bridges {
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	return func() error {
		var g errgroup.Group
		for _, p := range f.Bridges {
			g.Go(func() error { return p.Start(t.Context()) })
		}
		return g.Wait()
	}
}
