package pump

import (
	"context"
	"errors"
	"io"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	// pullWait is how long a Pull waits for a first message. The service leaves it
	// open; an operator who lists the dead letters should not wait for long.
	pullWait = 500 * time.Millisecond
	// maxPull bounds the messages in one answer, as the service bounds them.
	maxPull = 1000
	// maxStreamed bounds the messages in one answer on a stream.
	maxStreamed = 100
	// answersPings is the streaming pull protocol in which a client that hears
	// nothing for long opens another stream, so it asks for signs of life.
	answersPings = 1
)

// subscriber is the Subscriber service, as far as it is needed.
type subscriber struct {
	pubsubpb.UnimplementedSubscriberServer
	broker *broker
}

func (s subscriber) CreateSubscription(_ context.Context, asked *pubsubpb.Subscription) (*pubsubpb.Subscription, error) {
	created, err := newSubscription(s.broker.life, proto.CloneOf(asked))
	if err != nil {
		return nil, err
	}
	if err := s.broker.createSubscription(created); err != nil {
		created.life.end()
		return nil, err
	}
	return s.broker.subscriptionProto(asked.GetName())
}

func (s subscriber) GetSubscription(_ context.Context, r *pubsubpb.GetSubscriptionRequest) (*pubsubpb.Subscription, error) {
	return s.broker.subscriptionProto(r.GetSubscription())
}

func (s subscriber) ListSubscriptions(_ context.Context, r *pubsubpb.ListSubscriptionsRequest) (*pubsubpb.ListSubscriptionsResponse, error) {
	return &pubsubpb.ListSubscriptionsResponse{Subscriptions: s.broker.subscriptionProtos(r.GetProject())}, nil
}

