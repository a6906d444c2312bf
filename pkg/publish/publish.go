package publish

import (
	"context"
	"errors"
	"fmt"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Pub/Sub's limits on a publish request (FACTS, Pub/Sub): 1,000 messages, and
// 10 MB, less room for its envelope.
const (
	MaxMessages     = 1000
	maxRequestBytes = 9 << 20
)

// TopicClient is the part of the Pub/Sub client that publishing needs. What
// a bridge has read goes out as one request rather than message by message
// through the client's Publisher, which would batch a second time.
type TopicClient interface {
	Publish(context.Context, *pubsubpb.PublishRequest, ...gax.CallOption) (*pubsubpb.PublishResponse, error)
}

// RefusedError says that Pub/Sub refused one message for what it is, so that
// sending it again can't help.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return "Pub/Sub refused the message: " + e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// Publisher publishes batches to one topic. It is safe for concurrent use.
type Publisher struct {
	client TopicClient
	topic  string
}

// New returns a publisher to topic, a full resource name. It neither
// dials nor owns the client.
func New(client TopicClient, topic string) *Publisher {
	return &Publisher{client: client, topic: topic}
}

// Publish sends messages, in as many requests as Pub/Sub's limits ask for, and
// returns an error for each: nil once the broker has confirmed it, a
// [*RefusedError] where only that message is at fault, anything else where it
// may be sent again. Every request ends with ctx, which must have a deadline.
func (p *Publisher) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) []error {
	errs := make([]error, len(messages))
	for start := 0; start < len(messages); {
		end := chunkEnd(messages, start)
		p.send(ctx, messages[start:end], errs[start:end])
		start = end
	}
	return errs
}

// One publishes a single message.
func (p *Publisher) One(ctx context.Context, message *pubsubpb.PubsubMessage) error {
	return p.Publish(ctx, []*pubsubpb.PubsubMessage{message})[0]
}

// chunkEnd returns where the request that begins at start must end.
func chunkEnd(messages []*pubsubpb.PubsubMessage, start int) int {
	bytes := 0
	for i := start; i < len(messages); i++ {
		bytes += proto.Size(messages[i])
		if i > start && (bytes > maxRequestBytes || i-start == MaxMessages) {
			return i
		}
	}
	return len(messages)
}

// send publishes one request's worth. When Pub/Sub refuses it for one message,
// it halves it until that message stands alone and the others are through.
func (p *Publisher) send(ctx context.Context, messages []*pubsubpb.PubsubMessage, errs []error) {
	err := p.request(ctx, messages)
	if err == nil {
		return
	}
	if status.Code(err) == codes.InvalidArgument {
		if len(messages) > 1 {
			half := len(messages) / 2
			p.send(ctx, messages[:half], errs[:half])
			p.send(ctx, messages[half:], errs[half:])
			return
		}
		err = &RefusedError{Err: err}
	}
	for i := range errs {
		errs[i] = err
	}
}

// request makes one call. The client's own retries are switched off: whether to
// try again, and to read on meanwhile, is for the bridge to decide.
func (p *Publisher) request(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	req := &pubsubpb.PublishRequest{Topic: p.topic, Messages: messages}
	resp, err := p.client.Publish(ctx, req, gax.WithRetry(nil))
	if err != nil {
		return fmt.Errorf("publishing %d messages to %s: %w", len(messages), p.topic, err)
	}
	if len(resp.GetMessageIds()) != len(messages) {
		return fmt.Errorf("publishing to %s: %w", p.topic, errUnconfirmed)
	}
	return nil
}

// errUnconfirmed means that the broker answered, but not for every message.
var errUnconfirmed = errors.New("the broker did not confirm every message")
