package local

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

func TestTheBalancerHandsRequestsToInstancesInTurn(t *testing.T) {
	t.Parallel()
	var got [3]atomic.Int32
	var instances []*url.URL
	for i := range got {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.Method == http.MethodPost && r.URL.Path == "/ProcessRequest" && string(body) == "push" {
				got[i].Add(1)
			}
			w.WriteHeader(http.StatusTooManyRequests)
		}))
		t.Cleanup(server.Close)
		at, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		instances = append(instances, at)
	}
	p := &Pipeline{}
	t.Cleanup(p.Close)
	at, err := p.balance(instances, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatalf("balance() = %v", err)
	}
	for range 12 {
		resp, err := http.Post(at+"/ProcessRequest", "application/json", strings.NewReader("push"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("status through the balancer = %d, want the instance's %d", resp.StatusCode, http.StatusTooManyRequests)
		}
	}
	for i := range got {
		if n := got[i].Load(); n != 4 {
			t.Errorf("instance %d got %d of 12 requests as they were sent, want 4", i, n)
		}
	}
}
