package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What the subscriptions are deployed with (DESIGN section 6 and 10).
const (
	wantAttempts      = 10
	wantMinBackoff    = 10 * time.Second
	wantMaxBackoff    = 600 * time.Second
	wantRetention     = 24 * time.Hour
	wantLettersKept   = 31 * 24 * time.Hour
	emulatorKeepsMost = 7 * 24 * time.Hour
	wantAckDeadline   = 120 * time.Second
)

// pushSuffix makes the name of a topic that of its push subscription.
const pushSuffix = "-push"

// pubsub checks topics, subscriptions and rights.
func (e *examination) pubsub(ctx context.Context) {
	a := e.area("pubsub")
	if e.Topics == nil || e.Subscriptions == nil {
		a.skip("topics", "%s", e.NoPubSub)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 6*checkTimeout)
	defer cancel()
	if !e.topic(ctx, a, e.PubSub.Requests()) || !e.topic(ctx, a, e.PubSub.DeadLetters()) {
		return
	}
	e.requestsSubscription(ctx, a)
	e.lettersSubscription(ctx, a)
	e.inspectSubscription(ctx, a)
	e.agent(ctx, a)
}

// topic reports whether there is any use in looking further.
func (e *examination) topic(ctx context.Context, a area, name string) bool {
	check := "topic " + short(name)
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	_, err := e.Topics.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: name})
	switch status.Code(err) {
	case codes.OK:
		a.ok(check, "there")
	case codes.NotFound:
		a.fail(check, "there is no such topic in project "+e.PubSub.Project, "create it (terraform/ does), or correct GOOGLE_CLOUD_PROJECT")
	case codes.PermissionDenied:
		a.skip(check, "this identity may not look at it (roles/pubsub.viewer)")
	default:
		a.fail(check, "Pub/Sub can't be asked: "+grpcText(err), "is the network open to pubsub.googleapis.com, and are the credentials valid?")
		return false
	}
	return true
}

// subscription returns what Pub/Sub shows of one, nil where that is said already.
func (e *examination) subscription(ctx context.Context, a area, name string) *pubsubpb.Subscription {
	check := "subscription " + name
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	sub, err := e.Subscriptions.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: e.fullName(name)})
	switch status.Code(err) {
	case codes.OK:
		return sub
	case codes.NotFound:
		a.fail(check, "there is no such subscription in project "+e.PubSub.Project, "create it (terraform/ does): without it, messages are lost or stay unseen")
	case codes.PermissionDenied:
		a.skip(check, "this identity may not look at it (roles/pubsub.viewer)")
	default:
		a.fail(check, "Pub/Sub can't be asked: "+grpcText(err), "is the network open to pubsub.googleapis.com, and are the credentials valid?")
	}
	return nil
}

func (e *examination) fullName(subscription string) string {
	return "projects/" + e.PubSub.Project + "/subscriptions/" + subscription
}

// faults gathers what is wrong with one subscription.
type faults struct{ failed, warned []string }

func (f *faults) fail(format string, args ...any) {
	f.failed = append(f.failed, fmt.Sprintf(format, args...))
}

func (f *faults) warn(format string, args ...any) {
	f.warned = append(f.warned, fmt.Sprintf(format, args...))
}

func (f *faults) tell(a area, check, good, remedy string) {
	switch {
	case len(f.failed) > 0:
		a.fail(check, strings.Join(append(f.failed, f.warned...), "; "), remedy)
	case len(f.warned) > 0:
		a.warn(check, strings.Join(f.warned, "; "), remedy)
	default:
		a.ok(check, "%s", good)
	}
}

const terraformRemedy = "apply terraform/, which sets all of it, or set it by hand"

