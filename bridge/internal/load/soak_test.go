package load

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tebraproxy/bridge/internal/fleet"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// The ages of a soak.
const (
	soakAge = 4 * time.Minute
	// plateauAfter is when as much goes as comes: entries are trimmed once a minute,
	// up to a minute after they are old enough.
	plateauAfter = soakAge + 2*time.Minute
	// shortestPlateau has two trims in each third.
	shortestPlateau = 6 * time.Minute
	soakSampleEvery = 10 * time.Second
)

var soakEnviron = []string{
	"PHP_TIMEOUT=2s", "RATE_WAIT=10s", "HANDLER_TIMEOUT=20s", "ACK_DEADLINE=30s", "LEDGER_LEASE=40s", "LEDGER_TTL=25h",
	"CLAIM_IDLE=30s", "ANSWER_DEADLINE=2m", fmt.Sprint("RETENTION=", soakAge),
	"OTEL_METRIC_EXPORT_INTERVAL=5000", "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01",
}

// soakRules: mostly the API works; what fails is tried again, refused, or unknown.
var soakRules = []phptest.Rule{
	{Do: "500", Probability: 0.002}, {Do: "act-drop", Probability: 0.001}, {Do: "throttle", Probability: 0.003}, {Do: "latency=10ms,ok"},
}

const soakPolicy = `
version: 1
lanes:
  appointments: {interval: 10ms, burst: 5}
  patients: {interval: 10ms, burst: 5}
  providers: {interval: 10ms, burst: 5}
  create: {interval: 10ms, burst: 5}
  update: {interval: 10ms, burst: 5}
actions:
  getHealthStatus: {roles: [staff]}
  getAppointments: {roles: [staff]}
  getPatient: {roles: [staff]}
  getProviders: {roles: [staff]}
  createAppointment: {roles: [staff]}
  updateAppointment: {roles: [staff]}
users:
  source: static
  accounts:
    u-anna: {roles: [staff]}
    u-nobody: {roles: []}
`

const soakUser = "u-anna"

// soakID is the request that the n-th entry asks for; every hundredth repeats one
// of the half second before.
func soakID(n int) string {
	if n%100 == 97 {
		n -= 90
	}
	return "soak-" + strconv.Itoa(n)
}

// soakFields is the n-th request: of a hundred, 60 have no rate, 37 are in lanes that
// have one, 12 of these change something, one of all is a repetition, one malformed
// and one not allowed.
func soakFields(n int) []string {
	user, action, params := soakUser, "getHealthStatus", fmt.Sprintf(`{"n":%d}`, n)
	switch i := n % 100; {
	case i == 97:
		params = fmt.Sprintf(`{"n":%d}`, n-90) // of a getHealthStatus
	case i == 98:
		params = "[object Object]"
	case i == 99:
		user = "u-nobody"
	case i >= 93:
		action, params = "updateAppointment", fmt.Sprintf(`{"appointmentData":{"AppointmentId":"%d"}}`, n)
	case i >= 85:
		action, params = "createAppointment", fmt.Sprintf(`{"appointmentData":{"note":"%d"}}`, n)
	case i >= 80:
		action = "getProviders"
	case i >= 70:
		action, params = "getPatient", fmt.Sprintf(`{"patientId":"%d"}`, n)
	case i >= 60:
		action, params = "getAppointments", `{"fromDate":"2026-11-23","toDate":"2026-11-24"}`
	}
	return []string{"id", soakID(n), "action", action, "params", params, "userId", user}
}

// TestSoakStaysFlat is the soak; doc.go says what it does.
func TestSoakStaysFlat(t *testing.T) {
	needProc(t)
	length, every, rate := *soakFor, soakSampleEvery, *soakAt
	if length == 0 {
		length, every, rate = 3*time.Second, time.Second, 50
		t.Log("a few seconds, to see that it works; ask for more with -load.soak 1h")
	}
	dir := results(t)
	telemetry := newCollector(t)
	f := fleet.Start(t, fleet.Config{
		Dir: logs(t), Pump: true, Bridges: 2, Processors: 2, Recorders: 1,
		Policy: soakPolicy, Rules: soakRules, Seed: 1,
		Environ:    append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + telemetry.addr}, soakEnviron...),
		MinBackoff: time.Second, MaxBackoff: 10 * time.Second, MaxAttempts: 10, AckDeadline: 30 * time.Second,
	})
	s := &soak{t: t, fleet: f, telemetry: telemetry, length: length, every: every}
	s.client = newClient(f.Client, f.Keys, "soak", int(float64(rate)*length.Seconds()), soakFields)
	s.run(float64(rate))
	if s.trace == nil {
		t.Fatal("no sample was taken")
	}
	verdict, flat := s.verdict()
	s.write(dir, verdict)
	t.Log("\n" + verdict)
	if !flat {
		t.Error("something grows: see above")
	}
}

