package pump

import (
	"context"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// What the vendor's page "Quotas and limits" allows in a publish request (FACTS,
// Pub/Sub). Google's emulator lets some of it pass, so this is where a local run
// meets the limits.
const (
	maxRequestBytes    = 10 << 20
	maxRequestMessages = 1000
	maxDataBytes       = 10_000_000
	maxAttributes      = 100
	maxNameBytes       = 256
	maxValueBytes      = 1024
	maxOrderingKey     = 1024
)

// publisher is the Publisher service, as far as it is needed.
type publisher struct {
	pubsubpb.UnimplementedPublisherServer
	broker *broker
}

func (p publisher) CreateTopic(_ context.Context, asked *pubsubpb.Topic) (*pubsubpb.Topic, error) {
	if !topicName.MatchString(asked.GetName()) {
		return nil, status.Errorf(codes.InvalidArgument, "topic name %q: want projects/PROJECT/topics/ID, ID being a letter and 2 to 254 more characters", asked.GetName())
	}
	created := proto.CloneOf(asked)
	created.State = pubsubpb.Topic_ACTIVE
	if err := p.broker.createTopic(created); err != nil {
		return nil, err
	}
	return created, nil
}

func (p publisher) GetTopic(_ context.Context, r *pubsubpb.GetTopicRequest) (*pubsubpb.Topic, error) {
	return p.broker.topicProto(r.GetTopic())
}

func (p publisher) ListTopics(_ context.Context, r *pubsubpb.ListTopicsRequest) (*pubsubpb.ListTopicsResponse, error) {
	return &pubsubpb.ListTopicsResponse{Topics: p.broker.topicProtos(r.GetProject())}, nil
}

func (p publisher) ListTopicSubscriptions(_ context.Context, r *pubsubpb.ListTopicSubscriptionsRequest) (*pubsubpb.ListTopicSubscriptionsResponse, error) {
	names, err := p.broker.subscriptionNames(r.GetTopic())
	if err != nil {
		return nil, err
	}
	return &pubsubpb.ListTopicSubscriptionsResponse{Subscriptions: names}, nil
}

func (p publisher) DeleteTopic(_ context.Context, r *pubsubpb.DeleteTopicRequest) (*emptypb.Empty, error) {
	if err := p.broker.deleteTopic(r.GetTopic()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// Publish keeps the messages of r: gRPC makes a request for one call only.
func (p publisher) Publish(_ context.Context, r *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	if err := checkPublish(r); err != nil {
		return nil, err
	}
	ids, err := p.broker.publish(r.GetTopic(), r.GetMessages())
	if err != nil {
		return nil, err
	}
	return &pubsubpb.PublishResponse{MessageIds: ids}, nil
}

func checkPublish(r *pubsubpb.PublishRequest) error {
	if n := len(r.GetMessages()); n < 1 || n > maxRequestMessages {
		return status.Errorf(codes.InvalidArgument, "a publish request has 1 to %d messages, not %d", maxRequestMessages, n)
	}
	if n := proto.Size(r); n > maxRequestBytes {
		return status.Errorf(codes.InvalidArgument, "a publish request has at most %d bytes, not %d", maxRequestBytes, n)
	}
	for i, m := range r.GetMessages() {
		if reason := fault(m); reason != "" {
			return status.Errorf(codes.InvalidArgument, "message %d of the request: %s", i, reason)
		}
	}
	return nil
}

// fault says what is wrong with m, without repeating any of it, or "".
func fault(m *pubsubpb.PubsubMessage) string {
	switch {
	case len(m.GetData()) == 0 && len(m.GetAttributes()) == 0:
		return "it has neither data nor attributes"
	case len(m.GetData()) > maxDataBytes:
		return "its data has more than 10,000,000 bytes"
	case len(m.GetAttributes()) > maxAttributes:
		return "it has more than 100 attributes"
	case len(m.GetOrderingKey()) > maxOrderingKey:
		return "its ordering key has more than 1,024 bytes"
	}
	for name, value := range m.GetAttributes() {
		switch {
		case name == "" || len(name) > maxNameBytes:
			return "the name of an attribute has not 1 to 256 bytes"
		case strings.HasPrefix(name, "goog") && !strings.HasPrefix(name, "googclient_"): // what Google's own clients add
			return "the name of an attribute begins with goog, which is reserved"
		case len(value) > maxValueBytes:
			return "the value of an attribute has more than 1,024 bytes"
		}
	}
	return ""
}