func (e *examination) requestsSubscription(ctx context.Context, a area) {
	name := e.PubSub.RequestsTopic + pushSuffix
	sub := e.subscription(ctx, a, name)
	if sub == nil {
		return
	}
	var f faults
	e.common(&f, sub, e.PubSub.Requests())
	e.push(&f, sub, "ProcessRequest")
	e.retry(&f, sub)
	dead := sub.GetDeadLetterPolicy()
	switch {
	case dead == nil:
		f.fail("it has no dead-letter policy, so that a failing request is tried until it is dropped unanswered")
	case dead.GetDeadLetterTopic() != e.PubSub.DeadLetters():
		f.fail("its dead letters go to %s, not to %s", short(dead.GetDeadLetterTopic()), e.PubSub.DeadLettersTopic)
	case dead.GetMaxDeliveryAttempts() != wantAttempts && !e.Local:
		f.warn("it gives up after %d deliveries, not %d", dead.GetMaxDeliveryAttempts(), wantAttempts)
	}
	if kept := sub.GetMessageRetentionDuration().AsDuration(); kept != wantRetention {
		f.warn("it keeps messages for %v, not %v; LEDGER_TTL must be longer", kept, wantRetention)
	}
	f.tell(a, "subscription "+name, fmt.Sprintf("pushes to %s, %d deliveries, then %s",
		sub.GetPushConfig().GetPushEndpoint(), dead.GetMaxDeliveryAttempts(), e.PubSub.DeadLettersTopic), terraformRemedy)
}

func (e *examination) lettersSubscription(ctx context.Context, a area) {
	name := e.PubSub.DeadLettersTopic + pushSuffix
	sub := e.subscription(ctx, a, name)
	if sub == nil {
		return
	}
	var f faults
	e.common(&f, sub, e.PubSub.DeadLetters())
	e.push(&f, sub, "RecordDeadLetter")
	e.retry(&f, sub)
	if sub.GetDeadLetterPolicy() != nil {
		f.fail("it has a dead-letter policy of its own, so that an answer that is owed may never come")
	}
	e.kept(&f, sub)
	f.tell(a, "subscription "+name, "pushes to "+sub.GetPushConfig().GetPushEndpoint()+", for as long as it takes", terraformRemedy)
}

func (e *examination) inspectSubscription(ctx context.Context, a area) {
	sub := e.subscription(ctx, a, e.Inspect)
	if sub == nil {
		return
	}
	var f faults
	e.common(&f, sub, e.PubSub.DeadLetters())
	if sub.GetPushConfig().GetPushEndpoint() != "" {
		f.fail("it pushes, so that operators can't take letters from it")
	}
	if sub.GetDeadLetterPolicy() != nil {
		f.fail("it has a dead-letter policy, which looking at letters would set off")
	}
	e.kept(&f, sub)
	f.tell(a, "subscription "+e.Inspect, fmt.Sprintf("keeps dead letters for %v", days(sub.GetMessageRetentionDuration().AsDuration())), terraformRemedy)
}

// common checks what holds for all subscriptions.
func (e *examination) common(f *faults, sub *pubsubpb.Subscription, topic string) {
	if sub.GetTopic() != topic {
		f.fail("it is a subscription to %s, not to %s", short(sub.GetTopic()), short(topic))
	}
	if sub.GetDetached() {
		f.fail("it is detached and gets nothing")
	}
	if sub.GetFilter() != "" {
		f.fail("it has a filter, so that some messages never come")
	}
	if e.PubSub.EmulatorHost == "" && sub.GetExpirationPolicy().GetTtl() != nil {
		f.warn("it is deleted after %v without use", days(sub.GetExpirationPolicy().GetTtl().AsDuration()))
	}
}

