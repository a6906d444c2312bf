package local

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"

	"tebraproxy/bridge"
	"tebraproxy/bridge/internal/console"
	"tebraproxy/bridge/internal/deadletters"
	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/stream"
)

const (
	// consoleUser is who asks from the console; the local policy grants everybody
	// everything.
	consoleUser = "local-user"
	// emptyAfter is how long an emulator may be silent before it is believed to hold
	// no more dead letters; it needs no time at all.
	emptyAfter = time.Millisecond
)

// startConsole serves the console, and notes its address.
func (p *Pipeline) startConsole(ctx context.Context, opts Options, rules *policy.Policy, log *slog.Logger) error {
	letters, err := pubsub.NewSubscriptionAdminClient(ctx, publish.ClientOptions(p.Info.PubSubEmulator)...)
	if err != nil {
		return fmt.Errorf("making a client of Pub/Sub: %w", err)
	}
	p.onClose(func() { letters.Close() })
	operator := opts.Operator
	if operator == "" {
		operator = "local"
	}
	cfg, err := config.Load[bridge.Config](p.environ(opts))
	if err != nil {
		return err
	}
	audit := stream.New(p.Redis, p.Keys)
	c, err := console.New(console.Config{
		Where: "the local pipeline", Operator: operator, User: consoleUser, MaxRequestBytes: cfg.MaxRequestBytes,
	}, console.Deps{
		Redis: p.Redis, Keys: p.Keys, Rules: rules, Inspector: inspect.New(p.Redis, p.Keys, rules), Auditor: audit,
		Letters: deadletters.New(deadletters.Config{
			Subscription: "projects/" + p.Info.Project + "/subscriptions/" + p.Info.InspectSubscription,
			Operator:     operator, Quiet: emptyAfter, MaxRequestBytes: cfg.MaxRequestBytes,
		}, deadletters.Deps{
			Subscriber: letters, Ledger: ledger.New(p.Redis, p.Keys, ledger.Config{}), Auditor: audit,
			IsWrite: func(action string) bool {
				known, ok := rules.Action(action)
				return !ok || known.Effect == policy.Write
			},
			Now: time.Now,
		}),
		Now: time.Now, Log: log.With(partKey, "console"),
	})
	if err != nil {
		return err
	}
	base, err := p.serve(c)
	if err != nil {
		return err
	}
	p.Console = c.Address(base)
	p.background(func(ctx context.Context) error { c.Run(ctx); return nil }, log)
	return nil
}
