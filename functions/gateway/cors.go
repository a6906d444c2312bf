package gateway

import (
	"net/http"
	"strings"
)

// Preflights are remembered for two hours, the most that Chromium allows.
const preflightSeconds = "7200"

// What a page may send and read besides what every page may.
const (
	allowedHeaders = "Authorization, Content-Type, Last-Event-ID, traceparent"
	exposedHeaders = "Retry-After"
)

// cors lets pages of the listed origins in, and no others. There are no cookies
// here, so that credentials in the sense of CORS are never allowed: what proves
// who asks is a header, which a page has to set by itself.
type cors struct {
	origins map[string]bool
	next    http.Handler
}

func newCORS(origins []string, next http.Handler) *cors {
	c := &cors{origins: make(map[string]bool, len(origins)), next: next}
	for _, origin := range origins {
		c.origins[origin] = true
	}
	return c
}

func (c *cors) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Add("Vary", "Origin") // on every answer: a cache must not give one origin another's
	origin := r.Header.Get("Origin")
	listed := c.origins[origin]
	if listed {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", exposedHeaders)
	}
	switch {
	case r.Method == http.MethodOptions:
		c.preflight(w, r, listed)
	case origin != "" && !listed && !sameOrigin(origin, r):
		refuse(w, http.StatusForbidden, "origin_not_allowed", "pages of this origin may not use the gateway; GATEWAY_ORIGINS lists those that may")
	default:
		c.next.ServeHTTP(w, r)
	}
}

// preflight answers what a browser asks before it sends what a page wants to send.
// A browser takes an answer without the headers as a no.
func (c *cors) preflight(w http.ResponseWriter, r *http.Request, listed bool) {
	h := w.Header()
	h.Add("Vary", "Access-Control-Request-Method")
	h.Add("Vary", "Access-Control-Request-Headers")
	if method, ok := methods[r.URL.Path]; ok {
		h.Set("Allow", method+", OPTIONS")
		if listed {
			h.Set("Access-Control-Allow-Methods", method)
			h.Set("Access-Control-Allow-Headers", allowedHeaders)
			h.Set("Access-Control-Max-Age", preflightSeconds)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// sameOrigin reports whether a page that the gateway's own host served asks.
// Behind Cloud Run the scheme is not to be seen here, so the host decides.
func sameOrigin(origin string, r *http.Request) bool {
	_, host, ok := strings.Cut(origin, "://")
	return ok && strings.EqualFold(host, r.Host)
}
