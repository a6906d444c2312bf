package deadletters

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// ledgerOfLeases is a subscriber that notes what is done to leases.
type ledgerOfLeases struct {
	Subscriber
	mu       sync.Mutex
	extended int
	released []string
}

func (l *ledgerOfLeases) ModifyAckDeadline(_ context.Context, r *pubsubpb.ModifyAckDeadlineRequest, _ ...gax.CallOption) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.GetAckDeadlineSeconds() == 0 {
		l.released = append(l.released, r.GetAckIds()...)
		return nil
	}
	l.extended++
	return nil
}

func (l *ledgerOfLeases) extensions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.extended
}

func TestLeasesAreExtendedUntilTheRelease(t *testing.T) {
	t.Parallel()
	leases := &ledgerOfLeases{}
	h := newHold(t.Context(), leases, "s", time.Millisecond)
	for _, id := range []string{"1", "2", "3"} {
		if !h.add(&pubsubpb.ReceivedMessage{AckId: "ack-" + id, Message: &pubsubpb.PubsubMessage{MessageId: id}}) {
			t.Errorf("add(%s) = false, want it to be new", id)
		}
	}
	if h.add(&pubsubpb.ReceivedMessage{AckId: "ack-3-again", Message: &pubsubpb.PubsubMessage{MessageId: "3"}}) {
		t.Error("add(3) = true the second time, want it to be known")
	}
	peertest.Eventually(t, 5*time.Second, "some extensions", func() bool { return leases.extensions() > 2 })
	h.forget([]string{"1"})
	var err error
	h.release(t.Context(), &err)
	after := leases.extensions()
	slices.Sort(leases.released)
	if want := []string{"ack-2", "ack-3-again"}; err != nil || !slices.Equal(leases.released, want) {
		t.Errorf("release() gave back %v, %v, want %v by their newest IDs", leases.released, err, want)
	}
	if leases.extensions() != after {
		t.Error("a lease was extended after the release")
	}
}

func FuzzRead(f *testing.F) {
	envelope := tebra.Envelope{
		RequestID: "r", CorrelationID: "c", Action: "a", UserID: "u", EntryID: "1-1", Lane: "default",
		Ledger: tebra.LedgerHash("u", "r"), Epoch: "e", AdmittedAt: time.UnixMilli(1),
	}
	f.Add([]byte(`{"id":"r","action":"a","params":{"x":1},"userId":"u","timestamp":"","correlationId":"c"}`), "1-1", "", "3")
	f.Add([]byte(`{"entry":"1-1","reason":"field x: is there twice","bytes":3,"fields":[["x","y"]]}`), "1-1", "malformed", "")
	f.Add([]byte("\xff"), "", "", "-1")
	f.Fuzz(func(t *testing.T, data []byte, entry, reason, deliveries string) {
		e := envelope
		e.EntryID, e.Reason = entry, tebra.ErrorCode(reason)
		attributes := e.Attributes()
		attributes[attributeDeliveries] = deliveries
		l := read(&pubsubpb.PubsubMessage{MessageId: "1", Data: data, Attributes: attributes})
		switch {
		case l.Reason == "":
			t.Error("a letter without a reason")
		case l.Kind == Request && (l.request.ID != e.RequestID || len(l.payload.Params) == 0):
			t.Errorf("a request that is not the envelope's: %+v", l.request)
		case l.Kind == Rejected && l.Envelope.EntryID == "":
			t.Error("a rejected entry without its ID")
		case l.Kind == Foreign && string(l.payload.Data) != string(data):
			t.Error("a foreign message that is not kept as it is")
		}
		if b := l.bare(); b.payload.Params != nil || b.payload.Fields != nil || b.payload.Data != nil || b.request.Params != nil {
			t.Error("a bare letter with contents")
		}
		if len(l.Reason) > tebra.MaxAttributeBytes || strings.Contains(l.ID, "\n") {
			t.Error("what no attribute can hold")
		}
	})
}
