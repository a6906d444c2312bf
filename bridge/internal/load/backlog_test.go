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
	Rate    float64 `json:"rate"` // answered a second
	Memory  int64   `json:"bridgeBytes"`
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
			result.EndToEnd = append(result.EndToEnd, answeredWhile(t, n, few))
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
		lag := unread(t, f)
		for taken := n - lag; fifths < len(at) && taken > 0 && taken >= n/5*fifths; fifths++ {
			at[fifths] = time.Now()
		}
		if time.Since(began) > 3*time.Minute {
			t.Fatalf("after 3 minutes %d of %d entries wait", lag, n)
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
	d.Cores = m.stop()
	for _, p := range f.Bridges {
		d.Cores[p.Name()] = round(usageNow(t, p).CPU.Seconds() / time.Since(began).Seconds())
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

// unread returns how many entries no bridge has read.
func unread(t *testing.T, f *fleet.Fleet) int {
	t.Helper()
	w, err := stream.New(f.Client, f.Keys).Waiting(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return int(w.Lag)
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

// answeredWhile measures how fast the first few of n entries are answered, but for a
// quarter of them, which warms up.
func answeredWhile(t *testing.T, n, few int) waiting {
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
	if err := c.await(t.Context(), few/4, time.Minute); err != nil {
		t.Fatal(err)
	}
	began, before := time.Now(), c.answered.Load()
	if err := c.await(t.Context(), few, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	w := waiting{Waiting: n, Rate: float64(c.answered.Load()-before) / time.Since(began).Seconds()}
	w.Memory = memoryOf(t, f.Bridges)
	hush()
	if err := heard(); err != nil {
		t.Error(err)
	}
	return w
}

func (r backlogResult) table() string {
	var out strings.Builder
	out.WriteString(r.Machine + "\n\n| bridges | entries | entries/s | first fifth | last fifth | MiB of a bridge | MiB of Redis | bridges' cores | Redis's |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, d := range r.Drains {
		var bridges float64
		for name, v := range d.Cores {
			if strings.HasPrefix(name, "bridge") {
				bridges += v
			}
		}
		fmt.Fprintf(&out, "| %d | %d | %.0f | %.0f | %.0f | %.0f | %.0f | %.2f | %.2f |\n", d.Bridges, d.Waiting, d.Rate,
			d.First, d.Last, mib(d.Memory), mib(d.RedisBefore), bridges, d.Cores["redis"])
	}
	out.WriteString("\n| entries waiting | answered/s | MiB of a bridge |\n|---|---|---|\n")
	for _, w := range r.EndToEnd {
		fmt.Fprintf(&out, "| %d | %.0f | %.0f |\n", w.Waiting, w.Rate, mib(w.Memory))
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
