package cli

import (
	"fmt"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/types/known/durationpb"

	"tebraproxy/bridge/internal/deploy"
	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// ward is an installation that the doctor finds nothing wrong with, until a test
// breaks it.
type ward struct {
	*installation
	api *phptest.Server
	env []string // over the installation's own
}

func newWard(t *testing.T, options ...peertest.RedisOption) *ward {
	t.Helper()
	w := &ward{installation: newInstallation(t, options...), api: phptest.New(phptest.Config{APIKey: "key"})}
	server := httptest.NewServer(w.api)
	t.Cleanup(server.Close)
	w.env = []string{"TEBRA_PHP_API_URL=" + server.URL + "/api", "TEBRA_INTERNAL_API_KEY=key"}
	if _, err := stream.New(w.rdb, w.keys).EnsureGroups(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A bridge that has read nothing yet is no consumer of the group.
	w.must(w.rdb.ZAdd(t.Context(), w.keys.Bridges(), redis.Z{Score: float64(time.Now().UnixMilli()), Member: "bridge-1"}).Err())
	w.must(w.rdb.HSet(t.Context(), w.keys.Heartbeat("bridge-1"), "version", "test").Err())
	return w
}

// doctor is the command, with what a test set in the place of what is right.
func (w *ward) doctor(args ...string) *command {
	c := w.tebra(append([]string{"doctor"}, args...)...)
	slices.Reverse(w.env) // the first counts, and what a test set came last
	c.env = append(w.env, c.env...)
	return c
}

// change makes a subscription anew, different.
func (w *ward) change(name string, how func(*pubsubpb.Subscription)) {
	w.Helper()
	full := "projects/" + w.spec.Project + "/subscriptions/" + name
	sub, err := w.subs.GetSubscription(w.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: full})
	w.must(err)
	w.must(w.subs.DeleteSubscription(w.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: full}))
	if how == nil {
		return
	}
	how(sub)
	_, err = w.subs.CreateSubscription(w.Context(), &pubsubpb.Subscription{
		Name: full, Topic: sub.GetTopic(), PushConfig: sub.GetPushConfig(), AckDeadlineSeconds: sub.GetAckDeadlineSeconds(),
		MessageRetentionDuration: sub.GetMessageRetentionDuration(), RetryPolicy: sub.GetRetryPolicy(), DeadLetterPolicy: sub.GetDeadLetterPolicy(),
	})
	w.must(err)
}

var (
	millisText  = regexp.MustCompile(`\d+ ms`)
	apartText   = regexp.MustCompile(`are [0-9.µm]+s apart`)
	versionText = regexp.MustCompile(`version: \d+\.\d+\.\d+`)
)

func TestTheDoctorFindsNothingWrongWhereNothingIs(t *testing.T) {
	t.Parallel()
	w := newWard(t, peertest.WithArgs("--appendonly", "yes"))
	c := w.doctor()
	c.change = func(text string) string {
		text = millisText.ReplaceAllString(text, "N ms")
		text = versionText.ReplaceAllString(text, "version: X")
		text = strings.ReplaceAll(text, w.spec.Project, "PROJECT")
		return apartText.ReplaceAllString(text, "are TIME apart")
	}
	exit := c.run(t, t.Context())
	c.golden(t, "doctor", exit)
	if calls := w.api.Journal(); len(calls) != 1 || calls[0].Action != "testConnection" {
		t.Errorf("the doctor made the calls %+v, want one that changes nothing", calls)
	}
}

func TestTheDoctorFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	confined := "user tebra on >secret ~tebra:* &* -@all +ping +info +time +acl|whoami +acl|dryrun +acl|getuser +xinfo +xpending +exists +eval +evalsha +hgetall +hmget"
	requests, letters := "tebra-requests-push", "tebra-dead-letters-push"
	tests := []struct {
		name  string
		redis []peertest.RedisOption
		harm  func(w *ward)
		exit  int
		want  []string // lines of stdout begin with status, area and check, and hold the rest
	}{
		{"Redis is not there", nil, func(w *ward) { w.env = append(w.env, "REDIS_URL=redis://127.0.0.1:1") }, exitFailed,
			[]string{"failed  redis    reachable: ", "is Redis running", "skipped streams  groups: Redis can't be asked"}},
		{"the password is wrong", nil, func(w *ward) {
			w.env = append(w.env, "REDIS_URL="+strings.Replace(w.redis.URL(), "://", "://nobody:wrong@", 1))
		}, exitFailed, []string{"failed  redis    reachable: WRONGPASS", "correct user and password"}},
		{"Redis speaks no TLS", nil, func(w *ward) {
			w.env = append(w.env, "REDIS_URL="+strings.Replace(w.redis.URL(), "redis://", "rediss://", 1))
		}, exitFailed, []string{"failed  redis    reachable: "}},
		{"Redis evicts", []peertest.RedisOption{peertest.WithArgs("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru")}, nil, exitFailed,
			[]string{"failed  redis    eviction: volatile-lru", "noeviction"}},
		{"Redis may evict one day", []peertest.RedisOption{peertest.WithArgs("--maxmemory-policy", "allkeys-lru")}, nil, exitOK,
			[]string{"warning redis    eviction: allkeys-lru"}},
		{"Redis is nearly full", nil, func(w *ward) {
			w.must(w.rdb.Set(w.Context(), "ballast", strings.Repeat("x", 8<<20), 0).Err())
			w.must(w.rdb.ConfigSet(w.Context(), "maxmemory", "11mb").Err())
		}, exitOK, []string{"warning redis    memory: "}},
		{"nothing is written to disk", nil, nil, exitOK, []string{"warning redis    persistence: no append-only file and no replica"}},
		{"anybody may do anything", nil, nil, exitOK, []string{"warning redis    acl not more: user default may use every command and every key", "warning redis    password: "}},
		{"the user may do too little", []peertest.RedisOption{peertest.WithACL("user default on nopass ~* &* +@all", confined)}, func(w *ward) {
			w.env = append(w.env, "REDIS_URL="+strings.Replace(w.redis.URL(), "://", "://tebra:secret@", 1))
		}, exitFailed, []string{"failed  redis    acl enough: user tebra may not do ", "xclaim", "ACL SETUSER tebra ~tebra:* +", "ok      redis    acl not more: user tebra is confined"}},
		{"the user is the one that is deployed", []peertest.RedisOption{peertest.WithACL("user default on nopass ~* &* +@all",
			deploy.RedisACL("tebra", "tebra")+" >secret +acl|whoami +acl|dryrun +acl|getuser")}, func(w *ward) {
			w.env = append(w.env, "REDIS_URL="+strings.Replace(w.redis.URL(), "://", "://tebra:secret@", 1))
		}, exitOK, []string{"ok      redis    acl enough: user tebra may do all that is needed", "ok      redis    acl not more: user tebra is confined"}},
		{"no bridge has ever run", nil, func(w *ward) { w.must(w.rdb.Del(w.Context(), w.keys.Requests()).Err()) }, exitFailed,
			[]string{"failed  streams  groups: there is no stream tebra:requests", "start a bridge"}},
		{"a group is gone", nil, func(w *ward) {
			w.must(w.rdb.XGroupDestroy(w.Context(), w.keys.Requests(), tebra.GroupParked).Err())
		}, exitFailed, []string{"failed  streams  groups: tebra:requests has no group parked"}},
		{"no bridge runs", nil, func(w *ward) { w.must(w.rdb.Del(w.Context(), w.keys.Heartbeat("bridge-1")).Err()) }, exitFailed,
			[]string{"failed  streams  bridges: no bridge shows a sign of life"}},
		{"entries are stuck", nil, func(w *ward) {
			id := w.rdb.XAdd(w.Context(), &redis.XAddArgs{Stream: w.keys.Requests(), Values: []string{"a", "b"}}).Val()
			w.must(w.rdb.Do(w.Context(), "XCLAIM", w.keys.Requests(), tebra.GroupBridge, "gone", "0", id, "IDLE", "3600000", "FORCE").Err())
		}, exitFailed, []string{"failed  streams  stuck: 1 entries are held by bridges", "of gone"}},
		{"the breaker is open", nil, func(w *ward) {
			b := breaker.New(w.rdb, w.keys, breaker.Config{})
			for range 100 {
				_, err := b.Record(w.Context(), false)
				w.must(err)
			}
		}, exitOK, []string{"warning streams  breaker: open"}},
		{"the topics are elsewhere", nil, func(w *ward) { w.env = append(w.env, "REQUESTS_TOPIC=elsewhere") }, exitFailed,
			[]string{"failed  pubsub   topic elsewhere: there is no such topic", "failed  pubsub   subscription elsewhere-push: "}},
		{"no project is named", nil, func(w *ward) { w.env = append(w.env, "GOOGLE_CLOUD_PROJECT=") }, exitOK,
			[]string{"skipped pubsub   topics: which Google Cloud project?"}},
		{"requests have no dead letters", nil, func(w *ward) {
			w.change(requests, func(s *pubsubpb.Subscription) { s.DeadLetterPolicy = nil })
		}, exitFailed, []string{"failed  pubsub   subscription " + requests + ": it has no dead-letter policy"}},
		{"dead letters go elsewhere", nil, func(w *ward) {
			w.change(requests, func(s *pubsubpb.Subscription) { s.DeadLetterPolicy.DeadLetterTopic = s.Topic })
		}, exitFailed, []string{"its dead letters go to tebra-requests, not to tebra-dead-letters"}},
		{"requests are not pushed", nil, func(w *ward) {
			w.change(requests, func(s *pubsubpb.Subscription) { s.PushConfig = nil })
		}, exitFailed, []string{"it has no push endpoint, so that ProcessRequest is never called"}},
		{"requests have no backoff", nil, func(w *ward) {
			w.change(requests, func(s *pubsubpb.Subscription) { s.RetryPolicy = nil })
		}, exitFailed, []string{"it has no retry backoff"}},
		{"the policy is another", nil, func(w *ward) {
			w.change(requests, func(s *pubsubpb.Subscription) {
				s.DeadLetterPolicy.MaxDeliveryAttempts = 5
				s.RetryPolicy.MinimumBackoff = durationpb.New(time.Second)
				s.MessageRetentionDuration = durationpb.New(time.Hour)
			})
		}, exitOK, []string{"warning pubsub", "after 5 deliveries, not 10", "its backoff is 1s to 10m0s, not 10s to 10m0s", "it keeps messages for 1h0m0s, not 24h0m0s"}},
		{"nobody answers dead letters", nil, func(w *ward) { w.change(letters, nil) }, exitFailed,
			[]string{"failed  pubsub   subscription " + letters + ": there is no such subscription"}},
		{"operators can't pull", nil, func(w *ward) {
			w.change("tebra-dead-letters-inspect", func(s *pubsubpb.Subscription) {
				s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "http://127.0.0.1:1/x"}
				s.MessageRetentionDuration = durationpb.New(time.Hour)
			})
		}, exitFailed, []string{"it pushes, so that operators can't take letters", "it keeps dead letters for 1h0m0s only"}},
		{"the ack deadline is another", nil, func(w *ward) { w.env = append(w.env, "ACK_DEADLINE=100s") }, exitFailed,
			[]string{"its ack deadline is 2m0s, but ACK_DEADLINE is 1m40s"}},
		{"the deadlines don't nest", nil, func(w *ward) { w.env = append(w.env, "HANDLER_TIMEOUT=3m") }, exitFailed,
			[]string{"failed  settings functions: HANDLER_TIMEOUT (3m0s)"}},
		{"the bridge's settings don't fit", nil, func(w *ward) { w.env = append(w.env, "BATCH_SIZE=0") }, exitFailed,
			[]string{"failed  settings bridge: BATCH_SIZE is 0"}},
		{"the API is down", nil, func(w *ward) { w.env = append(w.env, "TEBRA_PHP_API_URL=http://127.0.0.1:1/api") }, exitFailed,
			[]string{"failed  api      reachable: "}},
		{"the API fails", nil, func(w *ward) { w.api.Down() }, exitFailed, []string{"failed  api      reachable: "}},
		{"the key is wrong", nil, func(w *ward) { w.env = append(w.env, "TEBRA_INTERNAL_API_KEY=old") }, exitFailed,
			[]string{"failed  api      key: refused with 401", "TEBRA_INTERNAL_API_KEY"}},
		{"no API is named", nil, func(w *ward) { w.env = nil }, exitOK, []string{"skipped api      reachable: which PHP API?"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWard(t, test.redis...)
			if test.harm != nil {
				test.harm(w)
			}
			c := w.doctor()
			c.expect(t, c.run(t, t.Context()), test.exit)
			for _, want := range test.want {
				if !strings.Contains(c.stdout.String(), want) {
					t.Errorf("tebra doctor printed\n%swant %q in it", c.stdout.String(), want)
				}
			}
			if strings.Contains(c.stdout.String(), "secret") {
				t.Error("the doctor printed a password")
			}
		})
	}
}

func TestTheDoctorSpeaksJSON(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	c := w.doctor("--output", "json")
	c.expect(t, c.run(t, t.Context()), exitOK, "0 failed")
	want := fmt.Sprintf(`{"area":"pubsub","check":"topic %s","status":"ok","detail":"there"}`, w.spec.Requests)
	if !strings.Contains(c.stdout.String(), want+"\n") {
		t.Errorf("it printed\n%swant the line %s", c.stdout.String(), want)
	}
}
