package telemetry

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"tebraproxy/pkg/tebra"
)

// TestOneTraceFromTheEntryToTheAnswer: whoever began it, bridge and function add to
// the same trace, and the times of waiting are spans of their own.
func TestOneTraceFromTheEntryToTheAnswer(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]string{"the client's": clientTraceparent, "a new one": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Config{})
			e := envelope("1")
			e.Traceparent = client
			arrival := time.Now().Add(-3 * time.Second)
			b.Bridge([]string{"getProviders"}, nil).Publishing(e, arrival).Done(nil)

			f := b.Functions([]string{"getProviders"}, nil)
			published := time.Now().Add(-time.Second)
			ctx, run := f.Begin(t.Context(), e, published)
			run.Claimed("run", 2, time.Second, published)
			run.Waiting(ctx, "default")()
			traceparent, done := run.Calling(ctx, "")
			done(Called{Outcome: "answered", Status: 200})
			run.Finishing(ctx, "complete")()
			run.Ended(Ended{Step: "complete", Answered: true})
			run.End()

			want := TraceOf(e)
			for _, s := range b.spans.GetSpans() {
				if got := s.SpanContext.TraceID().String(); got != want {
					t.Errorf("span %q is of trace %s, want %s", s.Name, got, want)
				}
			}
			request, send, process, call := b.span("process requests stream"), b.span("send requests topic"), b.span("process requests topic"), b.span("POST")
			wantParent(t, send, request)
			wantParent(t, b.span("wait in Redis"), request)
			wantParent(t, b.span("wait in Pub/Sub"), send)
			wantParent(t, process, send)
			for _, child := range []string{"wait for turn", "POST", "answer"} {
				wantParent(t, b.span(child), process)
			}
			if client != "" && request.Parent.SpanID().String() != "b7ad6b7169203331" {
				t.Errorf("the first span's parent is %s, want the client's", request.Parent.SpanID())
			}
			if got, want := traceparent, formatTraceparent(call.SpanContext); got != want {
				t.Errorf("the API is sent traceparent %s, want that of the call, %s", got, want)
			}
			if s := b.span("wait in Redis"); s.StartTime.Sub(arrival).Abs() > time.Millisecond || s.EndTime.Sub(arrival) < 3*time.Second {
				t.Errorf("wait in Redis lasts from %v to %v, want from %v until it was sent", s.StartTime, s.EndTime, arrival)
			}
			if s := b.span("wait in Pub/Sub"); s.StartTime.Sub(published).Abs() > time.Millisecond || s.EndTime.Before(published.Add(time.Second)) {
				t.Errorf("wait in Pub/Sub lasts from %v to %v, want from %v until it was pushed", s.StartTime, s.EndTime, published)
			}
			attributes := map[string]string{}
			for _, a := range process.Attributes {
				attributes[string(a.Key)] = a.Value.String()
			}
			for name, want := range map[string]string{
				"tebra.request.id": "1", "tebra.correlation.id": "c-1", "tebra.entry.id": "1-0", "tebra.action": "getProviders",
				"tebra.attempt": "2", "tebra.outcome": "success", "tebra.ledger.verdict": "run",
			} {
				if attributes[name] != want {
					t.Errorf("attribute %s = %q, want %q", name, attributes[name], want)
				}
			}
		})
	}
}

// TestARejectedEntryHasItsTrace: of the client's, or a new one, with why it was
// rejected; its dead letter carries the trace on.
func TestARejectedEntryHasItsTrace(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]string{"the client's": clientTraceparent, "a new one": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Config{})
			e := envelope("1")
			e.Traceparent, e.Reason = client, tebra.Malformed
			b.Bridge(nil, nil).Rejecting(e, time.Now().Add(-time.Second)).Done(nil)
			request, send := b.span("process requests stream"), b.span("send dead-letters topic")
			wantParent(t, send, request)
			wantParent(t, b.span("wait in Redis"), request)
			if got := request.SpanContext.TraceID().String(); got != TraceOf(e) {
				t.Errorf("span is of trace %s, want %s", got, TraceOf(e))
			}
			if request.Status.Code != codes.Error || request.Status.Description != "malformed" || send.Status.Code == codes.Error {
				t.Errorf("status = %v, of sending %v; want an error that says malformed, and none", request.Status, send.Status)
			}
			if want := formatTraceparent(send.SpanContext); e.PublishTraceparent != want {
				t.Errorf("the dead letter carries %q, want that of its sending, %s", e.PublishTraceparent, want)
			}
		})
	}
}

