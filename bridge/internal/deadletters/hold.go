package deadletters

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
)

// Subscriber is the part of the Pub/Sub client that works on a subscription.
type Subscriber interface {
	Pull(context.Context, *pubsubpb.PullRequest, ...gax.CallOption) (*pubsubpb.PullResponse, error)
	ModifyAckDeadline(context.Context, *pubsubpb.ModifyAckDeadlineRequest, ...gax.CallOption) error
	Acknowledge(context.Context, *pubsubpb.AcknowledgeRequest, ...gax.CallOption) error
}

const (
	// lease is how long a letter is held before it must be extended, and how long
	// it stays out of sight when this process is killed.
	lease = time.Minute
	// page is how many letters are pulled at a time: of the largest, as much as one
	// answer may hold.
	page = 50
	// ackChunk bounds the acknowledgement IDs of a request, of some hundred bytes
	// each, far below Pub/Sub's 512 KiB.
	ackChunk = 500
	// pullTime is how much longer than Config.Quiet one pull may wait for a first
	// letter. The service may wait for long before it says that there is none;
	// nothing in that time is as good. Google's emulator answers a second before.
	pullTime = 1200 * time.Millisecond
	// callTimeout bounds one call that does not wait for messages.
	callTimeout = 10 * time.Second
	// afterwards is how long giving back and acknowledging may take once the
	// caller has left.
	afterwards = 5 * time.Second
)

// hold is what one act has taken from the subscription. Its owner calls release,
// which ends the goroutine that extends the leases.
type hold struct {
	sub  Subscriber
	name string // of the subscription
	end  context.CancelFunc
	done sync.WaitGroup

	mu   sync.Mutex
	acks map[string]string // newest acknowledgement ID by message ID
}

// newHold begins to hold. every is how often leases are extended.
func newHold(ctx context.Context, sub Subscriber, name string, every time.Duration) *hold {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h := &hold{sub: sub, name: name, end: cancel, acks: map[string]string{}}
	h.done.Go(func() { h.keep(ctx, every) })
	return h
}

// keep extends what is held until release. Where that fails once, the next time
// is still within the lease; after that, letters come again to somebody, which
// every act must bear.
func (h *hold) keep(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = h.modify(ctx, h.held(), lease)
		}
	}
}

func (h *hold) held() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.acks))
}

// take pulls at most most letters, waits for the first of them until wait is over,
// and returns those that are not held already.
func (h *hold) take(ctx context.Context, most int, wait time.Duration) ([]*pubsubpb.PubsubMessage, error) {
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	pulled, err := h.sub.Pull(bounded, &pubsubpb.PullRequest{Subscription: h.name, MaxMessages: int32(most)})
	switch {
	case err != nil && ctx.Err() != nil: // a status of the client's would hide it
		return nil, ctx.Err()
	case err != nil && bounded.Err() != nil:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("pulling from %s: %w", h.name, err)
	}
	var fresh []*pubsubpb.PubsubMessage
	var ids []string
	for _, m := range pulled.GetReceivedMessages() {
		if h.add(m) {
			fresh = append(fresh, m.GetMessage())
		}
		ids = append(ids, m.GetAckId())
	}
	return fresh, h.modify(ctx, ids, lease)
}

// add notes a letter and reports whether it was not held before.
func (h *hold) add(m *pubsubpb.ReceivedMessage) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, known := h.acks[m.GetMessage().GetMessageId()]
	h.acks[m.GetMessage().GetMessageId()] = m.GetAckId()
	return !known
}

// modify gives letters a new deadline, 0 to give them back.
func (h *hold) modify(ctx context.Context, ackIDs []string, deadline time.Duration) error {
	for chunk := range slices.Chunk(ackIDs, ackChunk) {
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		err := h.sub.ModifyAckDeadline(bounded, &pubsubpb.ModifyAckDeadlineRequest{
			Subscription: h.name, AckIds: chunk, AckDeadlineSeconds: int32(deadline / time.Second),
		})
		cancel()
		if err != nil {
			return fmt.Errorf("changing the deadlines of %d letters of %s: %w", len(chunk), h.name, err)
		}
	}
	return nil
}

// acknowledge ends letters for good. It goes on for a while when ctx has ended,
// because what was done about them was done.
func (h *hold) acknowledge(ctx context.Context, messageIDs []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	for chunk := range slices.Chunk(messageIDs, ackChunk) {
		err := h.sub.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: h.name, AckIds: h.ackIDs(chunk)})
		if err != nil {
			return fmt.Errorf("acknowledging %d letters of %s: %w", len(chunk), h.name, err)
		}
		h.forget(chunk)
	}
	return nil
}

func (h *hold) ackIDs(messageIDs []string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := make([]string, 0, len(messageIDs))
	for _, id := range messageIDs {
		ids = append(ids, h.acks[id])
	}
	return ids
}

func (h *hold) forget(messageIDs []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range messageIDs {
		delete(h.acks, id)
	}
}

// release gives everything back that was not acknowledged, also when ctx has
// ended, and adds to err where it can't.
func (h *hold) release(ctx context.Context, err *error) {
	h.end()
	h.done.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	if failed := h.modify(ctx, h.held(), 0); failed != nil {
		*err = errors.Join(*err, fmt.Errorf("%w; the letters come back by themselves within %v", failed, lease))
	}
}
