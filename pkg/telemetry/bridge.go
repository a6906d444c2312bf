package telemetry

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/status"

	"tebraproxy/pkg/tebra"
)

// Bridge is what a bridge tells of itself. It is safe for concurrent use; a nil
// Bridge observes nothing.
type Bridge struct {
	telemetry      *Telemetry
	actions, lanes vocabulary
	seen           atomic.Pointer[State]

	read, published, claimed metric.Int64Counter
	rejected, deadLetters    metric.Int64Counter
	breakerChanges           metric.Int64Counter
	publish                  metric.Float64Histogram
	redisWait                metric.Float64Histogram
}

// State is what a bridge sees when it looks at everything, every few seconds.
type State struct {
	At            time.Time // this machine's clock
	Stream        int64     // entries of the requests stream
	Lag           int64     // of them unread; below 0 where Redis can't tell
	UnreadOldest  time.Duration
	Pending       int64 // in a bridge's hand
	PendingOldest time.Duration
	Lanes         map[string]LaneState
	BreakerOpen   bool
	PubSubDown    bool
}

// LaneState is what waits in one lane.
type LaneState struct {
	Parked   int64 // for room
	Open     int64 // published and unanswered
	Retrying int64 // of them waiting out a backoff
	Oldest   time.Duration
}

// fresh is how old a State may be and still be told: after that, no number is
// better than an old one, and alerts on absence say so.
const fresh = 30 * time.Second

// Bridge makes a bridge's instruments. actions and lanes are those of the policy;
// others are "other". A nil Telemetry gives a nil Bridge.
func (t *Telemetry) Bridge(actions, lanes []string) *Bridge {
	if t == nil {
		return nil
	}
	b := &Bridge{
		telemetry: t, actions: newVocabulary(actions), lanes: newVocabulary(lanes),
		read:      t.counter("tebra_requests_read_total", "Entries read from the requests stream."),
		published: t.counter("tebra_requests_published_total", "Requests that Pub/Sub has confirmed."),
		claimed:   t.counter("tebra_requests_claimed_total", "Entries taken over from a bridge that died."),
		rejected:  t.counter("tebra_requests_rejected_total", "Entries that could not be served, by reason."),
		breakerChanges: t.counter("tebra_breaker_changes_total",
			"Changes of the breaker that this bridge saw, by the state it changed to."),
		deadLetters: t.deadLetters(),
		publish: t.latency("messaging.client.operation.duration",
			"How long Pub/Sub took to confirm a publish request.", publishBuckets),
		redisWait: t.latency("tebra_redis_wait_seconds",
			"From a request's entry to its publishing: reading, and waiting for its lane or the gate.", waitBuckets),
	}
	for _, reason := range reasons {
		b.rejected.Add(context.Background(), 0, label("reason", reason)) // an alert must see the first one rise
	}
	b.observeState()
	return b
}

// observeState makes the gauges of [State].
func (b *Bridge) observeState() {
	t := b.telemetry
	stream := t.gauge("tebra_stream_entries", "Entries of the requests stream.")
	lag := t.gauge("tebra_stream_lag_entries", "Entries that no bridge has read.")
	unread := t.seconds("tebra_stream_lag_oldest_seconds", "Age of the oldest entry that no bridge has read.")
	pending := t.gauge("tebra_pending_entries", "Entries that bridges hold in hand.")
	pendingOldest := t.seconds("tebra_pending_oldest_seconds", "Age of the oldest entry in a bridge's hand.")
	parked := t.gauge("tebra_parked_entries", "Requests that wait in Redis for room in their lane.")
	open := t.gauge("tebra_in_flight_requests", "Requests published and not answered.")
	retrying := t.gauge("tebra_retrying_requests", "Requests that wait out a backoff of Pub/Sub.")
	oldest := t.seconds("tebra_in_flight_oldest_seconds", "Age of the oldest request published and not answered.")
	gate := t.gauge("tebra_gate_shut", "1 while nothing is read or published, by reason.")
	breaker := t.gauge("tebra_breaker_open", "1 while the breaker is open.")
	beat := t.seconds("tebra_heartbeat_timestamp_seconds", "When this bridge last wrote its heartbeat, in seconds since 1970.")
	must(t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := b.seen.Load()
		if s == nil {
			return nil
		}
		o.ObserveFloat64(beat, float64(s.At.UnixMilli())/1000)
		if time.Since(s.At) > fresh {
			return nil
		}
		o.ObserveInt64(stream, s.Stream)
		if s.Lag >= 0 {
			o.ObserveInt64(lag, s.Lag)
		}
		o.ObserveFloat64(unread, s.UnreadOldest.Seconds())
		o.ObserveInt64(pending, s.Pending)
		o.ObserveFloat64(pendingOldest, s.PendingOldest.Seconds())
		o.ObserveInt64(gate, oneIf(s.BreakerOpen), label("reason", "breaker"))
		o.ObserveInt64(gate, oneIf(s.PubSubDown), label("reason", "pubsub"))
		o.ObserveInt64(breaker, oneIf(s.BreakerOpen))
		for lane, l := range b.byLane(s.Lanes) {
			name := label("lane", lane)
			o.ObserveInt64(parked, l.Parked, name)
			o.ObserveInt64(open, l.Open, name)
			o.ObserveInt64(retrying, l.Retrying, name)
			o.ObserveFloat64(oldest, l.Oldest.Seconds(), name)
		}
		return nil
	}, stream, lag, unread, pending, pendingOldest, parked, open, retrying, oldest, gate, breaker, beat))
}