// TestSpansHoldNoTextOfClients, nor actions that the policy does not know.
func TestSpansHoldNoTextOfClients(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	const text = "Jane Doe, HIV positive"
	e := &tebra.Envelope{RequestID: text, CorrelationID: text, Action: "JaneDoe", UserID: text, EntryID: "1-0", Lane: "default",
		Ledger: tebra.LedgerHash(text, text), Reason: tebra.ErrorCode(text)}
	bridge := b.Bridge([]string{"health"}, nil)
	bridge.Publishing(e, time.Now()).Done(nil)
	bridge.Rejecting(e, time.Now()).Done(errors.New(text))
	ctx, run := b.Functions([]string{"health"}, nil).Begin(t.Context(), e, time.Now())
	run.Claimed("run", 1, 0, time.Now())
	_, done := run.Calling(ctx, "")
	done(Called{Outcome: "answered", Code: tebra.ErrorCode("rejected")})
	run.Ended(Ended{Step: "complete"})
	run.End()
	for _, s := range b.spans.GetSpans() {
		for _, a := range s.Attributes {
			if strings.Contains(a.Value.String(), "Jane") {
				t.Errorf("attribute %s of span %q = %q", a.Key, s.Name, a.Value.String())
			}
			if a.Key == attrAction && a.Value.AsString() != "other" {
				t.Errorf("attribute %s of span %q = %q, want other", a.Key, s.Name, a.Value.AsString())
			}
		}
		if strings.Contains(s.Status.Description, "Jane") {
			t.Errorf("status of span %q = %q", s.Name, s.Status.Description)
		}
	}
}

func wantParent(t *testing.T, child, parent tracetest.SpanStub) {
	t.Helper()
	if child.Parent.SpanID() != parent.SpanContext.SpanID() {
		t.Errorf("span %q is a child of %s, want of %q", child.Name, child.Parent.SpanID(), parent.Name)
	}
}

func TestASecondBridgeGoesOnWithTheTrace(t *testing.T) {
	t.Parallel()
	first, second, another := envelope("1"), envelope("1"), envelope("1")
	another.EntryID = "2-0"
	if TraceOf(first) != TraceOf(second) {
		t.Errorf("TraceOf() = %s, then %s for the same entry, want the same", TraceOf(first), TraceOf(second))
	}
	if TraceOf(first) == TraceOf(another) {
		t.Errorf("TraceOf() = %s for two entries, want two", TraceOf(first))
	}
}

// TestSamplingIsByTheShareThatWasAskedFor: derived IDs are as good as random to the
// sampler, and what it leaves out makes no spans anywhere but keeps its ID.
func TestSamplingIsByTheShareThatWasAskedFor(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{Sampler: "parentbased_traceidratio", SamplerArg: "0.1"})
	bridge, functions := b.Bridge(nil, nil), b.Functions(nil, nil)
	const n, share = 20_000, 0.1
	sampled := 0
	for i := range n {
		e := envelope(fmt.Sprint(i))
		s := bridge.Publishing(e, time.Now())
		s.Done(nil)
		if s != nil {
			sampled++
		}
		got, ok := parseTraceparent(e.PublishTraceparent)
		if !ok || got.TraceID().String() != TraceOf(e) || got.IsSampled() != (s != nil) {
			t.Fatalf("the message carries %q, want trace %s, sampled %v", e.PublishTraceparent, TraceOf(e), s != nil)
		}
		if i >= 100 {
			continue
		}
		before := len(b.spans.GetSpans())
		_, run := functions.Begin(t.Context(), e, time.Now())
		run.End()
		if made := len(b.spans.GetSpans()) - before; (made > 0) != (s != nil) {
			t.Errorf("the function made %d spans of a request that was sampled: %v", made, s != nil)
		}
	}
	if off := math.Abs(float64(sampled) - n*share); off > 4*math.Sqrt(n*share*(1-share)) {
		t.Errorf("%d of %d are sampled, want about %v", sampled, n, n*share)
	}
}

