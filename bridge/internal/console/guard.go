package console

import (
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// contentPolicy lets the page use its own files and nothing else. What uPlot styles, it
// styles through the DOM, which needs no permission.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// guard refuses what does not come from the console's own page.
func guard(token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !loopbackHost(r.Host):
			refuse(w, http.StatusMisdirectedRequest, "the console answers to loopback addresses only, such as 127.0.0.1")
		case !ownOrigin(r):
			refuse(w, http.StatusForbidden, "the console answers to its own page only")
		case strings.HasPrefix(r.URL.Path, "/api/") && !bears(r, token):
			refuse(w, http.StatusUnauthorized, "open the console with the whole address that it printed; it changes with each start")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// loopbackHost reports whether a Host header names a loopback address. A name is
// none: somebody else may have pointed it here.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}

// ownOrigin reports whether a browser says that the console's own page asks, or
// that a person opened it. What is no browser says nothing.
func ownOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		return origin == "http://"+r.Host
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return !strings.HasPrefix(r.URL.Path, "/api/") // a link to the page is no harm
}

func bears(r *http.Request, token string) bool {
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && subtle.ConstantTimeCompare([]byte(got), []byte(token)) == 1
}

// CheckListen returns an error unless address is host:port on loopback.
func CheckListen(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("want host:port, such as 127.0.0.1:8090: %w", err)
	}
	if !loopbackHost(host) || host == "" {
		return fmt.Errorf("the console is served on loopback only, such as 127.0.0.1:8090; from elsewhere reach it through a tunnel (ssh -L)")
	}
	return nil
}
