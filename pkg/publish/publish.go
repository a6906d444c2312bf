package publish

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tebraproxy/pkg/tebra"
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

// RefusedError says that Pub/Sub refused a message that it was asked to take
// alone: for what it is, or for what the topic is. One that is misnamed, or has
// got a schema, refuses everything.
type RefusedError struct {
	Err error
	// First is how many messages the topic had taken from this publisher when it
	// refused this one first, in the company of others, and Last when it refused it
	// alone. Where Last is the greater of the two, also that of one try and First
	// of one before, the topic took others meanwhile: the message is at fault.
	First, Last int64
}

func (e *RefusedError) Error() string { return "Pub/Sub refused the message: " + e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// Publisher publishes batches to one topic. It is safe for concurrent use.
type Publisher struct {
	client   TopicClient
	topic    string
	accepted atomic.Int64 // messages that the broker has confirmed
}

// New returns a publisher to topic, a full resource name. It neither dials nor
// owns the client.
func New(client TopicClient, topic string) *Publisher {
	return &Publisher{client: client, topic: topic}
}

// Publish sends a batch, in as many requests as Pub/Sub's limits ask for, and
// returns an error for each message: nil once the broker has confirmed it, a
// [*RefusedError] where it was refused alone, anything else where it may be sent
// again. Every request ends with ctx, which must have a deadline.
func (p *Publisher) Publish(ctx context.Context, b *Batch) []error {
	errs := make([]error, b.Len())
	for start := 0; start < b.Len(); {
		end := chunkEnd(b, start)
		p.send(ctx, b, start, end, errs)
		start = end
	}
	return errs
}

// One publishes a single message.
func (p *Publisher) One(ctx context.Context, data []byte, envelope tebra.Envelope) error {
	var b Batch
	b.Add(data, &envelope)
	return p.Publish(ctx, &b)[0]
}

// chunkEnd returns where the request that begins with message start must end.
func chunkEnd(b *Batch, start int) int {
	for end := start + 1; end < b.Len(); end++ {
		if end-start == MaxMessages || len(b.slice(start, end+1)) > maxRequestBytes {
			return end
		}
	}
	return b.Len()
}

// send publishes one request's worth. When Pub/Sub refuses it for one message,
// it halves it until that message stands alone and the others are through.
func (p *Publisher) send(ctx context.Context, b *Batch, start, end int, errs []error) {
	err := p.request(ctx, b, start, end)
	if status.Code(err) == codes.InvalidArgument {
		p.halve(ctx, b, start, end, errs, err, p.accepted.Load())
		return
	}
	for i := start; i < end; i++ {
		errs[i] = err
	}
}

// halve sends the halves of what was refused with refusal. first is how many
// messages the topic had taken when it refused these first.
func (p *Publisher) halve(ctx context.Context, b *Batch, start, end int, errs []error, refusal error, first int64) {
	if end-start == 1 {
		errs[start] = &RefusedError{Err: refusal, First: first, Last: p.accepted.Load()}
		return
	}
	middle := start + (end-start)/2
	for _, half := range [...][2]int{{start, middle}, {middle, end}} {
		err := p.request(ctx, b, half[0], half[1])
		if status.Code(err) == codes.InvalidArgument {
			p.halve(ctx, b, half[0], half[1], errs, err, first)
			continue
		}
		for i := half[0]; i < half[1]; i++ {
			errs[i] = err
		}
	}
}

// request makes one call. The messages go along as fields that are encoded
// already, which protobuf calls unknown and copies as they are. The client's own
// retries are switched off: whether to try again, and to read on meanwhile, is
// for the bridge to decide.
func (p *Publisher) request(ctx context.Context, b *Batch, start, end int) error {
	req := &pubsubpb.PublishRequest{Topic: p.topic}
	req.ProtoReflect().SetUnknown(b.slice(start, end))
	resp, err := p.client.Publish(ctx, req, gax.WithRetry(nil))
	if err != nil {
		return fmt.Errorf("publishing %d messages to %s: %w", end-start, p.topic, err)
	}
	if len(resp.GetMessageIds()) != end-start {
		return fmt.Errorf("publishing to %s: %w", p.topic, errUnconfirmed)
	}
	p.accepted.Add(int64(end - start))
	return nil
}

// errUnconfirmed means that the broker answered, but not for every message.
var errUnconfirmed = errors.New("the broker did not confirm every message")
