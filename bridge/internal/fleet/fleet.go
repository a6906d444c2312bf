package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"tebraproxy/bridge/internal/topology"
	"tebraproxy/functions"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/tebra"
)

// Config says what to run. The zero value of a count means none.
type Config struct {
	// Dir is where logs, the policy and the journal go. It must exist.
	Dir string
	// Pump puts the local Pub/Sub in the place of Google's emulator.
	Pump bool
	// MaxPushes is how many pushes the local Pub/Sub has under way at a time; 0 is its
	// default.
	MaxPushes int
	// Direct has pushes go to the processors without the balancer in between, for
	// measuring; the local Pub/Sub then takes them in turn, Google's knows but one. None
	// of them may be stopped.
	Direct bool
	// RedisArgs are added to redis-server's.
	RedisArgs []string
	// Bridges, Processors and Recorders are how many processes run of each.
	Bridges, Processors, Recorders int
	// Policy is the text of the policy file.
	Policy string
	// Rules is how the stand-in API misbehaves, by chance that Seed decides.
	Rules []phptest.Rule
	Seed  uint64
	// Journal says that the stand-in writes down what it executed.
	Journal bool
	// Environ is added to the environment of bridges and functions.
	Environ []string
	// MinBackoff, MaxBackoff, MaxAttempts and AckDeadline are the retry policy of
	// requests; zero values mean production's.
	MinBackoff, MaxBackoff time.Duration
	MaxAttempts            int
	AckDeadline            time.Duration
}

// Fleet is a running installation.
type Fleet struct {
	Redis      *peertest.RedisServer
	Client     *redis.Client // of the driver
	Keys       tebra.Keys
	Bridges    []*peertest.Process
	Processors []*peertest.Process
	Recorders  []*peertest.Process
	API        *peertest.Process
	Pump       *peertest.Process // nil with Google's emulator
	// Journal is the path of the stand-in's journal.
	Journal string
	// PubSub is the address of Pub/Sub, Project the project in it.
	PubSub, Project string
	// APIURL is where the stand-in is, APIKey what it asks for.
	APIURL, APIKey string

	cfg      Config
	policy   string
	binaries binaries
}

// The names that a production installation has.
const (
	requestsTopic    = "tebra-requests"
	deadLettersTopic = "tebra-dead-letters"
	inspect          = "tebra-dead-letters-inspect"
)

// apiKey is what the stand-in asks for.
const apiKey = "made-up-key"

// Start starts what cfg says and returns once requests may be sent. What can't
// run here skips the test, or fails it where CI=true.
func Start(t testing.TB, cfg Config) *Fleet {
	t.Helper()
	f := &Fleet{cfg: cfg, Redis: peertest.RealRedis(t, peertest.WithArgs(cfg.RedisArgs...))}
	logging.Disable() // what go-redis would print while Redis is down, errors say as well
	f.Client = f.Redis.Client()
	f.startPubSub(t)
	f.binaries = build(t)
	var err error
	if f.Keys, err = tebra.NewKeys(tebra.DefaultPrefix); err != nil {
		t.Fatal(err)
	}
	f.policy = filepath.Join(cfg.Dir, "policy.yaml")
	if err := os.WriteFile(f.policy, []byte(cfg.Policy), 0o600); err != nil {
		t.Fatal(err)
	}
	f.startAPI(t)
	processors, recorders := newBalancer(t), newBalancer(t)
	for i := range cfg.Processors {
		f.Processors = append(f.Processors, f.startFunction(t, fmt.Sprintf("processor-%d", i+1), functions.ProcessRequest, processors))
	}
	for i := range cfg.Recorders {
		f.Recorders = append(f.Recorders, f.startFunction(t, fmt.Sprintf("recorder-%d", i+1), functions.RecordDeadLetter, recorders))
	}
	processURL := processors.url()
	if cfg.Direct {
		processURL = processors.direct()
	}
	f.createTopology(t, processURL, recorders.url())
	for i := range cfg.Bridges {
		f.Bridges = append(f.Bridges, f.startBridge(t, i))
	}
	return f
}

func (f *Fleet) startPubSub(t testing.TB) {
	t.Helper()
	if f.cfg.Pump {
		f.Project = "demo-fleet"
		f.Pump, f.PubSub = startPart(t, f.cfg.Dir, part{Kind: pumpPart, MaxPushes: f.cfg.MaxPushes})
		return
	}
	emulator := peertest.RealEmulator(t)
	f.PubSub, f.Project = emulator.Addr(), emulator.Project(t)
}