func (e *examination) push(f *faults, sub *pubsubpb.Subscription, function string) {
	push := sub.GetPushConfig()
	real := e.PubSub.EmulatorHost == ""
	switch endpoint := push.GetPushEndpoint(); {
	case endpoint == "":
		f.fail("it has no push endpoint, so that %s is never called", function)
		return
	case real && !strings.HasPrefix(endpoint, "https://"):
		f.fail("it pushes to %s, which is not https", endpoint)
	case real && push.GetOidcToken().GetServiceAccountEmail() == "":
		f.fail("its pushes carry no identity (OIDC), which %s's service asks for", function)
	}
	if push.GetNoWrapper() != nil {
		f.fail("it pushes without the wrapper that %s reads", function)
	}
	if deadline := time.Duration(sub.GetAckDeadlineSeconds()) * time.Second; deadline != e.ackDeadline() {
		f.fail("its ack deadline is %v, but ACK_DEADLINE is %v", deadline, e.ackDeadline())
	}
}

func (e *examination) retry(f *faults, sub *pubsubpb.Subscription) {
	r := sub.GetRetryPolicy()
	if r == nil {
		f.fail("it has no retry backoff, so that a failing request uses up its deliveries at once")
		return
	}
	least, most := r.GetMinimumBackoff().AsDuration(), r.GetMaximumBackoff().AsDuration()
	if (least != wantMinBackoff || most != wantMaxBackoff) && !e.Local {
		f.warn("its backoff is %v to %v, not %v to %v", least, most, wantMinBackoff, wantMaxBackoff)
	}
}

func (e *examination) kept(f *faults, sub *pubsubpb.Subscription) {
	want := wantLettersKept
	if e.PubSub.EmulatorHost != "" {
		want = emulatorKeepsMost
	}
	if kept := sub.GetMessageRetentionDuration().AsDuration(); kept < want {
		f.warn("it keeps dead letters for %v only, not %v", days(kept), days(want))
	}
}

// Rights that Pub/Sub's own service agent needs to move dead letters.
const (
	rolePublisher  = "roles/pubsub.publisher"
	roleSubscriber = "roles/pubsub.subscriber"
)

// agent checks the rights without which Pub/Sub can't dead-letter anything.
func (e *examination) agent(ctx context.Context, a area) {
	e.agentRole(ctx, a, "agent publishes", e.PubSub.DeadLetters(), rolePublisher, e.Topics.GetIamPolicy)
	e.agentRole(ctx, a, "agent subscribes", e.fullName(e.PubSub.RequestsTopic+pushSuffix), roleSubscriber, e.Subscriptions.GetIamPolicy)
}

func (e *examination) agentRole(ctx context.Context, a area, check, resource, role string, read func(context.Context, *iampb.GetIamPolicyRequest, ...gax.CallOption) (*iampb.Policy, error)) {
	if e.PubSub.EmulatorHost != "" {
		a.skip(check, "an emulator knows no rights")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	rights, err := read(ctx, &iampb.GetIamPolicyRequest{Resource: resource})
	if err != nil {
		a.skip(check, "the rights on %s can't be read: %s", short(resource), grpcText(err))
		return
	}
	for _, binding := range rights.GetBindings() {
		if binding.GetRole() == role && hasAgent(binding.GetMembers()) {
			a.ok(check, "%s on %s", role, short(resource))
			return
		}
	}
	// It may hold the role on the whole project, which is not seen here.
	a.warn(check, fmt.Sprintf("Pub/Sub's service agent is not granted %s on %s; it may be on the project", role, short(resource)),
		"grant it to service-PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com: without it nothing reaches the dead letters")
}

func hasAgent(members []string) bool {
	for _, m := range members {
		if strings.HasPrefix(m, "serviceAccount:service-") && strings.HasSuffix(m, "@gcp-sa-pubsub.iam.gserviceaccount.com") {
			return true
		}
	}
	return false
}

// short is the last part of a resource's name.
func short(resource string) string {
	if i := strings.LastIndexByte(resource, '/'); i >= 0 {
		return resource[i+1:]
	}
	return resource
}

func days(d time.Duration) string {
	if d >= 24*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}

func grpcText(err error) string {
	s := status.Convert(err)
	return s.Code().String() + ": " + s.Message()
}
