package functions

import (
	"log/slog"
	"net/http"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/rate"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// Clients is what talks to the world outside. Whoever made them closes them.
type Clients struct {
	Redis  redis.UniversalClient
	Topics publish.TopicClient
	Policy *policy.Policy
	Roles  policy.Source // [policy.Policy.Static] or a cache over another
	API    Caller        // a php.Client
	Log    *slog.Logger
	// Telemetry may be nil: then nothing is observed.
	Telemetry *telemetry.Telemetry
}

// Assemble puts both functions together, by name, from a valid configuration. It
// returns an error for what only shows here: a policy that does not fit the deadlines.
func Assemble(cfg Config, clients Clients) (map[string]http.Handler, error) {
	if err := clients.Policy.Check(policy.Limits{PHPTimeout: cfg.PHPTimeout, LedgerTTL: cfg.LedgerTTL}); err != nil {
		return nil, err
	}
	keys, err := tebra.NewKeys(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	deps := Deps{
		Ledger: ledger.New(clients.Redis, keys, ledger.Config{
			TTL: cfg.LedgerTTL, Lease: cfg.LedgerLease, Replicas: cfg.LedgerReplicas}),
		Breaker:     breaker.New(clients.Redis, keys, breaker.Config{}),
		Rate:        rate.New(clients.Redis, keys),
		Policy:      clients.Policy,
		Authorizer:  policy.NewAuthorizer(clients.Policy, clients.Roles),
		API:         clients.API,
		DeadLetters: publish.New(clients.Topics, cfg.DeadLetters()),
		Log:         clients.Log,
		Telemetry:   clients.instruments(),
	}
	return map[string]http.Handler{
		ProcessRequest:   deps.Telemetry.Handler(ProcessRequest, NewProcessor(cfg, deps)),
		RecordDeadLetter: deps.Telemetry.Handler(RecordDeadLetter, NewRecorder(RecorderConfig{cfg.Common}, deps)),
	}, nil
}

// instruments makes what the functions are observed by.
func (c Clients) instruments() *telemetry.Functions {
	lanes := []string{tebra.DefaultLane}
	for _, lane := range c.Policy.Lanes() {
		lanes = append(lanes, lane.Name)
	}
	return c.Telemetry.Functions(c.Policy.ActionNames(), lanes)
}

// AssembleRecorder puts RecordDeadLetter together by itself, from a valid
// configuration. Of clients it needs Redis, Policy and Log.
func AssembleRecorder(cfg RecorderConfig, clients Clients) (http.Handler, error) {
	keys, err := tebra.NewKeys(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	deps := Deps{
		Ledger:    ledger.New(clients.Redis, keys, ledger.Config{TTL: cfg.LedgerTTL, Lease: cfg.LedgerLease}),
		Policy:    clients.Policy,
		Log:       clients.Log,
		Telemetry: clients.instruments(),
	}
	return deps.Telemetry.Handler(RecordDeadLetter, NewRecorder(cfg, deps)), nil
}
