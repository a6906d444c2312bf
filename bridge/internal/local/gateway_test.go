package local_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/peertest/browser"
)

const patience = 30 * time.Second

// page serves an empty page, as an application's own server would.
func page(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>application</title>")
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// answerTo calls the gateway from a page of an origin, with a token, and returns what
// came of it: the first provider's ID, or the error's code.
func answerTo(t *testing.T, gateway, origin, token string) string {
	t.Helper()
	p := browser.Open(t)
	p.Go(origin)
	return browser.Eval[string](p, patience, fmt.Sprintf(`(async () => {
		const { Tebra } = await import('%[1]s/v1/tebra.js');
		const tebra = new Tebra({ url: '%[1]s', token: () => '%[2]s' });
		return tebra.getProviders().then((data) => 'answered ' + typeof data, (e) => e.code).finally(() => tebra.close());
	})()`, gateway, token))
}

func startWithGateway(t *testing.T, o local.Options) *local.Pipeline {
	t.Helper()
	p, err := local.Start(t.Context(), o, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestAPageUsesTheLocalGateway with the token that was printed, as any user, and with
// no other.
func TestAPageUsesTheLocalGateway(t *testing.T) {
	t.Parallel()
	o := local.DefaultOptions()
	o.GatewayOrigins = []string{page(t)}
	p := startWithGateway(t, o)
	for token, want := range map[string]string{
		p.GatewayToken + ".alice": "answered object", "x" + p.GatewayToken + ".alice": "token_invalid", p.GatewayToken: "user_unknown",
	} {
		if got := answerTo(t, p.Gateway, o.GatewayOrigins[0], token); got != want {
			t.Errorf("a call with the token %q = %q, want %q", token, got, want)
		}
	}
	if !strings.HasPrefix(p.Gateway, "http://127.0.0.1:") {
		t.Errorf("the gateway is at %s, want it on loopback", p.Gateway)
	}
}

// TestTheLocalGatewayTakesTokensOfTheAuthEmulator, and then none of its own.
func TestTheLocalGatewayTakesTokensOfTheAuthEmulator(t *testing.T) {
	auth := peertest.FirebaseAuth(t)
	t.Setenv("FIREBASE_AUTH_EMULATOR_HOST", auth.Host())
	o := local.DefaultOptions()
	o.GatewayOrigins, o.Project = []string{page(t)}, auth.SignInProject()
	o.Environ = []string{"FIREBASE_AUTH_EMULATOR_HOST=" + auth.Host()}
	p := startWithGateway(t, o)
	if p.GatewayToken != "" {
		t.Error("there is a token of its own beside the emulator's")
	}
	uid, token := auth.SignUp(t)
	if got, want := answerTo(t, p.Gateway, o.GatewayOrigins[0], token), "answered object"; got != want {
		t.Errorf("a call with a token of the emulator = %q, want %q", got, want)
	}
	if got := p.Redis.XRange(t.Context(), p.Keys.Requests(), "-", "+").Val(); len(got) != 1 || got[0].Values["userId"] != uid {
		t.Errorf("on the stream = %v, want one request of %s", got, uid)
	}
	if got, want := answerTo(t, p.Gateway, o.GatewayOrigins[0], ".alice"), "token_invalid"; got != want {
		t.Errorf("a call with another token = %q, want %q", got, want)
	}
}
