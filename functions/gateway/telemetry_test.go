package gateway

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// observed is a gateway whose metrics and spans can be looked at.
type observed struct {
	*fixture
	tel   *telemetry.Telemetry
	spans *tracetest.InMemoryExporter
}

func newObserved(t *testing.T, cfg telemetry.Config, change func(*fixture)) observed {
	t.Helper()
	o := observed{spans: tracetest.NewInMemoryExporter()}
	var err error
	o.tel, err = telemetry.New(t.Context(), cfg, telemetry.Options{Service: "test", Spans: o.spans})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.tel.Shutdown(context.Background()) })
	o.fixture = newFixture(t, peertest.Redis(t), func(f *fixture) {
		f.telemetry = o.tel
		if change != nil {
			change(f)
		}
	})
	return o
}

// metrics is the page of metrics.
func (o observed) metrics() string {
	o.t.Helper()
	w := httptest.NewRecorder()
	o.tel.MetricsHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text, err := io.ReadAll(w.Result().Body)
	o.must(err)
	return string(text)
}

// wantSeries waits for lines of the page of metrics: what is counted when an answer
// is over may come after the client has it.
func (o observed) wantSeries(lines ...string) {
	o.t.Helper()
	for _, line := range lines {
		peertest.Eventually(o.t, patience, line, func() bool { return strings.Contains(o.metrics(), "\n"+line+"\n") })
	}
}

func TestRequestsAreCountedByRouteAndOutcome(t *testing.T) {
	t.Parallel()
	o := newObserved(t, telemetry.Config{}, func(f *fixture) { f.cfg.UserRate = 3 })
	const body = `{"action":"health","id":"r1"}`
	o.post("alice", body)
	o.post("alice", body)
	o.post("alice", `{"action":"other","id":"r1"}`)
	o.post("alice", body) // one more than the rate
	o.post("bob", `[]`)
	o.post("", body)
	o.post("expired", body)
	o.post("alice", body, "Origin", "https://elsewhere.example.com")
	o.do(http.MethodGet, "/v1/requests", "alice", "")
	for _, path := range []string{"/patients/Jane-Doe", "/", "/v1"} {
		o.do(http.MethodGet, path, "alice", "")
	}
	o.do("JANEDOE", "/v1/requests", "alice", "")
	o.wantSeries(
		`tebra_gateway_requests_total{outcome="success",route="/v1/requests"} 2`,
		`tebra_gateway_requests_total{outcome="duplicate",route="/v1/requests"} 1`,
		`tebra_gateway_requests_total{outcome="rate_limited",route="/v1/requests"} 1`,
		`tebra_gateway_requests_total{outcome="malformed",route="/v1/requests"} 1`,
		`tebra_gateway_requests_total{outcome="token_missing",route="/v1/requests"} 1`,
		`tebra_gateway_requests_total{outcome="token_expired",route="/v1/requests"} 1`,
		`tebra_gateway_requests_total{outcome="origin_not_allowed",route="/v1/requests"} 1`,
		`tebra_gateway_requests_total{outcome="method_not_allowed",route="/v1/requests"} 2`,
		`tebra_gateway_requests_total{outcome="not_found",route="other"} 3`,
		`http_server_request_duration_count{http_request_method="POST",http_response_status_code="202",http_route="/v1/requests",url_scheme="https"} 2`,
		`http_server_request_duration_count{http_request_method="_OTHER",http_response_status_code="405",http_route="/v1/requests",url_scheme="https"} 1`,
	)
	if text := o.metrics(); strings.Contains(strings.ToLower(text), "jane") {
		t.Errorf("the metrics hold what somebody typed:\n%s", text)
	}
}

// TestEventStreamsAreCountedWhileOpenAndByTheirEnd: clients that leave, that are too
// slow, whose time is up and whose user was signed out.
func TestEventStreamsAreCountedWhileOpenAndByTheirEnd(t *testing.T) {
	t.Parallel()
	o := newObserved(t, telemetry.Config{}, func(f *fixture) {
		if f.g != nil {
			f.g.recheck = 50 * time.Millisecond
		}
	})
	o.wantSeries(`tebra_gateway_streams_open 0`)
	one, two := o.listen("alice", ""), o.listen("alice", "")
	o.wantSeries(`tebra_gateway_streams_open 2`)
	one.close()
	o.wantSeries(`tebra_gateway_streams_open 1`, `tebra_gateway_streams_ended_total{reason="left"} 1`)
	two.close()
	o.wantSeries(`tebra_gateway_streams_open 0`, `tebra_gateway_streams_ended_total{reason="left"} 2`)

	slow := o.listen("bob", "")
	for range 2 * queueLength { // nobody reads
		o.answer("bob", "r", padded(100_000))
		if strings.Contains(o.metrics(), `tebra_gateway_streams_ended_total{reason="slow"} 1`) {
			break
		}
	}
	o.wantSeries(`tebra_gateway_streams_ended_total{reason="slow"} 1`)
	slow.close()

	o.tokens.expires = 500 * time.Millisecond
	o.listen("carol", "")
	o.wantSeries(`tebra_gateway_streams_ended_total{reason="over"} 1`)
	o.tokens.expires = 0
	o.listen("dave", "")
	o.tokens.revoked.Store(true)
	o.wantSeries(`tebra_gateway_streams_ended_total{reason="revoked"} 1`, `tebra_gateway_streams_open 0`)
}