// soak is one run.
type soak struct {
	t         *testing.T
	fleet     *fleet.Fleet
	telemetry *collector
	client    *client
	length    time.Duration
	every     time.Duration

	began    time.Time
	sent     time.Duration // how long it was sent
	redisPID int
	trace    *trace
	before   map[string]time.Duration // CPU time by process
	after    map[string]time.Duration
}

// run sends, samples, and waits until all is answered.
func (s *soak) run(rate float64) {
	t := s.t
	s.awaitTelemetry()
	var err error
	if s.redisPID, err = redisPID(t.Context(), s.fleet.Client); err != nil {
		t.Fatal(err)
	}
	listening, hush := context.WithCancel(t.Context())
	defer hush()
	shorten := &shortener{client: s.client, ttl: soakAge}
	heard, err := s.client.listen(listening, shorten.add)
	if err != nil {
		t.Fatal(err)
	}
	s.began = time.Now()
	s.before = s.cpu()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return shorten.run(listening) })
	g.Go(func() error { return s.watch(ctx) })
	g.Go(func() error {
		defer stop()
		return s.client.send(ctx, rate, 1)
	})
	<-ctx.Done()
	s.sent = time.Since(s.began)
	s.after = s.cpu()
	if err := s.client.await(t.Context(), s.client.size(), time.Minute); err != nil {
		t.Error(err)
	}
	if w, err := stream.New(s.fleet.Client, s.fleet.Keys).Waiting(t.Context()); err != nil || !w.Idle() {
		t.Errorf("when all is answered, this waits: %+v, %v, want nothing", w, err)
	}
	hush()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if err := heard(); err != nil {
		t.Error(err)
	}
	if none, several := s.client.wrong(); none+several > 0 || int(s.client.added.Load()) != s.client.size() {
		t.Errorf("of %d requests %d are on the stream, %d of these without an answer, %d with several, want one for each",
			s.client.size(), s.client.added.Load(), none, several)
	}
	for _, p := range s.fleet.Parts() {
		if !p.Running() {
			t.Errorf("%s has ended by itself (%s)", p.Name(), p.Exit())
		}
	}
}

// awaitTelemetry waits until every process was heard of, so that all samples have
// the same columns.
func (s *soak) awaitTelemetry() {
	s.t.Helper()
	want := len(s.fleet.Bridges) + len(s.fleet.Processors) + len(s.fleet.Recorders)
	deadline := time.Now().Add(30 * time.Second)
	for len(s.telemetry.counts()) < want {
		if time.Now().After(deadline) {
			s.t.Fatalf("telemetry came from %v, want %d processes", s.telemetry.counts(), want)
		}
		sleepUntil(s.t.Context(), time.Now().Add(50*time.Millisecond))
	}
}

// own are the processes that are the system's own.
func (s *soak) own() []*peertest.Process {
	own := append([]*peertest.Process{}, s.fleet.Bridges...)
	return append(append(own, s.fleet.Processors...), s.fleet.Recorders...)
}