func (f *Fleet) startAPI(t testing.TB) {
	t.Helper()
	if f.cfg.Journal {
		f.Journal = filepath.Join(f.cfg.Dir, "journal.jsonl")
	}
	var addr string
	f.API, addr = startPart(t, f.cfg.Dir, part{Kind: apiPart, Journal: f.Journal, Rules: f.cfg.Rules, Seed: f.cfg.Seed})
	f.APIURL, f.APIKey = "http://"+addr+"/api", apiKey
}

// environ is what bridges and functions have in common.
func (f *Fleet) environ(more ...string) []string {
	env := []string{
		"REDIS_URL=" + f.Redis.URL(), "REDIS_CA_CERT=", "STREAM_PREFIX=" + f.Keys.Prefix(),
		"GOOGLE_CLOUD_PROJECT=" + f.Project, "PUBSUB_EMULATOR_HOST=" + f.PubSub,
		"REQUESTS_TOPIC=" + requestsTopic, "DEAD_LETTERS_TOPIC=" + deadLettersTopic,
		"POLICY_FILE=" + f.policy,
	}
	return append(append(env, f.cfg.Environ...), more...)
}

func (f *Fleet) startFunction(t testing.TB, name, target string, b *balancer) *peertest.Process {
	t.Helper()
	var port int
	process := peertest.Start(t, 1, func(ports []int) peertest.Part {
		port = ports[0]
		return peertest.Part{
			Name: name, Path: f.binaries.functions, Dir: f.cfg.Dir, Ready: `"serving"`,
			Env: f.environ("FUNCTION_TARGET="+target, fmt.Sprintf("PORT=%d", port),
				"TEBRA_PHP_API_URL="+f.APIURL, "TEBRA_INTERNAL_API_KEY="+apiKey, "TEBRA_PHP_API_AUDIENCE="),
		}
	})
	b.add(port)
	return process
}

func (f *Fleet) startBridge(t testing.TB, i int) *peertest.Process {
	t.Helper()
	return peertest.Start(t, 1, func(ports []int) peertest.Part {
		return peertest.Part{
			Name: fmt.Sprintf("bridge-%d", i+1), Path: f.binaries.bridge, Args: []string{"run"}, Dir: f.cfg.Dir, Ready: `"health is served"`,
			Env: f.environ(fmt.Sprintf("HEALTH_PORT=%d", ports[0])),
		}
	})
}

func (f *Fleet) createTopology(t testing.TB, processURL, recordURL string) {
	t.Helper()
	topics, err := pubsub.NewTopicAdminClient(t.Context(), publish.ClientOptions(f.PubSub)...)
	if err != nil {
		t.Fatal(err)
	}
	defer topics.Close()
	subs := f.Subscriptions(t)
	spec := topology.Production(topology.Spec{
		Project: f.Project, Requests: requestsTopic, DeadLetters: deadLettersTopic, Inspect: inspect,
		ProcessURL: processURL, RecordURL: recordURL,
	})
	if f.cfg.MaxBackoff > 0 {
		spec.MinBackoff, spec.MaxBackoff = f.cfg.MinBackoff, f.cfg.MaxBackoff
	}
	if f.cfg.MaxAttempts > 0 {
		spec.MaxAttempts = f.cfg.MaxAttempts
	}
	if f.cfg.AckDeadline > 0 {
		spec.AckDeadline = f.cfg.AckDeadline
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := topology.Create(ctx, topics, subs, spec); err != nil {
		t.Fatal(err)
	}
}

// Subscriptions returns a client of Pub/Sub's subscriptions, closed with the test.
func (f *Fleet) Subscriptions(t testing.TB) *pubsub.SubscriptionAdminClient {
	t.Helper()
	subs, err := pubsub.NewSubscriptionAdminClient(t.Context(), publish.ClientOptions(f.PubSub)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { subs.Close() })
	return subs
}

// InspectSubscription is the full name of the subscription from which operators
// pull dead letters.
func (f *Fleet) InspectSubscription() string {
	return "projects/" + f.Project + "/subscriptions/" + inspect
}

// PushSubscription is the full name of the subscription that pushes requests.
func (f *Fleet) PushSubscription() string {
	return "projects/" + f.Project + "/subscriptions/" + topology.Subscription(requestsTopic)
}

// Parts returns all processes that are the system's own or stand in for its
// neighbours, but for Redis and Google's emulator.
func (f *Fleet) Parts() []*peertest.Process {
	parts := append([]*peertest.Process{f.API}, f.Bridges...)
	parts = append(append(parts, f.Processors...), f.Recorders...)
	if f.Pump != nil {
		parts = append(parts, f.Pump)
	}
	return parts
}
