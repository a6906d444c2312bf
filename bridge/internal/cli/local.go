package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/local"
)

const localHelp = `Run the whole pipeline in this process: Redis, Pub/Sub with its retry and
dead-letter policy, bridge, functions, and a stand-in for the PHP API. Nothing
needs to be installed, and everything listens on this machine only.

Flags put real parts in the place of embedded ones. Nothing is taken from the
environment that could name a real part by accident, but the key of --php-api is
in TEBRA_INTERNAL_API_KEY, where other users of the machine don't see it.

With --gateway a page of one's own can use it through the gateway. Its tokens are
those of the Firebase Auth emulator where FIREBASE_AUTH_EMULATOR_HOST names one, for
the project of --project; without it a token that this run prints, with the user's
name behind it.

Other commands find the pipeline by themselves; of several the one that was
started last. Ctrl-C ends it cleanly, with exit code 0. With --output json, what
was started and each change of a request's state is one object a line.`

const localExamples = `  tebra local
  tebra local --fast
  tebra local --redis redis://127.0.0.1:6379
  tebra local --pubsub-emulator 127.0.0.1:8085
  tebra local --gateway http://localhost:3000 --gateway-port 8088
  TEBRA_INTERNAL_API_KEY=… tebra local --php-api https://api.example.com/api`

func (a *app) localCommand() *cobra.Command {
	o := local.DefaultOptions()
	var fast bool
	cmd := &cobra.Command{
		Use:     "local",
		Short:   "Run the whole pipeline on this machine",
		Long:    localHelp,
		Example: localExamples,
		Args:    noArguments,
		RunE:    a.runE(func(cmd *cobra.Command, _ []string) error { return a.local(cmd, o, fast) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Redis, "redis", o.Redis, "`URL` of a real Redis, redis:// or rediss://, or @FILE that holds it")
	flags.StringVar(&o.RedisCACert, "redis-ca-cert", o.RedisCACert, "`PEM` text or file that a rediss:// URL trusts")
	flags.StringVar(&o.Prefix, "prefix", o.Prefix, "what all Redis keys begin with")
	flags.StringVar(&o.PubSubEmulator, "pubsub-emulator", o.PubSubEmulator, "`host:port` of Google's Pub/Sub emulator")
	flags.StringVar(&o.Project, "project", o.Project, "Google Cloud `project` in which topics are made")
	flags.StringVar(&o.PHPAPI, "php-api", o.PHPAPI, "`URL` of a real API, whose key is in TEBRA_INTERNAL_API_KEY")
	flags.StringVar(&o.PolicyFile, "policy", o.PolicyFile, "`file` that says who may do what (default everybody may do what is known)")
	flags.DurationVar(&o.MinBackoff, "min-backoff", o.MinBackoff, "shortest time between two deliveries of a message that failed")
	flags.DurationVar(&o.MaxBackoff, "max-backoff", o.MaxBackoff, "longest time between two deliveries of a message that failed")
	flags.IntVar(&o.MaxAttempts, "max-attempts", o.MaxAttempts, "deliveries before a message is a dead letter")
	flags.BoolVar(&fast, "fast", false, "short backoff, for demonstrations: "+local.FastMinBackoff.String()+" to "+local.FastMaxBackoff.String())
	flags.StringSliceVar(&o.GatewayOrigins, "gateway", nil, "serve the gateway for pages of `origins`, with commas between: http://localhost:3000")
	flags.IntVar(&o.GatewayPort, "gateway-port", 0, "`port` of the gateway on loopback; 0 takes a free one")
	flags.BoolVarP(&o.Verbose, "verbose", "v", false, "print the parts' own logs as well, and so why an attempt failed")
	return cmd
}

func (a *app) local(cmd *cobra.Command, o local.Options, fast bool) error {
	if err := errors.Join(exclude(cmd, "fast", "min-backoff"), exclude(cmd, "fast", "max-backoff")); err != nil {
		return err
	}
	if fast {
		o.MinBackoff, o.MaxBackoff = local.FastMinBackoff, local.FastMaxBackoff
	}
	var err error
	if o.Redis, err = redisURL(o.Redis); err != nil {
		return err
	}
	if o.PHPAPI != "" {
		o.PHPAPIKey = a.env["TEBRA_INTERNAL_API_KEY"]
	}
	o.Operator = defaultOperator()
	o.Environ, o.JSON = a.environ, a.output == formatJSON
	if err := o.Validate(); err != nil {
		return err
	}
	return a.runLocal(cmd.Context(), o, a.stdout)
}