func (s subscriber) DeleteSubscription(_ context.Context, r *pubsubpb.DeleteSubscriptionRequest) (*emptypb.Empty, error) {
	if err := s.broker.deleteSubscription(r.GetSubscription()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s subscriber) Acknowledge(_ context.Context, r *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	found, err := s.broker.find(r.GetSubscription())
	if err != nil {
		return nil, err
	}
	s.broker.acknowledge(found, r.GetAckIds()...)
	return &emptypb.Empty{}, nil
}

func (s subscriber) ModifyAckDeadline(_ context.Context, r *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	found, err := s.broker.find(r.GetSubscription())
	if err != nil {
		return nil, err
	}
	if err := s.broker.modify(found, r.GetAckDeadlineSeconds(), r.GetAckIds()...); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// modify is extend for seconds as clients send them.
func (b *broker) modify(s *subscription, seconds int32, ids ...string) error {
	lease := time.Duration(seconds) * time.Second
	if lease < 0 || lease > maxAckDeadline {
		return status.Errorf(codes.InvalidArgument, "an ack deadline is 0 to 600 seconds, not %d", seconds)
	}
	b.extend(s, lease, ids...)
	return nil
}

func (s subscriber) Pull(ctx context.Context, r *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	found, err := s.findPulled(r.GetSubscription())
	if err != nil {
		return nil, err
	}
	if r.GetMaxMessages() < 1 {
		return nil, status.Errorf(codes.InvalidArgument, "max_messages is %d: want 1 or more", r.GetMaxMessages())
	}
	deadline := time.NewTimer(pullWait)
	defer deadline.Stop()
	for {
		taken := s.broker.take(found, min(int(r.GetMaxMessages()), maxPull), found.policy.ackDeadline, nil)
		//lint:ignore SA1019 deprecated, but honoured by the service
		if len(taken.messages) > 0 || r.GetReturnImmediately() {
			return &pubsubpb.PullResponse{ReceivedMessages: taken.messages}, nil
		}
		select {
		case <-taken.changed:
		case <-time.After(taken.wait):
		case <-deadline.C:
			return &pubsubpb.PullResponse{}, nil
		case <-found.life.Done():
			return nil, noSubscription(r.GetSubscription())
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// findPulled returns a subscription that nobody is pushing for.
func (s subscriber) findPulled(name string) (*subscription, error) {
	found, err := s.broker.find(name)
	if err != nil {
		return nil, err
	}
	if found.policy.endpoint != "" {
		return nil, status.Errorf(codes.FailedPrecondition, "subscription %s pushes; it can't be pulled from", name)
	}
	return found, nil
}

// StreamingPull sends messages until the client ends the stream or the
// subscription is deleted. What the client then has in hand comes again when its
// lease runs out.
func (s subscriber) StreamingPull(client pubsubpb.Subscriber_StreamingPullServer) error {
	opening, err := client.Recv()
	if err != nil {
		return err
	}
	found, err := s.findPulled(opening.GetSubscription())
	if err != nil {
		return err
	}
	lease := time.Duration(opening.GetStreamAckDeadlineSeconds()) * time.Second
	if lease < minAckDeadline || lease > maxAckDeadline {
		return status.Errorf(codes.InvalidArgument, "stream_ack_deadline_seconds is %d: want 10 to 600", opening.GetStreamAckDeadlineSeconds())
	}
	st := &stream{
		broker: s.broker, subscription: found, client: client, lease: lease,
		window:   &window{maxMessages: opening.GetMaxOutstandingMessages(), maxBytes: opening.GetMaxOutstandingBytes()},
		pings:    make(chan struct{}, 1),
		received: make(chan error, 1),
	}
	if opening.GetProtocolVersion() < answersPings {
		st.pings = nil
	}
	if err := st.settle(opening); err != nil {
		return err
	}
	// gRPC ends Recv when this call returns, so the receiver outlives it by a moment.
	s.broker.running.Go(func() { st.received <- st.receive() })
	return st.send()
}

// stream is one streaming pull: one goroutine receives, one sends.
type stream struct {
	broker       *broker
	subscription *subscription
	client       pubsubpb.Subscriber_StreamingPullServer
	lease        time.Duration
	window       *window
	pings        chan struct{} // nil where the client expects no answers
	received     chan error    // why the receiver ended
}

func (st *stream) send() error {
	for {
		taken := st.broker.take(st.subscription, maxStreamed, st.lease, st.window)
		if len(taken.messages) > 0 {
			if err := st.client.Send(&pubsubpb.StreamingPullResponse{ReceivedMessages: taken.messages}); err != nil {
				return err
			}
			continue
		}
		if done, err := st.pause(taken); done {
			return err
		}
	}
}

// pause waits until there may be more to send. It reports whether the stream has
// come to its end instead, and how.
func (st *stream) pause(taken batch) (done bool, err error) {
	timer := time.NewTimer(taken.wait)
	defer timer.Stop()
	select {
	case <-taken.changed:
		return false, nil
	case <-timer.C:
		return false, nil
	case <-st.pings:
		err := st.client.Send(&pubsubpb.StreamingPullResponse{})
		return err != nil, err
	case err := <-st.received:
		return true, err
	case <-st.subscription.life.Done():
		return true, noSubscription(st.subscription.name)
	}
}

// receive settles what the client sends until it sends no more.
func (st *stream) receive() error {
	for {
		r, err := st.client.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := st.settle(r); err != nil {
			return err
		}
		select {
		case st.pings <- struct{}{}:
		default: // an answer is on its way, or none is expected
		}
	}
}

// settle does what r asks for about deliveries.
func (st *stream) settle(r *pubsubpb.StreamingPullRequest) error {
	ids, seconds := r.GetModifyDeadlineAckIds(), r.GetModifyDeadlineSeconds()
	if len(ids) != len(seconds) {
		return status.Errorf(codes.InvalidArgument, "%d modify_deadline_ack_ids with %d modify_deadline_seconds: want one for each", len(ids), len(seconds))
	}
	st.broker.acknowledge(st.subscription, r.GetAckIds()...)
	for i, id := range ids {
		if err := st.broker.modify(st.subscription, seconds[i], id); err != nil {
			return err
		}
	}
	return nil
}
