package local

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	firebaseapp "firebase.google.com/go/v4"

	"tebraproxy/bridge/internal/console"
	"tebraproxy/functions/firebase"
	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/config"
)

// authEmulatorVariable is where Firebase's client looks for the Auth emulator.
const authEmulatorVariable = "FIREBASE_AUTH_EMULATOR_HOST"

// startGateway serves the gateway for pages of the origins, and notes its address and
// its token.
func (p *Pipeline) startGateway(ctx context.Context, opts Options, log *slog.Logger) error {
	cfg, err := config.Load[gateway.Config](p.environ(opts,
		"FUNCTION_TARGET="+gateway.Target, "GATEWAY_ORIGINS="+strings.Join(opts.GatewayOrigins, ",")))
	if err != nil {
		return err
	}
	verifier, err := p.verifier(ctx, opts)
	if err != nil {
		return err
	}
	g, err := gateway.New(cfg, gateway.Deps{Redis: p.Redis, Verifier: verifier, Log: log.With(partKey, "gateway"), Telemetry: p.seen})
	if err != nil {
		return err
	}
	if p.Gateway, err = p.serveAt(g, opts.GatewayPort); err != nil {
		return fmt.Errorf("the gateway can't be served: %w; give another --gateway-port", err)
	}
	p.background(g.Run, log)
	return nil
}

// verifier returns who tells users: the Auth emulator where the environment names one,
// or whoever knows a token of this run's own. What is deployed knows neither.
func (p *Pipeline) verifier(ctx context.Context, opts Options) (gateway.Verifier, error) {
	if host, _ := lookup(opts.Environ)(authEmulatorVariable); host == "" {
		p.GatewayToken = console.NewSecret()
		return console.NewBearer(p.GatewayToken), nil
	}
	if err := firebase.CheckEnvironment(lookup(opts.Environ)); err != nil {
		return nil, err
	}
	app, err := firebaseapp.NewApp(ctx, &firebaseapp.Config{ProjectID: opts.Project})
	if err != nil {
		return nil, fmt.Errorf("making a client of Firebase: %w", err)
	}
	accounts, err := app.Auth(ctx)
	if err != nil {
		return nil, fmt.Errorf("making a client of Firebase Auth: %w", err)
	}
	return firebase.NewTokens(accounts, opts.Project), nil
}