// byLane puts lanes that the policy doesn't know together.
func (b *Bridge) byLane(lanes map[string]LaneState) map[string]LaneState {
	known := make(map[string]LaneState, len(lanes))
	for name, l := range lanes {
		name = b.lanes.word(name)
		sum := known[name]
		known[name] = LaneState{
			Parked: sum.Parked + l.Parked, Open: sum.Open + l.Open, Retrying: sum.Retrying + l.Retrying,
			Oldest: max(sum.Oldest, l.Oldest),
		}
	}
	return known
}

// Saw notes what a bridge saw when it wrote its heartbeat.
func (b *Bridge) Saw(s State) {
	if b != nil {
		b.seen.Store(&s)
	}
}

// Read counts entries read.
func (b *Bridge) Read(n int) {
	if b != nil {
		b.read.Add(context.Background(), int64(n))
	}
}

// Claimed counts entries taken over.
func (b *Bridge) Claimed(n int) {
	if b != nil {
		b.claimed.Add(context.Background(), int64(n))
	}
}

// Published notes a publish request that took so long, of which n messages were
// confirmed; err is why others were not.
func (b *Bridge) Published(n int, took time.Duration, err error) {
	if b == nil {
		return
	}
	b.published.Add(context.Background(), int64(n))
	attributes := []attribute.KeyValue{attribute.String("messaging.system", "gcp_pubsub"),
		attribute.String("messaging.operation.name", "send"), attribute.String("messaging.operation.type", "send")}
	if err != nil {
		attributes = append(attributes, attrErrorType.String(status.Code(err).String()))
	}
	b.publish.Record(context.Background(), took.Seconds(), metric.WithAttributeSet(attribute.NewSet(attributes...)))
}

// Rejected counts an entry that could not be served, and its dead letter.
func (b *Bridge) Rejected(reason tebra.ErrorCode) {
	if b == nil {
		return
	}
	b.rejected.Add(context.Background(), 1, label("reason", reasonWord(reason)))
	b.DeadLetter(reason)
}

// DeadLetter counts a dead letter that a bridge published.
func (b *Bridge) DeadLetter(reason tebra.ErrorCode) {
	if b != nil {
		b.deadLetters.Add(context.Background(), 1, label("reason", reasonWord(reason)))
	}
}

// BreakerChanged counts that the breaker opened or closed.
func (b *Bridge) BreakerChanged(open bool) {
	if b == nil {
		return
	}
	to := "closed"
	if open {
		to = "open"
	}
	b.breakerChanges.Add(context.Background(), 1, label("to", to))
}

// Sending is the part of a sampled request's trace that a bridge makes. A nil
// Sending is that of any other.
type Sending struct{ request, send trace.Span }

// Publishing begins a try at publishing a request that came in at arrival, and
// puts into its envelope what the trace goes on from.
func (b *Bridge) Publishing(e *tebra.Envelope, arrival time.Time) *Sending {
	return b.sending(e, arrival, "send requests topic")
}

// Rejecting begins a try at publishing the dead letter of an entry that can't be
// served, like [Bridge.Publishing]. e.Reason says why.
func (b *Bridge) Rejecting(e *tebra.Envelope, arrival time.Time) *Sending {
	s := b.sending(e, arrival, "send dead-letters topic")
	if s != nil {
		s.request.SetAttributes(attrOutcome.String(reasonWord(e.Reason)))
		setFailed(s.request, tebra.ErrorCode(reasonWord(e.Reason)))
	}
	return s
}

func (b *Bridge) sending(e *tebra.Envelope, arrival time.Time, what string) *Sending {
	if b == nil {
		return nil
	}
	origin, given := originOf(e)
	if b.telemetry.tracers == nil && given {
		e.PublishTraceparent = e.Traceparent
		return nil
	}
	ctx := context.Background()
	if given {
		ctx = trace.ContextWithRemoteSpanContext(ctx, origin)
	}
	const name = "process requests stream"
	if b.telemetry.sampler.ShouldSample(sdktrace.SamplingParameters{
		ParentContext: ctx, TraceID: origin.TraceID(), Name: name, Kind: trace.SpanKindConsumer,
	}).Decision != sdktrace.RecordAndSample {
		e.PublishTraceparent = formatTraceparent(origin.WithTraceFlags(0))
		return nil
	}
	now, tracer, request := time.Now(), b.telemetry.tracer, trace.WithAttributes(about(e, b.actions)...)
	s := &Sending{}
	ctx, s.request = tracer.Start(context.WithValue(ctx, traceKey{}, origin.TraceID()), name, request,
		trace.WithTimestamp(arrival), trace.WithSpanKind(trace.SpanKindConsumer))
	_, wait := tracer.Start(ctx, "wait in Redis", request, trace.WithTimestamp(arrival))
	wait.End(trace.WithTimestamp(now))
	_, s.send = tracer.Start(ctx, what, request,
		trace.WithTimestamp(now), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(attribute.String("messaging.system", "gcp_pubsub"), attribute.String("messaging.operation.type", "send")))
	e.PublishTraceparent = formatTraceparent(s.send.SpanContext())
	return s
}

// Waited notes how long requests that were just published had been here. One of
// each batch stands for all: they were read together.
func (b *Bridge) Waited(wait time.Duration) {
	if b != nil {
		b.redisWait.Record(context.Background(), max(0, wait).Seconds())
	}
}

// Done ends a try at publishing.
func (s *Sending) Done(err error) {
	if s == nil {
		return
	}
	for _, span := range [...]trace.Span{s.send, s.request} {
		if err != nil {
			span.SetAttributes(attrErrorType.String(status.Code(err).String()))
			span.SetStatus(codes.Error, "not published")
		}
		span.End()
	}
}

func oneIf(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
