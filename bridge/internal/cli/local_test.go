package cli

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/php/phptest"
)

// TestADeadLetterOfALocalRunIsReplayedIntoAnAnswer goes the way of a new user:
// tebra local, and then commands without flags.
func TestADeadLetterOfALocalRunIsReplayedIntoAnAnswer(t *testing.T) {
	t.Parallel()
	for name, real := range map[string]func(*testing.T, *local.Options){
		"embedded": func(*testing.T, *local.Options) {},
		"real servers": func(t *testing.T, o *local.Options) {
			emulator := peertest.RealEmulator(t)
			o.Redis, o.PubSubEmulator, o.Project = peertest.RealRedis(t).URL(), emulator.Addr(), emulator.Project(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := local.DefaultOptions()
			opts.MinBackoff, opts.MaxBackoff = local.FastMinBackoff, local.FastMaxBackoff
			real(t, &opts)
			p, tebra := startLocal(t, opts)
			if err := p.API.Behave(phptest.Rule{Action: "getPatient", Do: "text", Times: 3}); err != nil {
				t.Fatal(err)
			}
			c := tebra("send", "getPatient", "patientId=7")
			c.expect(t, c.run(t, t.Context()), exitFailed, "bad_response")
			c = tebra("deadletters", "list", "--reason", "bad_response")
			c.expect(t, c.run(t, t.Context()), exitOK, "1 dead letter.")
			c = tebra("deadletters", "replay", "--all")
			c.expect(t, c.run(t, t.Context()), exitOK, "1 replayed.")
			peertest.Eventually(t, 30*time.Second, "the request to be answered with success", func() bool {
				c := tebra("history", "--action", "getPatient", "--output", "json")
				return c.run(t, t.Context()) == exitOK && strings.Contains(c.stdout.String(), `"status":"success"`)
			})
			c = tebra("deadletters", "list")
			c.expect(t, c.run(t, t.Context()), exitOK, "There are no dead letters.")
			c = tebra("doctor")
			c.expect(t, c.run(t, t.Context()), exitOK, "0 failed")
			c = tebra("compare", "health")
			c.expect(t, c.run(t, t.Context()), exitOK)
		})
	}
}

// startLocal starts a local run and returns uses of the command line that find it by
// themselves.
func startLocal(t *testing.T, opts local.Options) (*local.Pipeline, func(args ...string) *command) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := local.Start(ctx, opts, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	p.Info.PID, p.Info.Started = os.Getpid(), time.Now()
	path := filepath.Join(t.TempDir(), "local.json")
	if err := local.WriteDiscovery(path, p.Info); err != nil {
		t.Fatal(err)
	}
	return p, func(args ...string) *command {
		return &command{args: args, env: []string{local.DiscoveryVariable + "=" + path}}
	}
}
