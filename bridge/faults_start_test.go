package bridge

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tebraproxy/pkg/config"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

func TestARedisThatIsNotThereAtStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.server.Stop()
	b.start()
	peertest.Eventually(t, wait, "the bridge to say that Redis is not there", func() bool {
		return b.logs.count(slog.LevelWarn, "Redis can't be used") > 0
	})
	b.server.Start()
	b.untilWritable()
	b.checkPromises(b.add(10, "quick"))
	b.wantLines(slog.LevelWarn, "Redis can't be used", 1)
}

func TestWrongCredentialsAreSaidOnceAndWaitedOut(t *testing.T) {
	t.Parallel()
	b := setup(t, peertest.WithACL(
		"user operator on nopass ~* &* +@all",
		"user default off",
		"user app on >right-password ~test:* +@all"))
	b.rdb = redis.NewClient(&redis.Options{Addr: b.server.Addr(), Username: "operator", Password: "any"})
	t.Cleanup(func() { b.rdb.Close() })
	const wrong = "not-the-password"
	b.start("REDIS_URL=redis://app:" + wrong + "@" + b.server.Addr())
	peertest.Eventually(t, wait, "the bridge to say that it is refused", func() bool {
		return b.logs.count(slog.LevelWarn, "Redis refuses the user or password in REDIS_URL") > 0
	})
	over := time.NewTimer(time.Second)
	<-over.C
	b.wantLines(slog.LevelDebug, "", 1)
	b.wantLines(slog.LevelDebug, wrong, 0)
	if err := b.rdb.Do(t.Context(), "ACL", "SETUSER", "app", ">"+wrong).Err(); err != nil {
		t.Fatal(err)
	}
	b.checkPromises(b.add(10, "quick"))
}

func TestARedisThatTellsNothingAboutItselfWillDo(t *testing.T) {
	t.Parallel()
	b := setup(t, peertest.WithACL("user app on >password ~test:* +@all -info"))
	b.start("REDIS_URL=redis://app:password@" + b.server.Addr())
	b.checkPromises(b.add(10, "quick"))
	b.wantLines(slog.LevelWarn, "", 0)
}

func TestARedisThatEvictsIsWarnedAbout(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]int{"noeviction": 0, "volatile-lru": 1, "allkeys-random": 1} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			b := setup(t, peertest.WithArgs("--maxmemory-policy", policy))
			b.start()
			b.checkPromises(b.add(1, "quick"))
			b.wantLines(slog.LevelWarn, "Redis may evict keys", want)
			b.wantLines(slog.LevelWarn, "", want)
		})
	}
}

func TestAClusterIsRefusedUnlessAllKeysShareASlot(t *testing.T) {
	t.Parallel()
	b := setup(t, peertest.WithArgs("--cluster-enabled", "yes"))
	if err := b.rdb.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	peertest.Eventually(t, wait, "the cluster to be ready", func() bool {
		return strings.Contains(b.rdb.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	p := b.startProcess()
	if got := p.exit(wait); got != 2 {
		t.Errorf("exit status = %d, want 2", got)
	}
	if want := "{test}"; !strings.Contains(p.out.String(), want) {
		t.Errorf("the bridge printed %q, want it to name the prefix to use, %s", p.out.String(), want)
	}

	var err error
	if b.keys, err = tebra.NewKeys("{test}"); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.checkPromises(b.add(10, "quick"))
}

func TestATopicThatDoesNotExistEndsTheStart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.removeTopic(requestsTopic)
	b.sink.removeTopic(deadLetterTopic)
	p := b.startProcess()
	if got := p.exit(wait); got != 2 {
		t.Errorf("exit status = %d, want 2", got)
	}
	for _, want := range []string{"REQUESTS_TOPIC: there is no topic " + requestsTopic, "DEAD_LETTERS_TOPIC: there is no topic " + deadLetterTopic} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("the bridge printed %q, want %q in it", p.out.String(), want)
		}
	}
	if n := b.rdb.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("the bridge left %d keys, want it to have touched nothing", n)
	}
}

func TestADrainThatCannotStartSaysSoAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.removeTopic(requestsTopic)
	err := b.assemble().Drain(t.Context(), time.Hour)
	var bad *config.Error
	if !errors.As(err, &bad) {
		t.Errorf("Drain() = %v, want a configuration error", err)
	}
}

func TestAPubSubThatIsNotThereAtStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.unreachable()
	b.start()
	ids := b.add(10, "quick")
	peertest.Eventually(t, wait, "the bridge to say that Pub/Sub is not there", func() bool {
		return b.logs.count(slog.LevelWarn, "Pub/Sub can't be used") > 0
	})
	b.sink.reachable()
	b.checkPromises(ids)
}

// fakeTopics answers as Pub/Sub does to different identities. Google's own can't
// be had in a test, and its emulator knows no permissions.
type fakeTopics struct {
	granted []string
	iam     codes.Code
	get     codes.Code
}

func (f fakeTopics) TestIamPermissions(context.Context, *iampb.TestIamPermissionsRequest, ...gax.CallOption) (*iampb.TestIamPermissionsResponse, error) {
	if f.iam != codes.OK {
		return nil, status.Error(f.iam, "")
	}
	return &iampb.TestIamPermissionsResponse{Permissions: f.granted}, nil
}

func (f fakeTopics) GetTopic(context.Context, *pubsubpb.GetTopicRequest, ...gax.CallOption) (*pubsubpb.Topic, error) {
	if f.get != codes.OK {
		return nil, status.Error(f.get, "")
	}
	return &pubsubpb.Topic{}, nil
}

func TestATopicIsMissingOnlyWhenPubSubSaysSo(t *testing.T) {
	t.Parallel()
	publish := []string{"pubsub.topics.publish"}
	for name, tt := range map[string]struct {
		topics  fakeTopics
		missing bool
		said    int
	}{
		"a publisher that may not get topics":       {fakeTopics{granted: publish, get: codes.PermissionDenied}, false, 0},
		"missing, to one who may get topics":        {fakeTopics{get: codes.NotFound}, true, 0},
		"missing, or not ours, to a mere publisher": {fakeTopics{get: codes.PermissionDenied}, false, 1},
		"there, but not ours to publish to":         {fakeTopics{}, false, 1},
		"missing, by the first answer":              {fakeTopics{iam: codes.NotFound}, true, 0},
		"there, on an emulator":                     {fakeTopics{iam: codes.Unimplemented}, false, 0},
		"missing, on an emulator":                   {fakeTopics{iam: codes.Unimplemented, get: codes.NotFound}, true, 0},
		"Pub/Sub can't be reached":                  {fakeTopics{iam: codes.Unavailable, get: codes.NotFound}, false, 0},
		"nobody may ask":                            {fakeTopics{iam: codes.PermissionDenied, get: codes.NotFound}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logs := &logBook{}
			b := &Bridge{deps: Deps{Topics: tt.topics}, log: slog.New(logs)}
			if got := b.topicIsMissing(t.Context(), requestsTopic); got != tt.missing {
				t.Errorf("topicIsMissing() = %v, want %v", got, tt.missing)
			}
			if got := logs.count(slog.LevelError, requestsTopic); got != tt.said {
				t.Errorf("%d lines name the topic, want %d", got, tt.said)
			}
		})
	}
}
