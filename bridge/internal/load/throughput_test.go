package load

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tebraproxy/bridge/internal/fleet"
)

// flow is what one way carries when there is always more.
type flow struct {
	Way    string  `json:"way"`
	PubSub string  `json:"pubsub,omitempty"`
	APIMS  float64 `json:"apiMs"`
	// Bridges and Processors are how many processes there are, where that is varied.
	Bridges    int     `json:"bridges,omitempty"`
	Processors int     `json:"processors,omitempty"`
	Rate       float64 `json:"rate"` // answered a second
	// Cores is how much each process used, 1 for a whole core. "others" is what is left
	// of the machine's, and "idle" what nobody used.
	Cores map[string]float64 `json:"cores"`
}

// warmUp is how long a flow runs before it is measured.
const warmUp = 2 * time.Second

// carries measures how much a client's way carries, for a time, with so many requests
// unanswered at a time. What is unanswered then is waited for.
func carries(t *testing.T, c *client, unanswered int, length time.Duration, processes map[string]int) flow {
	t.Helper()
	listening, hush := context.WithCancel(t.Context())
	defer hush()
	heard, err := c.listen(listening, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return c.keepWaiting(ctx, unanswered) })
	warm := min(warmUp, length)
	sleepUntil(ctx, time.Now().Add(warm))
	m := startMeter(t, processes)
	before, began := c.answered.Load(), time.Now()
	sleepUntil(ctx, began.Add(length))
	f := flow{Rate: float64(c.answered.Load()-before) / time.Since(began).Seconds(), Cores: m.stop()}
	stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if err := c.await(t.Context(), int(c.added.Load()), time.Minute); err != nil {
		t.Error(err)
	}
	hush()
	if err := heard(); err != nil {
		t.Error(err)
	}
	return f
}

// meter measures what processes use.
type meter struct {
	t         *testing.T
	processes map[string]int // IDs
	began     time.Time
	used      map[string]time.Duration
	machine   machine
}

func startMeter(t *testing.T, processes map[string]int) *meter {
	t.Helper()
	m := &meter{t: t, processes: maps.Clone(processes)}
	m.processes["driver"] = os.Getpid()
	m.used, m.machine, m.began = m.read(), machineTimes(t), time.Now()
	return m
}

func (m *meter) read() map[string]time.Duration {
	m.t.Helper()
	used := map[string]time.Duration{}
	for name, pid := range m.processes {
		u, err := usageOf(pid)
		if err != nil {
			m.t.Fatal(err)
		}
		used[name] = u.CPU
	}
	return used
}

// stop returns how much each used, in cores.
func (m *meter) stop() map[string]float64 {
	m.t.Helper()
	used, now, took := m.read(), machineTimes(m.t), time.Since(m.began).Seconds()
	cores := map[string]float64{}
	left := (now.busy - m.machine.busy).Seconds()
	for name := range m.processes {
		s := (used[name] - m.used[name]).Seconds()
		left -= s
		cores[name] = round(s / took)
	}
	cores["others"] = round(max(0, left) / took)
	cores["idle"] = round((now.idle - m.machine.idle).Seconds() / took)
	return cores
}

func round(v float64) float64 { return float64(int(v*1000+0.5)) / 1000 }

// machine is what all cores together have done.
type machine struct{ busy, idle time.Duration }

// machineTimes reads the first line of /proc/stat (proc(5)).
func machineTimes(t *testing.T) machine {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	var user, nice, system, idle, iowait, irq, softirq, steal int64
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		t.Fatalf("/proc/stat: %v", err)
	}
	return machine{
		busy: time.Duration(user+nice+system+irq+softirq+steal) * clockTick,
		idle: time.Duration(idle+iowait) * clockTick,
	}
}

// processes returns the IDs of f's, those of one kind under one name each.
func processes(t *testing.T, f *fleet.Fleet) map[string]int {
	t.Helper()
	pid, err := redisPID(t.Context(), f.Client)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{"redis": pid}
	for _, p := range f.Parts() {
		all[p.Name()] = p.PID()
	}
	return all
}

// throughputResult is what TestThroughput measures.
type throughputResult struct {
	Machine string `json:"machine"`
	Flows   []flow `json:"flows"`
}

// TestThroughput measures how many requests a second are answered, and what limits
// that, with the API answering at once and slowly: through this system with the local
// Pub/Sub and with Google's emulator, and through bare workers.
func TestThroughput(t *testing.T) {
	needProc(t)
	apis, length, emulator := []time.Duration{0, 20 * time.Millisecond, 200 * time.Millisecond}, *throughputFor, true
	if length == 0 {
		apis, length, emulator = apis[1:2], 300*time.Millisecond, false
		t.Log("a moment with the local Pub/Sub, to see that it works; ask for more with -load.throughput 10s")
	}
	result := throughputResult{Machine: machineText()}
	f := startBench(t, fleet.Config{Pump: true, Bridges: 1, Processors: 1, Recorders: 1})
	for _, api := range apis {
		result.Flows = append(result.Flows, ours(t, f, "local", 2000, api, length), bare(t, f, wayBare, bareCalls, api, length), bare(t, f, waySeed, 1, api, length))
	}
	if emulator {
		f := startBench(t, fleet.Config{Bridges: 1, Processors: 1, Recorders: 1})
		for _, api := range apis {
			result.Flows = append(result.Flows, ours(t, f, "emulator", 100, api, length))
		}
	}
	t.Log("\n" + result.table())
	write(t, "throughput.json", result)
}

