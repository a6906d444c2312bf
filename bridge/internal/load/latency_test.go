package load

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tebraproxy/bridge/internal/fleet"
)

// benchPolicy lets everybody do what is measured, in the lane without a rate.
const benchPolicy = `
version: 1
actions:
  getHealthStatus: {roles: [staff]}
users:
  source: static
  accounts:
    u-anna: {roles: [staff]}
`

// readOf returns requests that read something, which the API answers after a time.
func readOf(series string, apiTakes time.Duration) func(n int) []string {
	return func(n int) []string {
		return []string{
			"id", fmt.Sprintf("%s-%d", series, n), "action", "getHealthStatus", "userId", soakUser,
			"params", fmt.Sprintf(`{"n":%d,"_behave":"latency=%v,ok"}`, n, apiTakes),
		}
	}
}

// The ways in which requests reach the API.
const (
	wayAlone = "API alone"   // called by the driver
	wayBare  = "bare worker" // as many calls at a time as it likes
	waySeed  = "bare worker, one at a time"
	wayOurs  = "this system"
)

// bareCalls is how many calls the faster of the bare workers makes at a time: as
// many as the local Pub/Sub pushes.
const bareCalls = 100

// grid are the quantiles that are kept.
var grid = []float64{0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1}

// distribution is what one way took at one rate.
type distribution struct {
	Way      string    `json:"way"`
	Rate     float64   `json:"rate"`     // requests a second
	Requests int       `json:"requests"` // sent
	Answered int       `json:"answered"`
	LateMS   float64   `json:"lateMs"` // the most that one was sent too late
	MS       []float64 `json:"ms"`     // by latencyResult.Quantiles
}

// latencyResult is what TestLatencyAdded measures.
type latencyResult struct {
	APIMS         float64        `json:"apiMs"`
	Quantiles     []float64      `json:"quantiles"`
	Distributions []distribution `json:"distributions"`
}

// TestLatencyAdded measures, at some rates, how long it takes until the answer can be
// read: from the API alone, through a bare worker, through this system.
func TestLatencyAdded(t *testing.T) {
	needProc(t)
	const apiTakes = 20 * time.Millisecond
	rates, length := []float64{10, 100, 1000}, *latencyFor
	if length == 0 {
		rates, length = []float64{20}, 500*time.Millisecond
		t.Log("a moment, to see that it works; ask for more with -load.latency 15s")
	}
	f := startBench(t, fleet.Config{Pump: true, Bridges: 1, Processors: 1, Recorders: 1})
	result := latencyResult{APIMS: milliseconds(apiTakes), Quantiles: grid}
	for i, rate := range rates {
		ways := []string{wayAlone, wayBare, wayOurs}
		if i == 0 {
			ways = append(ways, waySeed) // at more, it falls behind
		}
		for _, way := range ways {
			l := &latency{t: t, fleet: f, way: way, rate: rate, apiTakes: apiTakes}
			end := l.begin()
			l.measure(length/10, fmt.Sprintf("warm-%d-%s", i, strings.ReplaceAll(way, " ", "")))
			d := l.measure(length, fmt.Sprintf("run-%d-%s", i, strings.ReplaceAll(way, " ", "")))
			end()
			if d.Answered != d.Requests {
				t.Errorf("%s at %v/s: %d of %d requests are answered", way, rate, d.Answered, d.Requests)
			}
			result.Distributions = append(result.Distributions, d)
		}
	}
	t.Log("\n" + result.table())
	write(t, "latency.json", result)
}

// startBench starts a fleet for measuring, with production's deadlines.
func startBench(t *testing.T, cfg fleet.Config) *fleet.Fleet {
	t.Helper()
	cfg.Dir, cfg.Policy, cfg.Direct = logs(t), benchPolicy, true
	return fleet.Start(t, cfg)
}

// latency measures one way at one rate.
type latency struct {
	t        *testing.T
	fleet    *fleet.Fleet
	way      string
	rate     float64
	apiTakes time.Duration
}

