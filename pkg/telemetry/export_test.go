package telemetry

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
)

// collector receives OTLP over gRPC.
type collector struct {
	collectormetrics.UnimplementedMetricsServiceServer
	addr string

	mu       sync.Mutex
	points   []int // of each request
	spans    []int
	names    map[string]bool
	resource []*commonpb.KeyValue
}

type traceService struct {
	collectortrace.UnimplementedTraceServiceServer
	*collector
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{addr: ln.Addr().String(), names: map[string]bool{}}
	server := grpc.NewServer()
	collectormetrics.RegisterMetricsServiceServer(server, c)
	collectortrace.RegisterTraceServiceServer(server, traceService{collector: c})
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }() // it ends with Stop
	t.Cleanup(func() { server.Stop(); <-done })
	return c
}

func (c *collector) Export(_ context.Context, r *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, resource := range r.GetResourceMetrics() {
		c.resource = resource.GetResource().GetAttributes()
		for _, scope := range resource.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				c.names[m.GetName()] = true
				n += pointsOf(m)
			}
		}
	}
	c.points = append(c.points, n)
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

func pointsOf(m *metricspb.Metric) int {
	return len(m.GetSum().GetDataPoints()) + len(m.GetGauge().GetDataPoints()) + len(m.GetHistogram().GetDataPoints())
}

func (s traceService) Export(_ context.Context, r *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			n += len(scope.GetSpans())
		}
	}
	s.spans = append(s.spans, n)
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

// TestEverythingIsSentInRequestsThatGoogleTakes counts points and spans: at most 200
// in each request (FACTS: Terraform and the platform, telemetry).
func TestEverythingIsSentInRequestsThatGoogleTakes(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	cfg := Config{Endpoint: "http://" + c.addr, MetricInterval: 3_600_000, Project: "p", Attributes: "cloud.region=r,service.name=renamed"}
	tel, err := New(t.Context(), cfg, Options{Service: "test", Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for i := range 150 {
		actions = append(actions, fmt.Sprint("action", i))
	}
	bridge, functions := tel.Bridge(nil, nil), tel.Functions(actions, nil)
	const requests = 300
	for i := range requests {
		e := envelope(fmt.Sprint(i))
		e.Action = actions[i%len(actions)]
		bridge.Publishing(e, time.Now()).Done(nil)
		functions.Answered(e, "", time.Second)
	}
	if err := tel.Shutdown(t.Context()); err != nil { // sends what is left
		t.Fatalf("Shutdown() = %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for _, n := range c.points {
		total += n
	}
	if len(c.points) < 2 || slices.Max(c.points) > 200 || total < 2*len(actions) {
		t.Errorf("requests of %v points, want all in several of at most 200", c.points)
	}
	total = 0
	for _, n := range c.spans {
		total += n
	}
	if slices.Max(c.spans) > 200 || total != 3*requests {
		t.Errorf("requests of %v spans, want %d in all, at most 200 each", c.spans, 3*requests)
	}
	for _, name := range []string{"tebra_requests_answered_total", "tebra_dead_letters_total", "go.memory.used", "process.cpu.time"} {
		if !c.names[name] {
			t.Errorf("%s was not sent", name)
		}
	}
	about := map[string]string{}
	for _, a := range c.resource {
		about[a.GetKey()] = a.GetValue().GetStringValue()
	}
	if about["service.name"] != "renamed" || about["cloud.region"] != "r" || about["gcp.project_id"] != "p" || about["service.instance.id"] == "" {
		t.Errorf("the resource is %v, want the service as OTEL_RESOURCE_ATTRIBUTES names it, region, project and instance", about)
	}
}

func TestACollectorThatIsAwayHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tel, err := New(t.Context(), Config{Endpoint: "http://" + ln.Addr().String(), MetricInterval: 3_600_000}, Options{Service: "test"})
	if err != nil {
		t.Fatal(err)
	}
	bridge := tel.Bridge(nil, nil)
	began := time.Now()
	for i := range 2 * maxSpansQueued {
		bridge.Publishing(envelope(fmt.Sprint(i)), time.Now()).Done(nil)
	}
	// Whoever waited for room in the queue would wait until the first request is given
	// up, after OTEL_EXPORTER_OTLP_TIMEOUT.
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("%d spans took %v, want no waiting", 2*maxSpansQueued, took)
	}
	began = time.Now()
	if err := tel.Shutdown(t.Context()); err == nil {
		t.Error("Shutdown() = nil, want that the last telemetry is lost")
	}
	if took := time.Since(began); took > 2*shutdownTimeout {
		t.Errorf("Shutdown() took %v, want at most %v", took, shutdownTimeout)
	}
}
