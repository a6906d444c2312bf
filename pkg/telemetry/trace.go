package telemetry

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"tebraproxy/pkg/tebra"
)

// TraceOf returns the ID of a request's trace, in hex: the client's own, or else one
// that follows from the request and the entry. Whoever knows the envelope can tell
// it, whether the trace was sampled or not.
func TraceOf(e *tebra.Envelope) string {
	origin, _ := originOf(e)
	return origin.TraceID().String()
}

// originOf returns where a request's trace comes from, and whether its client began
// it.
func originOf(e *tebra.Envelope) (origin trace.SpanContext, given bool) {
	if origin, given = parseTraceparent(e.Traceparent); given {
		return origin, true
	}
	return derive(e.Ledger, e.EntryID), false
}

// derive makes the IDs of a trace that nobody began yet. The same request and entry
// get the same, so that a second bridge, or a second try, adds to the trace of the
// first instead of beginning one. The ledger's hash is as good as random.
func derive(ledger, entryID string) trace.SpanContext {
	var id trace.TraceID
	var span trace.SpanID
	high := mix(fnv(fnv(fnvBasis, ledger), entryID))
	low := mix(high + fnv(fnvBasis, entryID))
	binary.BigEndian.PutUint64(id[:8], high)
	binary.BigEndian.PutUint64(id[8:], low|1) // an ID must not be zero
	binary.BigEndian.PutUint64(span[:], mix(low)|1)
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span})
}

const fnvBasis = 0xcbf29ce484222325

// fnv goes on with an FNV-1a hash.
func fnv(hash uint64, s string) uint64 {
	for i := range len(s) {
		hash = (hash ^ uint64(s[i])) * 0x100000001b3
	}
	return hash
}

// mix spreads every bit of x over all 64 (the finalizer of MurmurHash3), because
// samplers look at some of them only.
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// traceparentBytes is the length of a version-00 W3C traceparent.
const traceparentBytes = 55

// parseTraceparent reads a traceparent of version 00.
func parseTraceparent(s string) (trace.SpanContext, bool) {
	if len(s) != traceparentBytes || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return trace.SpanContext{}, false
	}
	var id trace.TraceID
	var span trace.SpanID
	var flags [1]byte
	for _, part := range [...]struct {
		dst []byte
		src string
	}{{id[:], s[3:35]}, {span[:], s[36:52]}, {flags[:], s[53:]}} {
		if _, err := hex.Decode(part.dst, []byte(part.src)); err != nil {
			return trace.SpanContext{}, false
		}
	}
	c := trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.TraceFlags(flags[0]), Remote: true})
	return c, c.IsValid()
}

// formatTraceparent writes c as a traceparent, "" where there is none.
func formatTraceparent(c trace.SpanContext) string {
	if !c.IsValid() {
		return ""
	}
	id, span := c.TraceID(), c.SpanID()
	b := make([]byte, 0, traceparentBytes)
	b = hex.AppendEncode(append(b, "00-"...), id[:])
	b = hex.AppendEncode(append(b, '-'), span[:])
	b = hex.AppendEncode(append(b, '-'), []byte{byte(c.TraceFlags() & trace.FlagsSampled)})
	return string(b)
}

// traceKey is the context key of the ID that a new trace is to have.
type traceKey struct{}

// ids makes the IDs of spans, and takes that of a new trace from the context.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, ok := ctx.Value(traceKey{}).(trace.TraceID)
	if !ok {
		binary.BigEndian.PutUint64(id[:8], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64()|1)
	}
	return id, ids{}.NewSpanID(ctx, id)
}

func (ids) NewSpanID(context.Context, trace.TraceID) (span trace.SpanID) {
	binary.BigEndian.PutUint64(span[:], rand.Uint64()|1)
	return span
}

// Names of spans' attributes. None of them ever holds contents, nor text that a
// client chose ([tebra.Shown]).
const (
	attrRequestID     = attribute.Key("tebra.request.id")
	attrCorrelationID = attribute.Key("tebra.correlation.id")
	attrEntryID       = attribute.Key("tebra.entry.id")
	attrAction        = attribute.Key("tebra.action")
	attrLane          = attribute.Key("tebra.lane")
	attrAttempt       = attribute.Key("tebra.attempt")
	attrOutcome       = attribute.Key("tebra.outcome")
	attrVerdict       = attribute.Key("tebra.ledger.verdict")
	attrStep          = attribute.Key("tebra.step")
	attrErrorType     = attribute.Key("error.type")
	attrStatus        = attribute.Key("http.response.status_code")
)

// about says which request a span is about. Names that clients gave are as they may
// be shown, the action is one of the vocabulary.
func about(e *tebra.Envelope, actions vocabulary) []attribute.KeyValue {
	return []attribute.KeyValue{
		attrRequestID.String(tebra.Shown(e.RequestID)), attrCorrelationID.String(tebra.Shown(e.CorrelationID)),
		attrEntryID.String(e.EntryID), attrAction.String(actions.word(e.Action)), attrLane.String(e.Lane),
	}
}
