package pump

import (
	"context"
	"net/url"
	"regexp"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// The bounds and defaults that the vendor's API reference gives for a subscription.
const (
	minAckDeadline     = 10 * time.Second
	maxAckDeadline     = 600 * time.Second
	minRetention       = 10 * time.Minute
	maxRetention       = 31 * 24 * time.Hour
	defaultRetention   = 7 * 24 * time.Hour
	defaultMinBackoff  = 10 * time.Second
	maxBackoff         = 600 * time.Second
	minAttempts        = 5
	maxAttempts        = 100
	minBackoffOfPush   = 100 * time.Millisecond // without a retry policy
	maxBackoffOfPush   = 60 * time.Second
	subscriptionFormat = `^projects/([^/]+)/subscriptions/([A-Za-z][A-Za-z0-9._~+%-]{2,254})$`
	topicFormat        = `^projects/[^/]+/topics/[A-Za-z][A-Za-z0-9._~+%-]{2,254}$`
)

var (
	subscriptionName = regexp.MustCompile(subscriptionFormat)
	topicName        = regexp.MustCompile(topicFormat)
)

// policy is what a subscription was asked to do, with the defaults filled in.
type policy struct {
	endpoint    string // empty for pull
	ackDeadline time.Duration
	retention   time.Duration
	minBackoff  time.Duration
	maxBackoff  time.Duration
	maxAttempts int    // 0 without a dead-letter policy
	deadLetters string // topic; empty without a dead-letter policy
}

// backoff is how long a message waits after its attempts so far have failed.
func (p policy) backoff(attempts int) time.Duration {
	wait := p.minBackoff
	for range attempts - 1 {
		if wait >= p.maxBackoff {
			break
		}
		wait *= 2
	}
	return min(wait, p.maxBackoff)
}

// subscription is one subscription's state.
type subscription struct {
	name, project, id string
	policy            policy
	life              lifetime // ends when the subscription is deleted

	// What follows is guarded by the broker's lock.

	proto   *pubsubpb.Subscription // as it is shown; replaced, never changed
	waiting queue                  // due, or waiting out a backoff
	leases  queue                  // in somebody's hands
	held    map[string]*delivery   // both, by message ID
	changed chan struct{}          // closed at the next change, where somebody waits for one
	awaited bool
}

// newSubscription checks what was asked for and fills in what was not. It keeps
// asked, which must not be changed afterwards.
func newSubscription(ctx context.Context, asked *pubsubpb.Subscription) (*subscription, error) {
	name := subscriptionName.FindStringSubmatch(asked.GetName())
	if name == nil {
		return nil, status.Errorf(codes.InvalidArgument, "subscription name %q: want projects/PROJECT/subscriptions/ID, ID being a letter and 2 to 254 more characters", asked.GetName())
	}
	if feature := unsupported(asked); feature != "" {
		return nil, status.Errorf(codes.Unimplemented, "subscription %s: this local Pub/Sub does not do %s", asked.GetName(), feature)
	}
	fillIn(asked)
	p, err := newPolicy(asked)
	if err != nil {
		return nil, err
	}
	return &subscription{
		name: asked.Name, project: name[1], id: name[2], policy: p, life: newLifetime(ctx),
		proto: asked, held: map[string]*delivery{}, changed: make(chan struct{}),
	}, nil
}

// unsupported names what was asked for and would be delivered wrongly, or "".
func unsupported(asked *pubsubpb.Subscription) string {
	switch {
	case asked.GetFilter() != "":
		return "filter"
	case asked.GetEnableMessageOrdering():
		return "enable_message_ordering"
	case asked.GetEnableExactlyOnceDelivery():
		return "enable_exactly_once_delivery"
	case asked.GetRetainAckedMessages():
		return "retain_acked_messages"
	case asked.GetBigqueryConfig() != nil:
		return "bigquery_config"
	case asked.GetCloudStorageConfig() != nil:
		return "cloud_storage_config"
	case len(asked.GetMessageTransforms()) > 0:
		return "message_transforms"
	case asked.GetPushConfig().GetNoWrapper() != nil:
		return "push without the wrapper"
	}
	return ""
}

// fillIn sets the defaults that the service would show.
func fillIn(asked *pubsubpb.Subscription) {
	asked.State = pubsubpb.Subscription_ACTIVE
	if asked.PushConfig == nil {
		asked.PushConfig = &pubsubpb.PushConfig{}
	}
	if asked.AckDeadlineSeconds == 0 {
		asked.AckDeadlineSeconds = int32(minAckDeadline / time.Second)
	}
	if asked.MessageRetentionDuration == nil {
		asked.MessageRetentionDuration = durationpb.New(defaultRetention)
	}
	if retry := asked.RetryPolicy; retry != nil {
		if retry.MinimumBackoff == nil {
			retry.MinimumBackoff = durationpb.New(defaultMinBackoff)
		}
		if retry.MaximumBackoff == nil {
			retry.MaximumBackoff = durationpb.New(maxBackoff)
		}
	}
	if dead := asked.DeadLetterPolicy; dead != nil && dead.MaxDeliveryAttempts == 0 {
		dead.MaxDeliveryAttempts = minAttempts
	}
}

// newPolicy reads the policy from a subscription whose defaults are filled in.
func newPolicy(asked *pubsubpb.Subscription) (policy, error) {
	p := policy{
		endpoint:    asked.PushConfig.GetPushEndpoint(),
		ackDeadline: time.Duration(asked.AckDeadlineSeconds) * time.Second,
		retention:   asked.MessageRetentionDuration.AsDuration(),
		deadLetters: asked.DeadLetterPolicy.GetDeadLetterTopic(),
		maxAttempts: int(asked.DeadLetterPolicy.GetMaxDeliveryAttempts()),
	}
	p.minBackoff, p.maxBackoff = backoffs(asked)
	refuse := func(what string, got any) (policy, error) {
		return policy{}, status.Errorf(codes.InvalidArgument, "subscription %s: %s, got %v", asked.Name, what, got)
	}
	switch {
	case p.endpoint != "" && !isEndpoint(p.endpoint):
		return refuse("want an http or https URL as push endpoint", p.endpoint)
	case p.ackDeadline < minAckDeadline || p.ackDeadline > maxAckDeadline:
		return refuse("want an ack deadline of 10s to 600s", p.ackDeadline)
	case p.retention < minRetention || p.retention > maxRetention:
		return refuse("want a message retention of 10m to 744h", p.retention)
	case p.minBackoff < 0 || p.minBackoff > p.maxBackoff || p.maxBackoff > maxBackoff:
		return refuse("want backoffs of 0s to 600s, the minimum not over the maximum", []time.Duration{p.minBackoff, p.maxBackoff})
	case asked.DeadLetterPolicy != nil && p.deadLetters == "":
		return refuse("want a topic in the dead-letter policy", "none")
	case asked.DeadLetterPolicy != nil && (p.maxAttempts < minAttempts || p.maxAttempts > maxAttempts):
		return refuse("want 5 to 100 delivery attempts", p.maxAttempts)
	}
	return p, nil
}

// backoffs returns the bounds of the wait between attempts. Without a retry policy
// a pulled message comes again at once, and a pushed one as the service slows a
// failing push endpoint (FACTS, Pub/Sub: 100 ms to 60 s).
func backoffs(asked *pubsubpb.Subscription) (shortest, longest time.Duration) {
	if retry := asked.RetryPolicy; retry != nil {
		return retry.MinimumBackoff.AsDuration(), retry.MaximumBackoff.AsDuration()
	}
	if asked.PushConfig.GetPushEndpoint() != "" {
		return minBackoffOfPush, maxBackoffOfPush
	}
	return 0, 0
}

func isEndpoint(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// change returns a channel that is closed at the next change. The broker's lock
// is held.
func (s *subscription) change() <-chan struct{} {
	s.awaited = true
	return s.changed
}

// signal wakes who waits for a change. The broker's lock is held.
func (s *subscription) signal() {
	if !s.awaited {
		return
	}
	close(s.changed)
	s.changed, s.awaited = make(chan struct{}), false
}

// queueOf returns the queue that d is in.
func (s *subscription) queueOf(d *delivery) *queue {
	if d.leased {
		return &s.leases
	}
	return &s.waiting
}
