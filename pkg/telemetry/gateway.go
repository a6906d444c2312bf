package telemetry

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"tebraproxy/pkg/tebra"
)

// httpBuckets are those that OpenTelemetry advises for HTTP servers, in seconds.
var httpBuckets = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}

// Why an event stream ended. The set is closed.
const (
	StreamOver     = "over"     // its time, or its token's, was up
	StreamLeft     = "left"     // the client went
	StreamSlow     = "slow"     // the client did not take what there was for it
	StreamRevoked  = "revoked"  // the user's tokens count no more
	StreamFailed   = "failed"   // Redis did not give what the client had missed
	StreamStopping = "stopping" // the server stops
)

var streamEnds = newVocabulary([]string{StreamOver, StreamLeft, StreamSlow, StreamRevoked, StreamFailed, StreamStopping})

// methods are those that a label may hold; OpenTelemetry calls all others _OTHER.
var methods = newVocabulary([]string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
})

// Gateway is what the gateway tells of itself. It is safe for concurrent use; a nil
// Gateway observes nothing.
type Gateway struct {
	telemetry     *Telemetry
	routes, codes vocabulary

	requests, ended metric.Int64Counter
	streams         metric.Int64UpDownCounter
	duration        metric.Float64Histogram
}

// Gateway makes the gateway's instruments. routes are the paths that it serves, and
// codes what it may refuse with; others are counted as "other". A nil Telemetry
// gives a nil Gateway.
func (t *Telemetry) Gateway(routes, codes []string) *Gateway {
	if t == nil {
		return nil
	}
	g := &Gateway{
		telemetry: t, routes: newVocabulary(routes), codes: newVocabulary(append([]string{success}, codes...)),
		requests: t.counter("tebra_gateway_requests_total", "Requests of browsers, by route and outcome."),
		ended:    t.counter("tebra_gateway_streams_ended_total", "Event streams that ended, by reason."),
		streams: must(t.meter.Int64UpDownCounter("tebra_gateway_streams_open",
			metric.WithDescription("Event streams that are open."))),
		duration: t.latency("http.server.request.duration", "How long requests took; event streams, until they ended.", httpBuckets),
	}
	g.streams.Add(context.Background(), 0) // also an instance without streams says so
	return g
}

// exchange is one request and its answer.
type exchange struct {
	statusWriter
	outcome string // success, or the code that it was refused with
	span    trace.Span
	traced  bool // the gateway makes traces at all
}

// exchangeKey is the context key of the exchange.
type exchangeKey struct{}

// Handler counts and times what next answers, and traces requests that are posted.
// What next passes on is to be had from [Traceparent].
func (g *Gateway) Handler(next http.Handler) http.Handler {
	if g == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, route := time.Now(), g.routes.word(r.URL.Path)
		ctx, span := g.begin(r, route)
		x := &exchange{
			statusWriter: statusWriter{ResponseWriter: w, status: http.StatusOK}, outcome: success,
			span: span, traced: g.telemetry.tracers != nil && r.Method == http.MethodPost,
		}
		panicked := true
		defer func() {
			if panicked {
				x.status, x.outcome = http.StatusInternalServerError, other
			}
			g.end(x, r.Method, route, time.Since(began))
		}()
		next.ServeHTTP(x, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
		panicked = false
	})
}

func (g *Gateway) end(x *exchange, method, route string, took time.Duration) {
	outcome := g.codes.word(x.outcome)
	g.requests.Add(context.Background(), 1, metric.WithAttributeSet(attribute.NewSet(
		attribute.String("route", route), attribute.String("outcome", outcome))))
	about := httpAttributes(method, route, x.status)
	g.duration.Record(context.Background(), took.Seconds(), metric.WithAttributeSet(attribute.NewSet(about...)))
	if x.span.IsRecording() {
		x.span.SetAttributes(about...)
		x.span.SetAttributes(attrOutcome.String(outcome))
		if outcome != success {
			x.span.SetStatus(codes.Error, outcome)
		}
	}
	x.span.End()
}

// httpAttributes is what OpenTelemetry's semantic conventions say of a request that
// a server answered. TLS ends before our servers.
func httpAttributes(method, route string, status int) []attribute.KeyValue {
	if method = methods.word(method); method == other {
		method = "_OTHER"
	}
	about := make([]attribute.KeyValue, 0, 5)
	about = append(about, attribute.String("http.request.method", method), attribute.String("url.scheme", "https"),
		attribute.String("http.route", route), attrStatus.Int(status))
	if status >= http.StatusInternalServerError {
		about = append(about, attrErrorType.String(strconv.Itoa(status)))
	}
	return about
}

// begin begins the span of a request that is posted. It is of the browser's trace,
// if that sends a traceparent, but whether it is sampled is decided here, by an ID
// that no browser chose: else browsers would decide what is traced, here and all the
// way to the API, since all parts go by their parent.
func (g *Gateway) begin(r *http.Request, route string) (context.Context, trace.Span) {
	ctx := r.Context()
	if g.telemetry.tracers == nil || r.Method != http.MethodPost {
		return ctx, trace.SpanFromContext(context.Background())
	}
	name := r.Method + " " + route
	id, _ := ids{}.NewIDs(context.Background())
	parent, given := parseTraceparent(strings.TrimSpace(r.Header.Get("traceparent")))
	if !given {
		ctx = context.WithValue(ctx, traceKey{}, id)
	} else {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent.WithTraceFlags(g.flags(id, name)))
	}
	return g.telemetry.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
}

// flags says whether a trace that begins with that ID would be sampled.
func (g *Gateway) flags(id trace.TraceID, name string) trace.TraceFlags {
	decided := g.telemetry.sampler.ShouldSample(sdktrace.SamplingParameters{
		ParentContext: context.Background(), TraceID: id, Name: name, Kind: trace.SpanKindServer})
	return trace.TraceFlags(0).WithSampled(decided.Decision == sdktrace.RecordAndSample)
}

// Traceparent returns what the trace of the request in ctx goes on from, "" where
// the gateway traces nothing.
func (g *Gateway) Traceparent(ctx context.Context) string {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok && x.traced {
		return formatTraceparent(x.span.SpanContext())
	}
	return ""
}

// Posted says which request was posted in ctx, and under which entry it is on the
// stream.
func (g *Gateway) Posted(ctx context.Context, r tebra.Request, entryID string) {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok && x.span.IsRecording() {
		x.span.SetAttributes(attrRequestID.String(tebra.Shown(r.ID)), attrCorrelationID.String(tebra.Shown(r.CorrelationID)), attrEntryID.String(entryID))
	}
}

// Refused notes the code that a request is refused with. w is what the handler in
// [Gateway.Handler] was given, or else nothing is noted.
func Refused(w http.ResponseWriter, code string) {
	if x, ok := w.(*exchange); ok {
		x.outcome = code
	}
}

// Streaming notes that an event stream has begun. The returned function ends it,
// for a reason.
func (g *Gateway) Streaming() (ended func(reason string)) {
	if g == nil {
		return func(string) {}
	}
	g.streams.Add(context.Background(), 1)
	return func(reason string) {
		g.streams.Add(context.Background(), -1)
		g.ended.Add(context.Background(), 1, label("reason", streamEnds.word(reason)))
	}
}
