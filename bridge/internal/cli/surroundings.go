package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"github.com/spf13/pflag"
	"golang.org/x/oauth2"
	"google.golang.org/api/idtoken"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
)

// surroundingFlags say what a pipeline has beside its Redis.
type surroundingFlags struct{ project, emulator, policy string }

func (f *surroundingFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.project, "project", "", "Google Cloud `project` of the topics (default GOOGLE_CLOUD_PROJECT)")
	flags.StringVar(&f.emulator, "pubsub-emulator", "", "`host:port` of a Pub/Sub emulator (default PUBSUB_EMULATOR_HOST)")
	flags.StringVar(&f.policy, "policy", "", "`file` that says which actions there are and what they do (default POLICY_FILE, else the known actions)")
}

// surroundings is what a pipeline has beside its Redis. What is not known is empty.
type surroundings struct {
	pubsub       config.PubSub
	inspect      string // subscription
	api, apiKey  string
	apiAudience  string
	functionsURL string
	policy       *policy.Policy
	local        bool
}

// find returns what goes with the pipeline: of a local run what that noted, else
// what flags and environment say.
func (f *surroundingFlags) find(ctx context.Context, env environment, target pipeline) (surroundings, error) {
	rules, err := f.rules(env, target.local)
	if err != nil {
		return surroundings{}, err
	}
	if target.local {
		return localSurroundings(ctx, env, rules)
	}
	return surroundings{
		pubsub: config.PubSub{
			Project:          cmp.Or(f.project, env["GOOGLE_CLOUD_PROJECT"]),
			RequestsTopic:    cmp.Or(env["REQUESTS_TOPIC"], "tebra-requests"),
			DeadLettersTopic: cmp.Or(env["DEAD_LETTERS_TOPIC"], "tebra-dead-letters"),
			EmulatorHost:     cmp.Or(f.emulator, env["PUBSUB_EMULATOR_HOST"]),
		},
		inspect: cmp.Or(env["INSPECT_SUBSCRIPTION"], "tebra-dead-letters-inspect"),
		api:     env["TEBRA_PHP_API_URL"], apiKey: env["TEBRA_INTERNAL_API_KEY"], apiAudience: env["TEBRA_PHP_API_AUDIENCE"],
		policy: rules,
	}, nil
}

func localSurroundings(ctx context.Context, env environment, rules *policy.Policy) (surroundings, error) {
	info, err := local.Discover(ctx, local.DiscoveryPath(env.lookup))
	if err != nil {
		return surroundings{}, &configError{err}
	}
	return surroundings{
		pubsub: config.PubSub{
			Project: info.Project, RequestsTopic: info.RequestsTopic, DeadLettersTopic: info.DeadLettersTopic,
			EmulatorHost: info.PubSubEmulator,
		},
		inspect: info.InspectSubscription, api: info.PHPAPI, apiKey: info.PHPAPIKey, functionsURL: info.FunctionsURL,
		policy: rules, local: true,
	}, nil
}

// rules returns the policy that says which actions change something. Nobody needs
// to be granted anything by it here. A local run doesn't go by the environment.
func (f *surroundingFlags) rules(env environment, isLocal bool) (*policy.Policy, error) {
	file := f.policy
	if !isLocal {
		file = cmp.Or(file, env["POLICY_FILE"])
	}
	if file == "" {
		return policy.Default(), nil
	}
	rules, err := policy.Load(file)
	if err != nil {
		return nil, configf("the policy can't be used: %w", err)
	}
	return rules, nil
}

// isWrite reports whether an action changes something. Of one that the policy does
// not know, nobody here can say that it does not.
func (s surroundings) isWrite(action string) bool {
	known, ok := s.policy.Action(action)
	return !ok || known.Effect == policy.Write
}

// subscription returns the full name of a subscription.
func (s surroundings) subscription(name string) string {
	return "projects/" + s.pubsub.Project + "/subscriptions/" + name
}

// subscriber returns a client of Pub/Sub, which the caller closes.
func (s surroundings) subscriber(ctx context.Context) (*pubsub.SubscriptionAdminClient, error) {
	if s.pubsub.Project == "" {
		return nil, configf("which Google Cloud project? Give --project, or set GOOGLE_CLOUD_PROJECT")
	}
	client, err := pubsub.NewSubscriptionAdminClient(ctx, publish.ClientOptions(s.pubsub.EmulatorHost)...)
	if err != nil {
		return nil, configf("no client of Pub/Sub: %w; log in with 'gcloud auth application-default login', or give --pubsub-emulator", err)
	}
	return client, nil
}

// interrupted makes err [errInterrupted] where Ctrl-C is behind it; done says what
// that leaves.
func interrupted(ctx context.Context, err error, done string) error {
	if err == nil || ctx.Err() == nil || errors.Is(err, errInterrupted) {
		return err
	}
	return fmt.Errorf("%w: %s", errInterrupted, done)
}

// identity gives Google ID tokens, where the API stands behind Cloud Run's IAM.
type identity struct{ source oauth2.TokenSource }

// identityTokens returns the tokens of a service account's credentials; a person's
// own can't make any.
func identityTokens(ctx context.Context, audience string) (identity, error) {
	source, err := idtoken.NewTokenSource(ctx, audience)
	return identity{source}, err
}

// Token returns a token that is valid now. The source knows no context; its own
// requests are bounded.
func (i identity) Token(context.Context) (string, error) {
	token, err := i.source.Token()
	if err != nil {
		return "", err
	}
	return token.AccessToken, nil
}