// mostCarried is more than any way carries.
const mostCarried = 10_000 // requests a second

func series(way string, api time.Duration) string {
	return fmt.Sprintf("%s-%v", strings.ReplaceAll(way, " ", ""), api)
}

// ours measures this system. unanswered is how many requests it is given at a time:
// more than can be under way, and not much more, as they are waited for.
func ours(t *testing.T, f *fleet.Fleet, pubsub string, unanswered int, api, length time.Duration) flow {
	t.Helper()
	name := series(pubsub, api)
	c := newClient(f.Client, f.Keys, name, int(mostCarried*length.Seconds()), readOf(name, api))
	result := carries(t, c, unanswered, length, processes(t, f))
	result.Way, result.PubSub, result.APIMS = wayOurs, pubsub, milliseconds(api)
	return result
}

func bare(t *testing.T, f *fleet.Fleet, way string, atATime int, api, length time.Duration) flow {
	t.Helper()
	worker := startBare(t, f, atATime)
	name := series(way, api)
	c := newClient(f.Client, bareKeys(t), name, int(mostCarried*length.Seconds()), readOf(name, api))
	all := processes(t, f)
	all["bare worker"] = worker.PID()
	result := carries(t, c, 2*atATime, length, all)
	if err := worker.Stop(); err != nil {
		t.Error(err)
	}
	result.Way, result.APIMS = way, milliseconds(api)
	return result
}

// stands are the processes that stand in for what production has elsewhere.
var stands = map[string]bool{"api": true, "pubsub": true, "driver": true}

// table has a row for each flow.
func (r throughputResult) table() string {
	var out strings.Builder
	out.WriteString(r.Machine + "; µs of CPU a request\n\n| API, ms | way | requests/s | " + flowColumns + "\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range r.Flows {
		way := f.Way
		if f.PubSub != "" {
			way += ", Pub/Sub: " + f.PubSub
		}
		fmt.Fprintf(&out, "| %v | %s | %.0f | %s |\n", f.APIMS, way, f.Rate, f.cells())
	}
	return out.String()
}

// flowColumns are those of [flow.cells].
const flowColumns = "bridge | function | Redis | bare worker | stand-ins | others, cores | idle, cores |"

// cells are the CPU time a request took, in microseconds, of bridges, functions,
// Redis, a bare worker and all that stands in for something; and how many cores all
// else on the machine had meanwhile (the emulator, too), and nobody.
func (f flow) cells() string {
	sums := map[string]float64{}
	for name, v := range f.Cores {
		kind, _, _ := strings.Cut(name, "-")
		if stands[name] {
			kind = "stand-ins"
		}
		sums[kind] += v
	}
	var cells []string
	for _, kind := range []string{"bridge", "processor", "redis", "bare worker", "stand-ins"} {
		cell := "–"
		if v := sums[kind]; v > 0 {
			cell = fmt.Sprintf("%.0f", v/f.Rate*1e6)
		}
		cells = append(cells, cell)
	}
	return strings.Join(append(cells, fmt.Sprintf("%.2f", sums["others"]), fmt.Sprintf("%.2f", sums["idle"])), " | ")
}

// machineText says on what was measured, without names.
func machineText() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores, %s, %s, %s/%s", runtime.NumCPU(), model, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// scalingResult is what TestScaling measures.
type scalingResult struct {
	Machine string `json:"machine"`
	Flows   []flow `json:"flows"`
}

// concurrency is how many requests an instance of a function works on at a time, as
// it is deployed (terraform's process_concurrency).
const concurrency = 20

// TestScaling measures what 1, 2 and 4 bridges and functions carry: when the
// processors are the limit, and, where that is production's way, when the API is slow
// and each instance works on [concurrency] requests at a time.
func TestScaling(t *testing.T) {
	needProc(t)
	counts, length := []int{1, 2, 4}, *scalingFor
	if length == 0 {
		counts, length = nil, 300*time.Millisecond
		t.Log("a moment with two functions, to see that it works; ask for more with -load.scaling 10s")
	}
	const slow = 200 * time.Millisecond
	result := scalingResult{Machine: machineText()}
	measure := func(bridges, processors int, api time.Duration, pushes int) {
		t.Run(fmt.Sprintf("%d bridges, %d functions, API %v", bridges, processors, api), func(t *testing.T) {
			f := startBench(t, fleet.Config{Pump: true, Bridges: bridges, Processors: processors, Recorders: 1, MaxPushes: pushes})
			unanswered := 2000
			if pushes > 0 {
				unanswered = 4 * pushes
			}
			flow := ours(t, f, "local", unanswered, api, length)
			flow.Bridges, flow.Processors = bridges, processors
			result.Flows = append(result.Flows, flow)
		})
	}
	if counts == nil {
		measure(1, 2, slow, 2*concurrency)
	}
	for _, n := range counts {
		measure(n, 1, 0, 0)
	}
	for _, n := range counts {
		measure(1, n, 0, 0)
	}
	for _, n := range counts {
		measure(1, n, slow, n*concurrency)
	}
	t.Log("\n" + result.table())
	write(t, "scaling.json", result)
}

func (r scalingResult) table() string {
	var out strings.Builder
	out.WriteString(r.Machine + "; µs of CPU a request\n\n| bridges | functions | API, ms | requests/s | " + flowColumns + "\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range r.Flows {
		fmt.Fprintf(&out, "| %d | %d | %v | %.0f | %s |\n", f.Bridges, f.Processors, f.APIMS, f.Rate, f.cells())
	}
	return out.String()
}
