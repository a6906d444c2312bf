package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"tebraproxy/pkg/peertest"
)

func decode(resp *http.Response, v any) error { return json.NewDecoder(resp.Body).Decode(v) }

// grants are the headers that let a page in.
func grants(h http.Header) (found []string) {
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// TestOnlyListedOriginsAreLetIn: preflights and requests of listed origins get what
// a browser asks for, exactly; those of others get nothing.
func TestOnlyListedOriginsAreLetIn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	for name, test := range map[string]struct {
		origin string
		listed bool
	}{
		"listed":               {listed, true},
		"another":              {"https://evil.example.com", false},
		"another scheme":       {"http://app.example.com", false},
		"another port":         {listed + ":8443", false},
		"a longer name":        {listed + ".evil.com", false},
		"a subdomain":          {"https://x.app.example.com", false},
		"the origin of a file": {"null", false},
		"with a slash":         {listed + "/", false},
		"in other capitals":    {"https://APP.example.com", false},
	} {
		t.Run(name, func(t *testing.T) {
			preflight := f.do(http.MethodOptions, "/v1/requests", "", "", "Origin", test.origin,
				"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type")
			actual := f.do(http.MethodPost, "/v1/requests", "alice", `{"action":"health"}`, "Origin", test.origin)
			for _, resp := range []*http.Response{preflight, actual} {
				if !slices.Contains(resp.Header.Values("Vary"), "Origin") {
					t.Errorf("Vary = %q, want Origin in it", resp.Header.Values("Vary"))
				}
				if got := resp.Header.Get("Access-Control-Allow-Credentials"); got != "" {
					t.Errorf("Access-Control-Allow-Credentials = %q, want none: there are no cookies", got)
				}
			}
			if !test.listed {
				if got := append(grants(preflight.Header), grants(actual.Header)...); got != nil {
					t.Errorf("headers %v, want none", got)
				}
				if actual.StatusCode != http.StatusForbidden {
					t.Errorf("POST = %d, want 403", actual.StatusCode)
				}
				return
			}
			h := preflight.Header
			if preflight.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != listed || h.Get("Access-Control-Allow-Methods") != "POST" ||
				!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") || h.Get("Access-Control-Max-Age") == "" ||
				!slices.Contains(h.Values("Vary"), "Access-Control-Request-Headers") {
				t.Errorf("preflight = %d %v", preflight.StatusCode, h)
			}
			if actual.StatusCode != 202 || actual.Header.Get("Access-Control-Allow-Origin") != listed || actual.Header.Get("Access-Control-Expose-Headers") != "Retry-After" {
				t.Errorf("POST = %d %v", actual.StatusCode, actual.Header)
			}
		})
	}
	refused := f.do(http.MethodPost, "/v1/requests", "", `{}`, "Origin", listed)
	if refused.StatusCode != 401 || refused.Header.Get("Access-Control-Allow-Origin") != listed {
		t.Errorf("a refusal = %d %v, want 401 that the page may read", refused.StatusCode, refused.Header)
	}
}

func TestPathsAndMethods(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/healthz", 200}, {"GET", "/v1/tebra.js", 200}, {"GET", "/v1/requests", 405}, {"POST", "/v1/events", 405},
		{"HEAD", "/v1/events", 405}, {"GET", "/", 404}, {"OPTIONS", "/nowhere", 204},
	} {
		resp := f.do(test.method, test.path, "alice", "")
		if resp.StatusCode != test.want {
			t.Errorf("%s %s = %d, want %d", test.method, test.path, resp.StatusCode, test.want)
		}
		if test.want == 405 && resp.Header.Get("Allow") == "" {
			t.Errorf("%s %s says no Allow", test.method, test.path)
		}
	}
	own := f.do("GET", "/v1/tebra.js", "", "", "Origin", f.url) // a page that the gateway's host serves
	if own.StatusCode != 200 || len(grants(own.Header)) != 0 {
		t.Errorf("same origin = %d %v, want 200 without grants", own.StatusCode, own.Header)
	}
}
