package load

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// collector receives the telemetry that all processes send over OTLP, as an
// installation's does, and keeps how many goroutines each has.
type collector struct {
	collectormetrics.UnimplementedMetricsServiceServer
	addr string

	mu         sync.Mutex
	instances  []string // by service and instance, in the order in which they were heard of
	goroutines map[string]int64
	spans      int
}

type traces struct {
	collectortrace.UnimplementedTraceServiceServer
	*collector
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{addr: ln.Addr().String(), goroutines: map[string]int64{}}
	server := grpc.NewServer()
	collectormetrics.RegisterMetricsServiceServer(server, c)
	collectortrace.RegisterTraceServiceServer(server, traces{collector: c})
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }() // it ends with Stop
	t.Cleanup(func() { server.Stop(); <-done })
	return c
}

func (c *collector) Export(_ context.Context, r *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.GetResourceMetrics() {
		about := map[string]string{}
		for _, a := range resource.GetResource().GetAttributes() {
			about[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, scope := range resource.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				if points := m.GetSum().GetDataPoints(); m.GetName() == "go.goroutine.count" && len(points) == 1 {
					c.note(about["service.name"]+"|"+about["service.instance.id"], points[0].GetAsInt())
				}
			}
		}
	}
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

func (c *collector) note(instance string, goroutines int64) {
	if _, known := c.goroutines[instance]; !known {
		c.instances = append(c.instances, instance)
	}
	c.goroutines[instance] = goroutines
}

func (s traces) Export(_ context.Context, r *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			s.spans += len(scope.GetSpans())
		}
	}
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

// count is how many goroutines a process has.
type count struct {
	process string
	n       int64
}

// counts returns those of all processes that were heard of, service by service, in
// an order that stays the same once all were.
func (c *collector) counts() []count {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []count
	numbers := map[string]int{}
	for _, instance := range c.instances {
		service, _, _ := strings.Cut(instance, "|")
		numbers[service]++
		all = append(all, count{fmt.Sprintf("%s-%d", strings.ToLower(service), numbers[service]), c.goroutines[instance]})
	}
	slices.SortFunc(all, func(a, b count) int { return strings.Compare(a.process, b.process) })
	return all
}
