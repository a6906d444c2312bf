package telemetry

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"tebraproxy/pkg/tebra"
)

// Functions is what the functions tell of themselves. It is safe for concurrent
// use; a nil Functions observes nothing.
type Functions struct {
	telemetry      *Telemetry
	actions, lanes vocabulary

	pushes, attempts, answered, verdicts, deadLetters metric.Int64Counter
	push, call, endToEnd, rateWait, pubsubWait        metric.Float64Histogram
}

// Functions makes the functions' instruments. actions and lanes are those of the
// policy; others are counted as "other". A nil Telemetry gives nil Functions.
func (t *Telemetry) Functions(actions, lanes []string) *Functions {
	if t == nil {
		return nil
	}
	return &Functions{
		telemetry: t, actions: newVocabulary(actions), lanes: newVocabulary(lanes),
		pushes:      t.counter("tebra_pushes_total", "Pushes of Pub/Sub, by function and the status they were answered with."),
		attempts:    t.counter("tebra_attempts_total", "Attempts at requests that came to an end, by action and outcome."),
		answered:    t.counter("tebra_requests_answered_total", "Requests that got their terminal answer, by action and outcome."),
		verdicts:    t.counter("tebra_ledger_verdicts_total", "What the ledger said about deliveries."),
		deadLetters: t.deadLetters(),
		push:        t.latency("http.server.request.duration", "How long pushes took.", callBuckets),
		call:        t.latency("tebra_api_call_duration_seconds", "How long calls of the API took, by action and outcome.", callBuckets),
		endToEnd:    t.latency("tebra_request_duration_seconds", "From a request's entry to its terminal answer.", waitBuckets),
		rateWait:    t.latency("tebra_rate_wait_seconds", "How long requests waited for their turn in a lane.", callBuckets),
		pubsubWait:  t.latency("tebra_pubsub_wait_seconds", "From a message's publishing to its first push.", waitBuckets),
	}
}

// Handler counts and times the pushes that fn answers.
func (f *Functions) Handler(name string, fn http.Handler) http.Handler {
	if f == nil {
		return fn
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, seen, panicked := time.Now(), &statusWriter{ResponseWriter: w, status: http.StatusOK}, true
		defer func() {
			if panicked { // which the server answers with 500
				seen.status = http.StatusInternalServerError
			}
			f.pushed(name, r.Method, seen.status, time.Since(began))
		}()
		fn.ServeHTTP(seen, r)
		panicked = false
	})
}

// pushed notes a push that was answered.
func (f *Functions) pushed(name, method string, status int, took time.Duration) {
	f.pushes.Add(context.Background(), 1, metric.WithAttributeSet(attribute.NewSet(
		attribute.String("function", name), attribute.String("code", strconv.Itoa(status)))))
	f.push.Record(context.Background(), took.Seconds(), metric.WithAttributeSet(attribute.NewSet(
		httpAttributes(method, "/"+name, status)...)))
}

// statusWriter remembers the status that a handler answers with.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Run observes one attempt at a request. It belongs to one goroutine. A nil Run
// observes nothing.
type Run struct {
	f       *Functions
	action  string // as a label
	span    trace.Span
	origin  trace.SpanContext // what the trace goes on from where the span is not sampled
	began   time.Time
	age     time.Duration // of the request when it was claimed
	claimed time.Time
}

// Begin begins to observe an attempt at the request of e, whose message was
// published at that time (zero where nobody says). The context carries its span.
func (f *Functions) Begin(ctx context.Context, e *tebra.Envelope, published time.Time) (context.Context, *Run) {
	if f == nil {
		return ctx, nil
	}
	r := &Run{f: f, action: f.actions.word(e.Action), began: time.Now()}
	var given bool
	if r.origin, given = parseTraceparent(e.PublishTraceparent); !given { // published by a bridge without telemetry
		r.origin, given = originOf(e)
	}
	if given {
		ctx = trace.ContextWithRemoteSpanContext(ctx, r.origin)
	} else {
		ctx = context.WithValue(ctx, traceKey{}, r.origin.TraceID())
	}
	tracer := f.telemetry.tracer
	if f.telemetry.tracers != nil && r.origin.IsSampled() && !published.IsZero() {
		_, wait := tracer.Start(ctx, "wait in Pub/Sub", trace.WithAttributes(about(e, f.actions)...), trace.WithTimestamp(published))
		wait.End(trace.WithTimestamp(r.began))
	}
	ctx, r.span = tracer.Start(ctx, "process requests topic", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(r.began))
	if r.span.IsRecording() {
		r.span.SetAttributes(about(e, f.actions)...)
		r.span.SetAttributes(attribute.String("messaging.system", "gcp_pubsub"), attribute.String("messaging.operation.type", "process"))
	}
	return ctx, r
}

// context is that of the span, or what it would have gone on from.
func (r *Run) context() trace.SpanContext {
	if c := r.span.SpanContext(); c.IsValid() {
		return c
	}
	return r.origin
}

// LogAttrs returns what ties log lines to the trace, names and values in turn.
func (r *Run) LogAttrs() []any {
	if r == nil {
		return nil
	}
	c := r.context()
	return []any{TraceKey, c.TraceID().String(), SpanKey, c.SpanID().String()}
}

