package console

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestOnlyTheConsolesOwnPageGetsIn: no other site's page, no name that points at
// this machine, and nobody without the token.
func TestOnlyTheConsolesOwnPageGetsIn(t *testing.T) {
	t.Parallel()
	const token = "SECRET"
	h := guard(token, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for name, test := range map[string]struct {
		path, host, origin, site, token string
		want                            int
	}{
		"the page":                   {path: "/", host: "127.0.0.1:80", want: 204},
		"the page, linked to":        {path: "/", host: "127.0.0.1:80", site: "cross-site", want: 204},
		"by name":                    {path: "/", host: "localhost:80", want: 204},
		"over IPv6":                  {path: "/", host: "[::1]:80", want: 204},
		"a name that was rebound":    {path: "/", host: "evil.example:80", want: 421},
		"a name that looks like it":  {path: "/", host: "127.0.0.1.evil.example", want: 421},
		"another address":            {path: "/", host: "192.0.2.1:80", want: 421},
		"no host":                    {path: "/", host: "", want: 421},
		"its own call":               {path: "/api/about", host: "127.0.0.1:80", origin: "http://127.0.0.1:80", site: "same-origin", token: token, want: 204},
		"without the token":          {path: "/api/about", host: "127.0.0.1:80", want: 401},
		"with another token":         {path: "/api/about", host: "127.0.0.1:80", token: "SECRES", want: 401},
		"another site's":             {path: "/api/about", host: "127.0.0.1:80", origin: "http://evil.example", token: token, want: 403},
		"another port's":             {path: "/api/about", host: "127.0.0.1:80", origin: "http://127.0.0.1:81", token: token, want: 403},
		"a sandboxed page's":         {path: "/api/about", host: "127.0.0.1:80", origin: "null", token: token, want: 403},
		"another site's, no origin":  {path: "/api/about", host: "127.0.0.1:80", site: "cross-site", token: token, want: 403},
		"another port's, no origin":  {path: "/api/about", host: "127.0.0.1:80", site: "same-site", token: token, want: 403},
		"a file for another origin":  {path: "/console.js", host: "127.0.0.1:80", origin: "http://evil.example", want: 403},
		"the API by a rebound name":  {path: "/api/about", host: "evil.example", origin: "http://evil.example", token: token, want: 421},
		"a path that is hardly /api": {path: "/api/../api/about", host: "127.0.0.1:80", want: 401},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://x"+test.path, nil)
		r.Host = test.host
		for name, value := range map[string]string{"Origin": test.origin, "Sec-Fetch-Site": test.site} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		if test.token != "" {
			r.Header.Set("Authorization", "Bearer "+test.token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != test.want {
			t.Errorf("%s: status %d, want %d", name, w.Code, test.want)
		}
		if got := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none';") || strings.Contains(got, "unsafe") {
			t.Errorf("%s: Content-Security-Policy = %q, want nothing but the page's own", name, got)
		}
		if strings.Contains(w.Body.String(), token) {
			t.Errorf("%s: the answer holds the token", name)
		}
	}
}

func TestTheConsoleListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"127.0.0.1:0": true, "127.9.9.9:80": true, "[::1]:80": true, "localhost:80": true,
		":80": false, "0.0.0.0:80": false, "[::]:80": false, "192.0.2.1:80": false, "example.com:80": false, "127.0.0.1": false, "": false,
	} {
		if err := CheckListen(address); (err == nil) != ok {
			t.Errorf("CheckListen(%q) = %v, want allowed %v", address, err, ok)
		}
	}
}
