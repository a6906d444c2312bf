package doctor

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"tebraproxy/pkg/php"
)

// api makes the call that the breaker probes with, which changes nothing.
func (e *examination) api(ctx context.Context) {
	a := e.area("api")
	if e.API == nil {
		a.skip("reachable", "%s", e.NoAPI)
		return
	}
	probe := e.Policy.Probe()
	began := time.Now()
	r := e.API.Call(ctx, php.Request{Action: probe.Name, Timeout: php.DefaultTimeout})
	took := time.Since(began).Milliseconds()
	cause := r.Cause
	if cause == "" {
		cause = r.Outcome.String()
	}
	switch {
	case r.Outcome == php.Answered:
		a.ok("reachable", "%s answered in %d ms", probe.Name, took)
		a.ok("key", "accepted")
	case r.Status == 0:
		a.fail("reachable", cause, "is the API running at TEBRA_PHP_API_URL, and can this machine reach it?")
	case r.Status == http.StatusUnauthorized || r.Status == http.StatusForbidden:
		a.ok("reachable", "answers in %d ms", took)
		a.fail("key", fmt.Sprintf("refused with %d", r.Status), "correct TEBRA_INTERNAL_API_KEY, and TEBRA_PHP_API_AUDIENCE where the API stands behind Cloud Run's IAM")
	case r.Status == http.StatusNotFound || r.Status == http.StatusMethodNotAllowed:
		a.fail("reachable", fmt.Sprintf("answers %d: that is not the API", r.Status), "correct TEBRA_PHP_API_URL")
	default:
		a.ok("key", "accepted, or not asked for")
		a.fail("reachable", fmt.Sprintf("%s failed: %s", probe.Name, cause), "look into the API's own log")
	}
}