// watch takes a sample at a time until ctx ends.
func (s *soak) watch(ctx context.Context) error {
	for due := s.began.Add(s.every); sleepUntil(ctx, due); due = due.Add(s.every) {
		sample, err := s.sample(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if s.trace == nil {
			s.trace = newTrace(sample)
		}
		if err := s.trace.add(time.Since(s.began), sample); err != nil {
			return err
		}
		if n := len(s.trace.rows); n%30 == 0 {
			s.t.Logf("%v: %d of %d answered", time.Since(s.began).Round(time.Second), s.client.answered.Load(), s.client.size())
		}
	}
	return nil
}

// sample measures everything.
func (s *soak) sample(ctx context.Context) ([]measured, error) {
	var all []measured
	for _, p := range s.own() {
		u, err := usageOf(p.PID())
		if err != nil {
			return nil, err
		}
		all = append(all, measured{p.Name() + " RSS", bytesUnit, float64(u.RSS)}, measured{p.Name() + " files", countUnit, float64(u.FDs)})
	}
	for _, c := range s.telemetry.counts() {
		all = append(all, measured{c.process + " goroutines", countUnit, float64(c.n)})
	}
	inRedis, err := s.sampleRedis(ctx)
	return append(all, inRedis...), err
}

func (s *soak) sampleRedis(ctx context.Context) ([]measured, error) {
	u, err := usageOf(s.redisPID)
	if err != nil {
		return nil, err
	}
	used, err := infoNumber(ctx, s.fleet.Client, "memory", "used_memory")
	if err != nil {
		return nil, err
	}
	keys := s.fleet.Keys
	pipe := s.fleet.Client.Pipeline()
	size := pipe.DBSize(ctx)
	requests, responses, status := pipe.XLen(ctx, keys.Requests()), pipe.XLen(ctx, keys.Responses()), pipe.XLen(ctx, keys.Status())
	inHand, parked := pipe.XPending(ctx, keys.Requests(), tebra.GroupBridge), pipe.XPending(ctx, keys.Requests(), tebra.GroupParked)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("counting in Redis: %w", err)
	}
	return []measured{
		{"redis RSS", bytesUnit, float64(u.RSS)}, {"redis memory", bytesUnit, used}, {"redis keys", entriesUnit, float64(size.Val())},
		{"entries of requests", entriesUnit, float64(requests.Val())}, {"entries of responses", entriesUnit, float64(responses.Val())},
		{"entries of status", entriesUnit, float64(status.Val())},
		{"in hand", entriesUnit, float64(inHand.Val().Count)}, {"parked", entriesUnit, float64(parked.Val().Count)},
	}, nil
}

// cpu is what all processes have used.
func (s *soak) cpu() map[string]time.Duration {
	s.t.Helper()
	used := map[string]time.Duration{}
	note := func(name string, pid int) {
		u, err := usageOf(pid)
		if err != nil {
			s.t.Fatal(err)
		}
		used[name] = u.CPU
	}
	note("redis", s.redisPID)
	note("driver and balancer", os.Getpid())
	for _, p := range s.fleet.Parts() {
		note(p.Name(), p.PID())
	}
	return used
}

// verdict says what was measured, and whether all of it stayed flat. A run that is
// too short to say so passes.
func (s *soak) verdict() (text string, flat bool) {
	var out strings.Builder
	c := s.client
	fmt.Fprintf(&out, "%d requests in %v, %.0f a second; %d answered, %d of these with an error; sent at most %v late\n",
		c.added.Load(), s.sent.Round(time.Second), float64(c.added.Load())/s.sent.Seconds(), c.answered.Load(), c.failed.Load(),
		c.late.Round(time.Microsecond))
	all := c.latencies(0, c.size())
	fmt.Fprintf(&out, "from request to answer: p50 %v, p99 %v, max %v\n", quantile(all, 0.5).Round(time.Microsecond*100),
		quantile(all, 0.99).Round(time.Microsecond*100), quantile(all, 1).Round(time.Microsecond*100))
	out.WriteString("\n| process | CPU, % of a core | CPU a request |\n|---|---|---|\n")
	for _, name := range sortedKeys(s.after) {
		used := s.after[name] - s.before[name]
		fmt.Fprintf(&out, "| %s | %.1f | %v |\n", name, 100*used.Seconds()/s.sent.Seconds(), (used / time.Duration(c.added.Load())).Round(time.Microsecond))
	}
	if s.length < plateauAfter+shortestPlateau {
		fmt.Fprintf(&out, "\nToo short to say what grows: that takes %v.\n", plateauAfter+shortestPlateau)
		return out.String(), true
	}
	table, flat := s.trace.judge(plateauAfter)
	return out.String() + "\n" + table, flat
}

func (s *soak) write(dir, verdict string) {
	s.t.Helper()
	for name, text := range map[string]string{"soak.csv": s.trace.csv(), "soak.md": verdict} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
}