// Claimed notes what the ledger said about the delivery. age is how old the request
// was then.
func (r *Run) Claimed(verdict string, attempt int, age time.Duration, published time.Time) {
	if r == nil {
		return
	}
	r.age, r.claimed = age, time.Now()
	r.f.verdicts.Add(context.Background(), 1, label("verdict", verdict))
	if attempt == 1 && !published.IsZero() {
		r.f.pubsubWait.Record(context.Background(), max(0, r.began.Sub(published)).Seconds())
	}
	if r.span.IsRecording() {
		r.span.SetAttributes(attrVerdict.String(verdict), attrAttempt.Int(attempt))
	}
}

// Waiting begins a wait for a turn in a lane. The returned function ends it.
func (r *Run) Waiting(ctx context.Context, lane string) (done func()) {
	if r == nil {
		return func() {}
	}
	began := time.Now()
	_, span := r.f.telemetry.tracer.Start(ctx, "wait for turn")
	return func() {
		span.End()
		r.f.rateWait.Record(ctx, time.Since(began).Seconds(), label("lane", r.f.lanes.word(lane)))
	}
}

// Called is what became of a call.
type Called struct {
	Outcome string // a word of a closed set
	Code    tebra.ErrorCode
	Status  int // HTTP status, 0 when there was none
}

// Calling begins a call of the API. It returns the traceparent that goes along,
// fallback where nothing is observed, and a function that ends it.
func (r *Run) Calling(ctx context.Context, fallback string) (traceparent string, done func(Called)) {
	if r == nil {
		return fallback, func(Called) {}
	}
	began := time.Now()
	_, span := r.f.telemetry.tracer.Start(ctx, "POST", trace.WithSpanKind(trace.SpanKindClient))
	traceparent = formatTraceparent(span.SpanContext())
	if !span.SpanContext().IsValid() {
		traceparent = formatTraceparent(r.origin)
	}
	return traceparent, func(c Called) {
		r.f.call.Record(ctx, time.Since(began).Seconds(), r.labels(c.Code))
		if span.IsRecording() {
			span.SetAttributes(attribute.String("http.request.method", http.MethodPost), attrAction.String(r.action),
				attrOutcome.String(c.Outcome))
			if c.Status != 0 {
				span.SetAttributes(attrStatus.Int(c.Status))
			}
			setFailed(span, c.Code)
		}
		span.End()
	}
}

// Finishing begins what is done in the ledger about the call's outcome, the answer
// above all. The returned function ends it.
func (r *Run) Finishing(ctx context.Context, step string) (done func()) {
	if r == nil || !r.span.IsRecording() {
		return func() {}
	}
	_, span := r.f.telemetry.tracer.Start(ctx, "answer", trace.WithAttributes(attrStep.String(step)))
	return func() { span.End() }
}

// Ended is how an attempt ended.
type Ended struct {
	Step       string // what was done in the ledger, a word of a closed set
	Code       tebra.ErrorCode
	Answered   bool // the request has its terminal answer now
	DeadLetter bool // and is in the dead letters
}

// Ended notes how the attempt ended.
func (r *Run) Ended(e Ended) {
	if r == nil {
		return
	}
	labels := r.labels(e.Code)
	r.f.attempts.Add(context.Background(), 1, labels)
	if e.Answered {
		r.f.answered.Add(context.Background(), 1, labels)
		r.f.endToEnd.Record(context.Background(), (r.age + time.Since(r.claimed)).Seconds(), labels)
	}
	if e.DeadLetter {
		r.f.DeadLetter(e.Code)
	}
	if r.span.IsRecording() {
		r.span.SetAttributes(attrStep.String(e.Step), attrOutcome.String(outcomeWord(e.Code)))
		setFailed(r.span, e.Code)
	}
}

// End ends what [Functions.Begin] began.
func (r *Run) End() {
	if r != nil {
		r.span.End()
	}
}

// Answered counts a request that is answered without an attempt, by who answers for
// what was given up.
func (f *Functions) Answered(e *tebra.Envelope, code tebra.ErrorCode, age time.Duration) {
	if f == nil {
		return
	}
	labels := f.labels(f.actions.word(e.Action), code)
	f.answered.Add(context.Background(), 1, labels)
	f.endToEnd.Record(context.Background(), age.Seconds(), labels)
}

// DeadLetter counts a dead letter.
func (f *Functions) DeadLetter(reason tebra.ErrorCode) {
	if f != nil {
		f.deadLetters.Add(context.Background(), 1, label("reason", reasonWord(reason)))
	}
}

func (r *Run) labels(code tebra.ErrorCode) metric.MeasurementOption {
	return r.f.labels(r.action, code)
}

func (f *Functions) labels(action string, code tebra.ErrorCode) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(
		attribute.String("action", action), attribute.String("outcome", outcomeWord(code))))
}

// setFailed marks a span whose outcome is an error. The code's word is all that is
// said of it.
func setFailed(span trace.Span, code tebra.ErrorCode) {
	if code != "" {
		span.SetAttributes(attrErrorType.String(string(code)))
		span.SetStatus(codes.Error, string(code))
	}
}
