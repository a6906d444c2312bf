package local

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// Bounds of the subscription's policy, as Pub/Sub has them (FACTS, Pub/Sub).
const (
	longestBackoff = 600 * time.Second
	fewestAttempts = 5
	mostAttempts   = 100
)

// mostInstances bounds how many instances of the functions a process may hold.
const mostInstances = 10

// The backoff for demonstrations: a failing request reaches the dead letters
// within seconds, not within 40 minutes.
const (
	FastMinBackoff = 100 * time.Millisecond
	FastMaxBackoff = time.Second
)

// Options says what a local run is made of. Where a real part is named it takes
// the place of the embedded one. Begin with [DefaultOptions].
type Options struct {
	// Redis is the URL of a real Redis, redis:// or rediss://; empty for the
	// embedded one. RedisCACert is what a rediss:// URL trusts: PEM text or the
	// path of a file; empty trusts the system's certificates.
	Redis, RedisCACert string
	// PubSubEmulator is the host:port of Google's Pub/Sub emulator; empty for
	// the embedded Pub/Sub.
	PubSubEmulator string
	// PHPAPI is the http:// or https:// URL of a real API, PHPAPIKey the key that
	// it asks for; both empty for the stand-in.
	PHPAPI, PHPAPIKey string
	// PolicyFile grants actions to users; empty grants every known action to
	// everybody.
	PolicyFile string
	// Project is the Google Cloud project in which topics are made.
	Project string
	// Prefix is what all Redis keys begin with.
	Prefix string

	// MinBackoff and MaxBackoff bound the time between two deliveries of a
	// message that failed: 0 to 600 s, MinBackoff at most MaxBackoff.
	MinBackoff, MaxBackoff time.Duration
	// MaxAttempts is how often a message is delivered before it is a dead
	// letter: 5 to 100.
	MaxAttempts int

	// Instances is how many instances of the functions answer pushes, in turn, as
	// on Cloud Run: 0 to 10, where 0 means 1.
	Instances int

	// MakeTopology, when set, makes the topics and subscriptions in place of package
	// topology, pushing to those URLs of the functions. PubSubEmulator must be set.
	MakeTopology func(ctx context.Context, processURL, recordURL string) error

	// Spans, where set, is given every span of the run.
	Spans sdktrace.SpanExporter

	// Console asks for the console as well, in which Operator acts, such as
	// user@host; empty for "local".
	Console  bool
	Operator string

	// GatewayOrigins asks for the gateway, for pages of these origins, such as
	// http://localhost:3000, on GatewayPort of loopback, 0 for a free one.
	GatewayOrigins []string
	GatewayPort    int

	// Environ is the environment, in the form of os.Environ.
	Environ []string
	// Verbose asks for the parts' own logs as well.
	Verbose bool
	// JSON asks for what is told as one JSON object a line.
	JSON bool
}

// DefaultOptions returns a run of embedded parts only, under production's retry
// policy (DESIGN section 6).
func DefaultOptions() Options {
	return Options{
		Project:     "tebra-local",
		Prefix:      tebra.DefaultPrefix,
		MinBackoff:  10 * time.Second,
		MaxBackoff:  longestBackoff,
		MaxAttempts: 10,
	}
}

// Validate returns a [*config.Error] with everything that is wrong with o, each
// under the name of its flag, or nil. It opens no connection.
func (o Options) Validate() error {
	problems := append(o.wrongParts(), o.wrongPolicy()...)
	if len(problems) == 0 {
		return nil
	}
	return &config.Error{Problems: problems}
}

// wrongParts returns what is wrong with how the parts are named.
func (o Options) wrongParts() []string {
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if err := o.checkRedis(); err != nil {
		wrong("--redis: %v", err)
	}
	if o.PubSubEmulator != "" && !isHostPort(o.PubSubEmulator) {
		wrong("--pubsub-emulator is %q: want host:port, such as 127.0.0.1:8085", o.PubSubEmulator)
	}
	if o.PHPAPI != "" && !isHTTP(o.PHPAPI) {
		wrong("--php-api: want a URL that begins with http:// or https://")
	}
	if (o.PHPAPI == "") != (o.PHPAPIKey == "") {
		wrong("--php-api and its key, in TEBRA_INTERNAL_API_KEY, go together: give both or neither")
	}
	if _, err := tebra.NewKeys(o.Prefix); err != nil {
		wrong("--prefix: %v", err)
	}
	if o.Instances < 0 || o.Instances > mostInstances {
		wrong("Instances is %d: want 0 to %d", o.Instances, mostInstances)
	}
	for i, origin := range o.GatewayOrigins {
		if _, err := gateway.ParseOrigin(origin); err != nil {
			wrong("--gateway: number %d %v", i+1, err)
		}
	}
	if o.GatewayPort < 0 || o.GatewayPort > 65535 {
		wrong("--gateway-port is %d: want 0 to 65535", o.GatewayPort)
	}
	if o.GatewayPort > 0 && len(o.GatewayOrigins) == 0 {
		wrong("--gateway-port goes with --gateway, which says whose pages may use it")
	}
	if len(o.Project) < 3 {
		wrong("--project is %q: Pub/Sub wants at least 3 characters", o.Project)
	}
	return problems
}

func (o Options) checkRedis() error {
	if o.Redis == "" && o.RedisCACert == "" {
		return nil
	}
	_, err := stream.Options(o.Redis, o.RedisCACert)
	return err
}

func isHTTP(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

func isHostPort(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// wrongPolicy returns what is wrong with the retry policy.
func (o Options) wrongPolicy() []string {
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if o.MinBackoff < 0 || o.MinBackoff > longestBackoff {
		wrong("--min-backoff is %v: want 0s to %v", o.MinBackoff, longestBackoff)
	}
	if o.MaxBackoff < 0 || o.MaxBackoff > longestBackoff {
		wrong("--max-backoff is %v: want 0s to %v", o.MaxBackoff, longestBackoff)
	}
	if o.MinBackoff > o.MaxBackoff {
		wrong("--min-backoff (%v) is longer than --max-backoff (%v)", o.MinBackoff, o.MaxBackoff)
	}
	if o.MaxAttempts < fewestAttempts || o.MaxAttempts > mostAttempts {
		wrong("--max-attempts is %d: want %d to %d", o.MaxAttempts, fewestAttempts, mostAttempts)
	}
	return problems
}
