package deploy

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/bridge/internal/topology"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// applyTimeout is for Terraform on a busy machine.
const applyTimeout = 3 * time.Minute

func TestRequestsGoThroughTheTopologyThatTerraformMakes(t *testing.T) {
	t.Parallel()
	emulator := peertest.RealEmulator(t)
	module := newConfiguration(t, "modules/messaging",
		"GOOGLE_PUBSUB_CUSTOM_ENDPOINT=http://"+emulator.Addr()+"/v1/", "GOOGLE_OAUTH_ACCESS_TOKEN=none")
	opts := local.DefaultOptions()
	opts.Redis, opts.PubSubEmulator, opts.Project = peertest.RealRedis(t).URL(), emulator.Addr(), emulator.Project(t)
	var variables []string
	opts.MakeTopology = func(ctx context.Context, processURL, recordURL string) error {
		variables = []string{
			"project_id=" + opts.Project, "manage_iam=false", "dead_letter_retention_days=7",
			"max_attempts=5", "min_backoff_seconds=0", "max_backoff_seconds=1",
			fmt.Sprintf("process={endpoint=%q}", processURL), fmt.Sprintf("record={endpoint=%q}", recordURL),
		}
		return module.apply(ctx, variables...)
	}
	pipeline := startPipeline(t, opts, applyTimeout)
	want := sendEveryKind(t, pipeline)
	peertest.Eventually(t, 2*time.Minute, "an answer to every request", func() bool {
		return maps.Equal(answers(t, pipeline.Redis, want), want)
	})
	subs := subscriptions(t, emulator)
	if err := module.changesNothing(t.Context(), variables...); err != nil {
		t.Errorf("a second apply would change something: %v", err)
	}
	letters := map[string]bool{}
	peertest.Eventually(t, time.Minute, "the dead letters of those that failed", func() bool {
		pullReasons(t, subs, "projects/"+opts.Project+"/subscriptions/"+pipeline.Info.InspectSubscription, letters)
		return letters["lost"] && letters["failing"] && letters["garbled"] && letters["malformed"]
	})
}

// pullReasons adds to letters the requests whose dead letters wait for operators.
func pullReasons(t *testing.T, subs *pubsub.SubscriptionAdminClient, name string, letters map[string]bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	pulled, err := subs.Pull(ctx, &pubsubpb.PullRequest{Subscription: name, MaxMessages: 100})
	if err != nil {
		return // nothing there yet
	}
	for _, m := range pulled.GetReceivedMessages() {
		letters[m.GetMessage().GetAttributes()[tebra.AttrRequestID]] = true
	}
}

func TestTerraformMakesTheTopologyOfTheLocalRun(t *testing.T) {
	t.Parallel()
	emulator := peertest.RealEmulator(t)
	module := newConfiguration(t, "modules/messaging",
		"GOOGLE_PUBSUB_CUSTOM_ENDPOINT=http://"+emulator.Addr()+"/v1/", "GOOGLE_OAUTH_ACCESS_TOKEN=none")
	const processURL, recordURL = "http://127.0.0.1:1/ProcessRequest", "http://127.0.0.1:1/RecordDeadLetter"
	applied, created := emulator.Project(t), emulator.Project(t)
	err := module.apply(t.Context(), "project_id="+applied, "manage_iam=false", "dead_letter_retention_days=7",
		fmt.Sprintf("process={endpoint=%q}", processURL), fmt.Sprintf("record={endpoint=%q}", recordURL))
	if err != nil {
		t.Fatal(err)
	}
	topics, err := pubsub.NewTopicAdminClient(t.Context(), emulator.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { topics.Close() })
	subs := subscriptions(t, emulator)
	err = topology.Create(t.Context(), topics, subs, topology.Production(topology.Spec{
		Project: created, Requests: "tebra-requests", DeadLetters: "tebra-dead-letters", Inspect: "tebra-dead-letters-inspect",
		ProcessURL: processURL, RecordURL: recordURL,
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tebra-requests-push", "tebra-dead-letters-push", "tebra-dead-letters-inspect"} {
		got, want := described(t, subs, applied, name), described(t, subs, created, name)
		if !proto.Equal(got, want) {
			t.Errorf("%s as terraform makes it:\n%s\nand as the local run does:\n%s", name, prototext.Format(got), prototext.Format(want))
		}
	}
}

// described returns a subscription without what tells its project from others, or
// what Terraform made from the rest.
func described(t *testing.T, subs *pubsub.SubscriptionAdminClient, project, name string) *pubsubpb.Subscription {
	t.Helper()
	sub, err := subs.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: "projects/" + project + "/subscriptions/" + name})
	if err != nil {
		t.Fatal(err)
	}
	sub.Name, sub.Labels = name, nil
	sub.Topic = strings.Replace(sub.GetTopic(), project, "PROJECT", 1)
	if policy := sub.GetDeadLetterPolicy(); policy != nil {
		policy.DeadLetterTopic = strings.Replace(policy.GetDeadLetterTopic(), project, "PROJECT", 1)
	}
	return sub
}

func subscriptions(t *testing.T, emulator *peertest.PubSub) *pubsub.SubscriptionAdminClient {
	t.Helper()
	subs, err := pubsub.NewSubscriptionAdminClient(t.Context(), emulator.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { subs.Close() })
	return subs
}
