package telemetry

import (
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"tebraproxy/pkg/tebra"
)

// bundle is a telemetry whose spans and metrics can be looked at.
type bundle struct {
	*testing.T
	*Telemetry
	spans  *tracetest.InMemoryExporter
	reader *sdkmetric.ManualReader
}

func setup(t *testing.T, cfg Config) bundle {
	t.Helper()
	b := bundle{T: t, spans: tracetest.NewInMemoryExporter(), reader: sdkmetric.NewManualReader()}
	var err error
	b.Telemetry, err = New(t.Context(), cfg, Options{Service: "test", Version: "1", Spans: b.spans, Metrics: b.reader})
	if err != nil {
		t.Fatalf("New() = %v", err)
	}
	t.Cleanup(func() {
		if err := b.Telemetry.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown() = %v", err)
		}
	})
	return b
}

// text is the page of metrics.
func (b bundle) text() string {
	b.Helper()
	w := httptest.NewRecorder()
	b.MetricsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		b.Fatalf("GET /metrics = %d, %v", w.Code, err)
	}
	return string(body)
}

// value returns the value of the series whose line begins so, "" if there is none.
func (b bundle) value(series string) string {
	b.Helper()
	for line := range strings.Lines(b.text()) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// collected returns all metrics by name.
func (b bundle) collected() map[string]metricdata.Metrics {
	b.Helper()
	var all metricdata.ResourceMetrics
	if err := b.reader.Collect(b.Context(), &all); err != nil {
		b.Fatalf("Collect() = %v", err)
	}
	found := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

// span returns the only span of that name.
func (b bundle) span(name string) tracetest.SpanStub {
	b.Helper()
	var found []tracetest.SpanStub
	for _, s := range b.spans.GetSpans() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		b.Fatalf("%d spans are called %q, want 1: %v", len(found), name, b.spanNames())
	}
	return found[0]
}

func (b bundle) spanNames() (names []string) {
	for _, s := range b.spans.GetSpans() {
		names = append(names, s.Name)
	}
	return names
}

const clientTraceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func envelope(id string) *tebra.Envelope {
	return &tebra.Envelope{
		RequestID: id, CorrelationID: "c-" + id, Action: "getProviders", UserID: "u", EntryID: "1-0", Lane: "default",
		Ledger: tebra.LedgerHash("u", id), Epoch: "e", AdmittedAt: time.UnixMilli(1),
	}
}
