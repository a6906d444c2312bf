// Package topology creates the topics and subscriptions of an installation on an
// emulator, as terraform/modules/messaging does on Google Cloud (DESIGN section 6).
package topology

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Spec says what to create.
type Spec struct {
	Project            string
	Requests           string // topic
	DeadLetters        string // topic
	Inspect            string // subscription of operators to the dead letters
	ProcessURL         string // where requests are pushed to
	RecordURL          string // where dead letters are pushed to
	AckDeadline        time.Duration
	MinBackoff         time.Duration
	MaxBackoff         time.Duration
	MaxAttempts        int
	RequestRetention   time.Duration
	DeadLetterRetained time.Duration
}

// Production fills in what a production installation has: 10 to 600 s of backoff,
// 10 delivery attempts, an ack deadline of 120 s, and a retention of 24 hours for
// requests. Dead letters are kept for the 7 days that emulators allow (FACTS,
// Terraform), not for 31.
func Production(s Spec) Spec {
	s.AckDeadline = 120 * time.Second
	s.MinBackoff, s.MaxBackoff = 10*time.Second, 600*time.Second
	s.MaxAttempts = 10
	s.RequestRetention = 24 * time.Hour
	s.DeadLetterRetained = 7 * 24 * time.Hour
	return s
}

// pushSuffix makes the name of a topic that of its push subscription.
const pushSuffix = "-push"

// Subscription returns the name of the push subscription of a topic.
func Subscription(topic string) string { return topic + pushSuffix }

// Topics is the part of the Pub/Sub client that creates topics.
type Topics interface {
	CreateTopic(context.Context, *pubsubpb.Topic, ...gax.CallOption) (*pubsubpb.Topic, error)
}

// Subscriptions is the part of the Pub/Sub client that creates subscriptions.
type Subscriptions interface {
	DeleteSubscription(context.Context, *pubsubpb.DeleteSubscriptionRequest, ...gax.CallOption) error
	CreateSubscription(context.Context, *pubsubpb.Subscription, ...gax.CallOption) (*pubsubpb.Subscription, error)
}

// Create creates what s says. What is there already is left as it is, except push
// subscriptions, which are made anew.
func Create(ctx context.Context, topics Topics, subs Subscriptions, s Spec) error {
	for _, name := range []string{s.Requests, s.DeadLetters} {
		_, err := topics.CreateTopic(ctx, &pubsubpb.Topic{Name: s.topic(name)})
		if err != nil && status.Code(err) != codes.AlreadyExists {
			return fmt.Errorf("creating topic %s: %w", name, err)
		}
	}
	for _, sub := range s.subscriptions() {
		if err := createSubscription(ctx, subs, sub); err != nil {
			return fmt.Errorf("creating subscription %s: %w", sub.GetName(), err)
		}
	}
	return nil
}

// createSubscription creates a subscription, a push subscription anew: an earlier
// run's pushes to where nobody listens any more, under that run's policy.
func createSubscription(ctx context.Context, subs Subscriptions, sub *pubsubpb.Subscription) error {
	_, err := subs.CreateSubscription(ctx, sub)
	if status.Code(err) != codes.AlreadyExists {
		return err
	}
	if sub.GetPushConfig() == nil {
		return nil
	}
	if err := subs.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: sub.GetName()}); err != nil {
		return err
	}
	_, err = subs.CreateSubscription(ctx, sub)
	return err
}

func (s Spec) topic(name string) string { return "projects/" + s.Project + "/topics/" + name }

func (s Spec) subscription(name string) string {
	return "projects/" + s.Project + "/subscriptions/" + name
}

// subscriptions returns the push subscription of requests with its retry and
// dead-letter policy, that of dead letters, which retries for ever, and the one
// that operators pull from.
func (s Spec) subscriptions() []*pubsubpb.Subscription {
	retry := &pubsubpb.RetryPolicy{
		MinimumBackoff: durationpb.New(s.MinBackoff), MaximumBackoff: durationpb.New(s.MaxBackoff),
	}
	ack := int32(s.AckDeadline / time.Second)
	never := &pubsubpb.ExpirationPolicy{} // without one, a subscription that is idle for 31 days is gone
	return []*pubsubpb.Subscription{{
		Name: s.subscription(Subscription(s.Requests)), Topic: s.topic(s.Requests),
		PushConfig:         &pubsubpb.PushConfig{PushEndpoint: s.ProcessURL},
		AckDeadlineSeconds: ack, MessageRetentionDuration: durationpb.New(s.RequestRetention),
		RetryPolicy: retry, ExpirationPolicy: never,
		DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{
			DeadLetterTopic: s.topic(s.DeadLetters), MaxDeliveryAttempts: int32(s.MaxAttempts),
		},
	}, {
		Name: s.subscription(Subscription(s.DeadLetters)), Topic: s.topic(s.DeadLetters),
		PushConfig:         &pubsubpb.PushConfig{PushEndpoint: s.RecordURL},
		AckDeadlineSeconds: ack, MessageRetentionDuration: durationpb.New(s.DeadLetterRetained),
		RetryPolicy: retry, ExpirationPolicy: never,
	}, {
		Name: s.subscription(s.Inspect), Topic: s.topic(s.DeadLetters),
		AckDeadlineSeconds: ack, MessageRetentionDuration: durationpb.New(s.DeadLetterRetained),
		ExpirationPolicy: never,
	}}
}