// TestEveryRefusalHasItsWord: a code that the list lacks would be "other" to whoever
// looks at the metrics.
func TestEveryRefusalHasItsWord(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(`(?:refuse(?:For)?\(w, [^,]+, "|TokenError\{(?:Code: )?")([a-z_]+)"`)
	var seen []string
	for _, glob := range []string{"*.go", "../firebase/*.go"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range pattern.FindAllStringSubmatch(string(text), -1) {
				if seen = append(seen, m[1]); !slices.Contains(refusals, m[1]) {
					t.Errorf("%s refuses with %s, which refusals lacks", file, m[1])
				}
			}
		}
	}
	for _, code := range refusals {
		if !slices.Contains(seen, code) && !slices.Contains(tebra.Codes(), tebra.ErrorCode(code)) {
			t.Errorf("nobody refuses with %s", code)
		}
	}
}

// TestTheTraceBeginsAtTheGateway, or goes on from the browser's, and the entry
// carries on from there.
func TestTheTraceBeginsAtTheGateway(t *testing.T) {
	t.Parallel()
	for name, sent := range map[string]string{
		"no trace":          "",
		"nonsense":          "00-Jane-Doe",
		"a sampled trace":   "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"an unsampled one":  "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
		"one of no version": "zz-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newObserved(t, telemetry.Config{}, nil)
			_, got, _ := o.post("alice", `{"action":"health","id":"r1","correlationId":"Jane Doe"}`, "traceparent", sent)
			peertest.Eventually(t, patience, "a span", func() bool { return len(o.spans.GetSpans()) > 0 })
			span := o.spans.GetSpans()[0]
			given := strings.HasPrefix(name, "a")
			if want := "0af7651916cd43dd8448eb211c80319c"; (span.SpanContext.TraceID().String() == want) != given {
				t.Errorf("span of trace %s, the browser's: want %v", span.SpanContext.TraceID(), given)
			}
			if want := "b7ad6b7169203331"; (span.Parent.SpanID().String() == want) != given {
				t.Errorf("span's parent is %s, the browser's: want %v", span.Parent.SpanID(), given)
			}
			want := "00-" + span.SpanContext.TraceID().String() + "-" + span.SpanContext.SpanID().String() + "-01"
			if entry, _ := o.entries()[0].Values["traceparent"].(string); entry != want {
				t.Errorf("the entry's traceparent = %q, want the span's, %s", entry, want)
			}
			attributes := map[string]string{}
			for _, a := range span.Attributes {
				attributes[string(a.Key)] = a.Value.String()
			}
			for key, want := range map[string]string{
				"http.route": "/v1/requests", "http.request.method": "POST", "http.response.status_code": "202",
				"tebra.request.id": "r1", "tebra.entry.id": got.Entry, "tebra.outcome": "success",
			} {
				if attributes[key] != want {
					t.Errorf("attribute %s = %q, want %q", key, attributes[key], want)
				}
			}
			if span.Name != "POST /v1/requests" {
				t.Errorf("span is called %q, want POST /v1/requests", span.Name)
			}
		})
	}
}

// TestNoBrowserDecidesWhatIsTraced: neither what says it is sampled, nor an ID that
// the sampler would choose, makes a trace; and what is not sampled still goes on
// under its ID, so that nobody after decides again.
func TestNoBrowserDecidesWhatIsTraced(t *testing.T) {
	t.Parallel()
	o := newObserved(t, telemetry.Config{Sampler: "parentbased_traceidratio", SamplerArg: "0.2"}, nil)
	const n = 300
	for range n {
		o.post("alice", `{"action":"health"}`, "traceparent", "00-0af7651916cd43dd0000000000000001-b7ad6b7169203331-01")
	}
	sampled := 0
	for _, entry := range o.entries() {
		traceparent, _ := entry.Values["traceparent"].(string)
		if !strings.HasPrefix(traceparent, "00-0af7651916cd43dd0000000000000001-") {
			t.Fatalf("the entry's traceparent = %q, want the browser's trace", traceparent)
		}
		if strings.HasSuffix(traceparent, "-01") {
			sampled++
		}
	}
	if sampled < n/10 || sampled > n*2/5 {
		t.Errorf("%d of %d are sampled, want about %d", sampled, n, n/5)
	}
	peertest.Eventually(t, patience, "as many spans as are sampled", func() bool { return len(o.spans.GetSpans()) == sampled })
}
