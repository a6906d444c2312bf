package doctor

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/config"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/tebra"
)

// Status is how a check went.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Warning Status = "warning" // works, and will not always
	Failed  Status = "failed"  // does not work, or breaks a promise
	Skipped Status = "skipped" // could not be checked
)

// Finding is what one check found. Its texts hold no secrets and no contents.
type Finding struct {
	Area   string // a part of the installation, as in the package's doc
	Check  string
	Status Status
	Detail string // what was seen, or why it was skipped
	Remedy string // what to do about it, unless ok
}

// Topics is the part of the Pub/Sub client that tells about topics.
type Topics interface {
	GetTopic(context.Context, *pubsubpb.GetTopicRequest, ...gax.CallOption) (*pubsubpb.Topic, error)
	GetIamPolicy(context.Context, *iampb.GetIamPolicyRequest, ...gax.CallOption) (*iampb.Policy, error)
}

// Subscriptions is the part of the Pub/Sub client that tells about subscriptions.
type Subscriptions interface {
	GetSubscription(context.Context, *pubsubpb.GetSubscriptionRequest, ...gax.CallOption) (*pubsubpb.Subscription, error)
	GetIamPolicy(context.Context, *iampb.GetIamPolicyRequest, ...gax.CallOption) (*iampb.Policy, error)
}

// API calls the PHP API; [php.Client] does.
type API interface {
	Call(context.Context, php.Request) php.Result
}

// Patient is an installation. The clients stay the caller's to close.
type Patient struct {
	Redis *redis.Client
	Keys  tebra.Keys
	// Topics and Subscriptions are nil where there is no Pub/Sub to ask; then
	// NoPubSub says why.
	Topics        Topics
	Subscriptions Subscriptions
	NoPubSub      string
	PubSub        config.PubSub
	Inspect       string // subscription
	// API is nil where there is none to ask; then NoAPI says why.
	API    API
	NoAPI  string
	Policy *policy.Policy
	// Environ is what programs would be configured with, in the form of os.Environ.
	Environ []string
	// Local says that all of it is a local run, of which less is asked.
	Local bool
	Now   func() time.Time
}

// checkTimeout bounds each check.
const checkTimeout = 10 * time.Second

// Examine makes all checks, and reports each finding as it is made. It returns
// when all is done or ctx has ended.
func Examine(ctx context.Context, p Patient, report func(Finding)) {
	e := &examination{Patient: p, report: report}
	for _, check := range []func(context.Context){
		e.redis, e.streams, e.pubsub, e.api, e.settings,
	} {
		if ctx.Err() == nil {
			check(ctx)
		}
	}
}

// examination is one run of the checks.
type examination struct {
	Patient
	report func(Finding)
	deaf   bool // Redis can't be asked
}

// area reports findings about one part.
type area struct {
	name   string
	report func(Finding)
}

func (e *examination) area(name string) area { return area{name, e.report} }

func (a area) ok(check, format string, args ...any) {
	a.report(Finding{Area: a.name, Check: check, Status: OK, Detail: fmt.Sprintf(format, args...)})
}

func (a area) skip(check, format string, args ...any) {
	a.report(Finding{Area: a.name, Check: check, Status: Skipped, Detail: fmt.Sprintf(format, args...)})
}

func (a area) warn(check, detail, remedy string) {
	a.report(Finding{Area: a.name, Check: check, Status: Warning, Detail: detail, Remedy: remedy})
}

func (a area) fail(check, detail, remedy string) {
	a.report(Finding{Area: a.name, Check: check, Status: Failed, Detail: detail, Remedy: remedy})
}