// begin starts what the way needs beside the fleet. The caller calls end.
func (l *latency) begin() (end func()) {
	l.t.Helper()
	atATime := 0
	switch l.way {
	case wayBare:
		atATime = bareCalls
	case waySeed:
		atATime = 1
	default:
		return func() {}
	}
	worker := startBare(l.t, l.fleet, atATime)
	return func() {
		if err := worker.Stop(); err != nil {
			l.t.Error(err)
		}
	}
}

func (l *latency) measure(length time.Duration, series string) distribution {
	l.t.Helper()
	n := max(10, int(l.rate*length.Seconds()))
	c := newClient(l.fleet.Client, l.fleet.Keys, series, n, readOf(series, l.apiTakes))
	var err error
	switch l.way {
	case wayAlone:
		err = l.alone(c)
	case wayOurs:
		err = l.throughStreams(c)
	default:
		c.keys = bareKeys(l.t)
		err = l.throughStreams(c)
	}
	if err != nil {
		l.t.Errorf("%s at %v/s: %v", l.way, l.rate, err)
	}
	sorted := c.latencies(0, n)
	d := distribution{Way: l.way, Rate: l.rate, Requests: n, Answered: len(sorted), LateMS: milliseconds(c.late)}
	for _, q := range grid {
		d.MS = append(d.MS, milliseconds(quantile(sorted, q)))
	}
	return d
}

func (l *latency) throughStreams(c *client) error {
	ctx, hush := context.WithCancel(l.t.Context())
	defer hush()
	heard, err := c.listen(ctx, nil)
	if err != nil {
		return err
	}
	if err := c.send(ctx, l.rate, 1); err != nil {
		return err
	}
	if err := c.await(ctx, c.size(), 2*time.Minute); err != nil {
		return err
	}
	hush()
	return heard()
}

// alone calls the API as the function would.
func (l *latency) alone(c *client) error {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: bareCalls}}
	defer client.CloseIdleConnections()
	late, err := openLoop(l.t.Context(), c.size(), l.rate, 1, func(n int) error {
		f := fieldMap(c.fields(n))
		began := time.Now()
		_, err := callAPI(l.t.Context(), client, l.fleet.APIURL, l.fleet.APIKey, f["action"], f["params"])
		if err != nil {
			return err
		}
		c.took[n].Store(int64(time.Since(began)))
		c.seen[n].Add(1)
		return nil
	})
	c.late = late
	return err
}

// shown are the quantiles that tables have.
var shown = []float64{0.5, 0.9, 0.99, 1}

// at returns a quantile.
func (r latencyResult) at(d distribution, q float64) float64 {
	for i, have := range r.Quantiles {
		if have == q {
			return d.MS[i]
		}
	}
	return -1
}

// table shows what each way took, and what it added to the API's own time at the same
// rate.
func (r latencyResult) table() string {
	var out strings.Builder
	fmt.Fprintf(&out, "The API takes %v ms. In ms; in brackets, what is added to the API alone.\n\n", r.APIMS)
	out.WriteString("| requests/s | way | requests | p50 | p90 | p99 | max |\n|---|---|---|---|---|---|---|\n")
	alone := map[float64]distribution{}
	for _, d := range r.Distributions {
		if d.Way == wayAlone {
			alone[d.Rate] = d
		}
	}
	for _, d := range r.Distributions {
		fmt.Fprintf(&out, "| %v | %s | %d |", d.Rate, d.Way, d.Requests)
		for _, q := range shown {
			fmt.Fprintf(&out, " %.1f", r.at(d, q))
			if d.Way != wayAlone {
				fmt.Fprintf(&out, " (%+.1f)", r.at(d, q)-r.at(alone[d.Rate], q))
			}
			out.WriteString(" |")
		}
		out.WriteString("\n")
	}
	return out.String()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// write puts a result into the directory of results.
func write(t *testing.T, name string, result any) {
	t.Helper()
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(results(t), name)
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
