package cli

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
)

// TestTheConsoleIsServedAtTheAddressItPrints, until Ctrl-C.
func TestTheConsoleIsServedAtTheAddressItPrints(t *testing.T) {
	t.Parallel()
	redis := peertest.RealRedis(t)
	ctx, interrupt := context.WithCancel(t.Context())
	c := &command{args: []string{"console", "--redis", redis.URL(), "--listen", "127.0.0.1:0"}}
	wait := c.start(t, ctx)
	var address string
	peertest.Eventually(t, 20*time.Second, "the console's address", func() bool {
		_, after, ok := strings.Cut(c.stdout.String(), "http://")
		address = "http://" + strings.TrimSpace(after)
		return ok && strings.HasSuffix(after, "\n")
	})
	base, token, _ := strings.Cut(address, "/#")
	for header, want := range map[string]int{"": http.StatusUnauthorized, "Bearer " + token: http.StatusOK} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/about", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", header)
		response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("GET %s/api/about with %q = %d, want %d", base, header, response.StatusCode, want)
		}
	}
	interrupt()
	c.expect(t, wait(), exitOK)
}

func TestTheConsoleRefusesOtherAddressesThanLoopback(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"0.0.0.0:8090", ":8090", "192.0.2.1:8090", "example.com:8090"} {
		c := &command{args: []string{"console", "--redis", "redis://127.0.0.1:1", "--listen", address}}
		c.expect(t, c.run(t, t.Context()), exitUsage, "loopback only")
	}
}
