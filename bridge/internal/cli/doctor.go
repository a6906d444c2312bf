package cli

import (
	"context"
	"errors"
	"fmt"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/doctor"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/publish"
)

const doctorHelp = `Check an installation from one end to the other: Redis and the rights in it, the
streams, bridges and breaker, Pub/Sub's topics, subscriptions and rights, the PHP
API and its key, and whether the deadlines of this environment nest. It only
reads; of the API it makes the call that the breaker probes with.

Each line is a check: ok, warning (it works, and will not always), failed, or
skipped with the reason. What is wrong has its remedy below.

The PHP API is asked where TEBRA_PHP_API_URL and TEBRA_INTERNAL_API_KEY are in the
environment, or a local pipeline is running.

Exit codes: 0 nothing failed, 1 something did, 2 bad usage.`

func (a *app) doctorCommand() *cobra.Command {
	var (
		p pipelineFlags
		s surroundingFlags
	)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check an installation, and say what to mend",
		Long:  doctorHelp,
		Example: `  tebra doctor
  tebra doctor --redis rediss://10.0.0.3:6378 --project my-project
  tebra doctor --output json | jq -r 'select(.status=="failed").remedy'`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              a.runE(func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd, p, s) }),
	}
	p.register(cmd.Flags())
	s.register(cmd.Flags())
	return cmd
}

func (a *app) doctor(cmd *cobra.Command, p pipelineFlags, s surroundingFlags) error {
	ctx := cmd.Context()
	target, err := p.find(ctx, a.env, cmd.Flags())
	if err != nil {
		return err
	}
	around, err := s.find(ctx, a.env, target)
	if err != nil {
		return err
	}
	patient, closers := a.patient(ctx, target, around)
	defer func() {
		for _, c := range closers {
			c()
		}
	}()
	out := a.newPrinter()
	counts := map[doctor.Status]int{}
	doctor.Examine(ctx, patient, func(f doctor.Finding) {
		counts[f.Status]++
		printFinding(out, f)
	})
	if ctx.Err() != nil {
		return fmt.Errorf("%w: not everything was checked", errInterrupted)
	}
	a.note("%d ok, %d skipped, %s, %d failed.", counts[doctor.OK], counts[doctor.Skipped], count(counts[doctor.Warning], "warning"), counts[doctor.Failed])
	if n := counts[doctor.Failed]; n > 0 {
		err = fmt.Errorf("%s failed; the remedies are above", count(n, "check"))
	}
	return errors.Join(err, out.err)
}

// patient connects to all that can be asked. The caller calls the closers.
func (a *app) patient(ctx context.Context, target pipeline, around surroundings) (doctor.Patient, []func()) {
	rdb := redis.NewClient(target.redis)
	p := doctor.Patient{
		Redis: rdb, Keys: target.keys, PubSub: around.pubsub, Inspect: around.inspect, Policy: around.policy,
		Environ: a.environ, Local: around.local, Now: a.now,
	}
	closers := []func(){func() { _ = rdb.Close() }}
	if topics, subs, err := around.admins(ctx); err != nil {
		p.NoPubSub = err.Error()
	} else {
		p.Topics, p.Subscriptions = topics, subs
		closers = append(closers, func() { _ = topics.Close() }, func() { _ = subs.Close() })
	}
	if api, err := around.client(ctx); err != nil {
		p.NoAPI = err.Error()
	} else {
		p.API = api
		closers = append(closers, api.Close)
	}
	return p, closers
}

// admins returns clients that tell about topics and subscriptions.
func (s surroundings) admins(ctx context.Context) (*pubsub.TopicAdminClient, *pubsub.SubscriptionAdminClient, error) {
	subs, err := s.subscriber(ctx)
	if err != nil {
		return nil, nil, err
	}
	topics, err := pubsub.NewTopicAdminClient(ctx, publish.ClientOptions(s.pubsub.EmulatorHost)...)
	if err != nil {
		return nil, nil, errors.Join(err, subs.Close())
	}
	return topics, subs, nil
}

// client returns a client of the PHP API, which the caller closes.
func (s surroundings) client(ctx context.Context) (*php.Client, error) {
	if s.api == "" || s.apiKey == "" {
		return nil, configf("which PHP API? Set TEBRA_PHP_API_URL and TEBRA_INTERNAL_API_KEY, or start 'tebra local'")
	}
	cfg := php.Config{URL: s.api, APIKey: s.apiKey}
	if s.apiAudience != "" {
		tokens, err := identityTokens(ctx, s.apiAudience)
		if err != nil {
			return nil, configf("no ID token for TEBRA_PHP_API_AUDIENCE: %w", err)
		}
		cfg.Tokens = tokens
	}
	client, err := php.New(cfg)
	if err != nil {
		return nil, &configError{err}
	}
	return client, nil
}

// jsonFinding is a finding for programs.
type jsonFinding struct {
	Area   string `json:"area"`
	Check  string `json:"check"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

func printFinding(p *printer, f doctor.Finding) {
	if p.asJSON() {
		p.object(jsonFinding{f.Area, f.Check, string(f.Status), f.Detail, f.Remedy})
		return
	}
	p.line(painted(statusPaint(f.Status), fmt.Sprintf("%-8s", f.Status)), word(fmt.Sprintf("%-9s", f.Area)),
		word(f.Check+": "+f.Detail))
	if f.Remedy != "" {
		p.line(word("        → "), word(f.Remedy))
	}
}

func statusPaint(s doctor.Status) paint {
	switch s {
	case doctor.OK:
		return good
	case doctor.Warning:
		return caution
	case doctor.Failed:
		return bad
	default:
		return dimmed
	}
}
