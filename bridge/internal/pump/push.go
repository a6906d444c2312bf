package pump

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"tebraproxy/pkg/push"
)

// maxDrained is how many bytes of an answer are read, so that its connection can
// be used again. Nobody looks at them.
const maxDrained = 64 << 10

// pushAll pushes what s gets until s is deleted or the broker stops, and returns
// when the last push has ended.
func (b *broker) pushAll(s *subscription) {
	var underWay sync.WaitGroup
	defer underWay.Wait()
	slots := make(chan struct{}, b.maxPushes)
	for {
		select {
		case slots <- struct{}{}:
		case <-s.life.Done():
			return
		}
		received := b.await(s)
		if received == nil {
			return
		}
		underWay.Go(func() {
			defer func() { <-slots }()
			b.pushOne(s, received)
		})
	}
}

// await leases the next message, or returns nil when s has come to its end.
func (b *broker) await(s *subscription) *pubsubpb.ReceivedMessage {
	for {
		taken := b.take(s, 1, s.policy.ackDeadline, nil)
		if len(taken.messages) > 0 {
			return taken.messages[0]
		}
		timer := time.NewTimer(taken.wait)
		select {
		case <-taken.changed:
		case <-timer.C:
		case <-s.life.Done():
			return nil
		}
		timer.Stop()
	}
}

// pushOne makes one attempt, within the acknowledgement deadline.
func (b *broker) pushOne(s *subscription, received *pubsubpb.ReceivedMessage) {
	ctx, cancel := context.WithTimeout(s.life, s.policy.ackDeadline)
	defer cancel()
	code, err := b.post(ctx, s.policy.endpoint, envelope(s, received))
	if err == nil && acknowledges(code) {
		b.acknowledge(s, received.AckId)
		return
	}
	b.log.Debug("push failed", "subscription", s.name, "delivery", received.AckId, "status", code, "error", err)
	b.extend(s, 0, received.AckId)
}

func envelope(s *subscription, received *pubsubpb.ReceivedMessage) []byte {
	m := received.Message
	return push.Message{
		ID:              m.MessageId,
		Data:            m.Data,
		Attributes:      m.Attributes,
		PublishTime:     m.PublishTime.AsTime(),
		OrderingKey:     m.OrderingKey,
		Subscription:    s.name,
		DeliveryAttempt: int(received.DeliveryAttempt),
	}.Append(nil)
}

// post sends body and returns the status of the answer. It follows no redirects,
// as the service follows none.
func (b *broker) post(ctx context.Context, endpoint string, body []byte) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "CloudPubSub-Google")
	answer, err := b.transport.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	// The answer is its status; a body that breaks off changes nothing about it.
	_, _ = io.CopyN(io.Discard, answer.Body, maxDrained)
	return answer.StatusCode, nil
}

// acknowledges says what an endpoint means by its status (FACTS, Pub/Sub). A 102
// shows only with transports that take it for a final one; Go's own waits for what
// follows.
func acknowledges(status int) bool {
	switch status {
	case http.StatusProcessing, http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent:
		return true
	}
	return false
}