func TestWithoutTracingTheClientsTraceGoesThrough(t *testing.T) {
	t.Parallel()
	silent, err := New(t.Context(), Config{}, Options{Service: "test"})
	if err != nil {
		t.Fatal(err)
	}
	e := envelope("1")
	e.Traceparent = clientTraceparent
	silent.Bridge(nil, nil).Publishing(e, time.Now()).Done(errors.New("any"))
	ctx, run := silent.Functions(nil, nil).Begin(t.Context(), e, time.Now())
	traceparent, done := run.Calling(ctx, "")
	done(Called{})
	run.End()
	if e.PublishTraceparent != clientTraceparent || traceparent != clientTraceparent {
		t.Errorf("message and API are sent %q and %q, want the client's own", e.PublishTraceparent, traceparent)
	}
}

func TestNothingIsObservedWithoutTelemetry(t *testing.T) {
	t.Parallel()
	var none *Telemetry
	b, f, e := none.Bridge(nil, nil), none.Functions(nil, nil), envelope("1")
	b.Read(1)
	b.Claimed(1)
	b.Published(1, time.Second, nil)
	b.Waited(time.Second)
	b.Rejected(tebra.Malformed)
	b.DeadLetter(tebra.Malformed)
	b.BreakerChanged(true)
	b.Saw(State{})
	b.Publishing(e, time.Now()).Done(nil)
	b.Rejecting(e, time.Now()).Done(nil)
	var g *Gateway = none.Gateway(nil, nil)
	g.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
	g.Posted(t.Context(), tebra.Request{}, "")
	g.Streaming()(StreamLeft)
	if got := g.Traceparent(t.Context()); got != "" {
		t.Errorf("Traceparent() = %q, want none", got)
	}
	ctx, run := f.Begin(t.Context(), e, time.Now())
	run.Claimed("run", 1, 0, time.Now())
	run.Waiting(ctx, "")()
	traceparent, done := run.Calling(ctx, "as it was")
	done(Called{})
	run.Finishing(ctx, "")()
	run.Ended(Ended{Answered: true})
	run.End()
	f.Answered(e, "", 0)
	if traceparent != "as it was" || e.PublishTraceparent != "" || run.LogAttrs() != nil {
		t.Errorf("traceparent %q, attribute %q, log attributes %v; want as it was, none, none", traceparent, e.PublishTraceparent, run.LogAttrs())
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add(clientTraceparent)
	f.Add("00-00000000000000000000000000000000-0000000000000000-00")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		c, ok := parseTraceparent(s)
		if ok != c.IsValid() {
			t.Fatalf("parseTraceparent(%q) = %v, valid %v", s, ok, c.IsValid())
		}
		if !ok {
			return
		}
		again, ok := parseTraceparent(formatTraceparent(c))
		if !ok || again.TraceID() != c.TraceID() || again.SpanID() != c.SpanID() || again.IsSampled() != c.IsSampled() {
			t.Errorf("%q comes back as %v, want the same IDs and sampling", s, again)
		}
	})
}

func BenchmarkPublishingUnsampled(b *testing.B) {
	tel, err := New(b.Context(), Config{Sampler: "parentbased_traceidratio", SamplerArg: "0"}, Options{Spans: tracetest.NewNoopExporter()})
	if err != nil {
		b.Fatal(err)
	}
	bridge, e := tel.Bridge(nil, nil), envelope("1")
	b.ReportAllocs()
	for b.Loop() {
		bridge.Publishing(e, time.Time{}).Done(nil)
	}
}
