package functions

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/rate"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// Bounds of what surrounds a call.
const (
	// rolesTimeout is the longest that users' roles may take to look up. It counts
	// in HANDLER_TIMEOUT (see [Config.Validate]).
	rolesTimeout = 5 * time.Second
	// startMargin is what a lease must have left beyond the call itself, for the
	// answer to be written.
	startMargin = 5 * time.Second
	// tellTimeout bounds what telling others of a call's outcome may cost it.
	tellTimeout = time.Second
)

// run is one attempt at one request.
type run struct {
	*Processor
	env     tebra.Envelope
	request tebra.Request
	action  policy.Action
	claim   *ledger.Claim
	log     *slog.Logger
	// published is when Pub/Sub got the message, zero where it doesn't say.
	published time.Time
	seen      *telemetry.Run // nil where nothing is observed
	called    bool           // the API, or it was tried
}

// ending is how an attempt ends: what is done about it, and on what grounds.
type ending struct {
	decision
	result php.Result
}

// tryLater gives a request back because something of ours is in trouble.
func tryLater(cause string) *ending {
	return &ending{decision{release, tebra.Unavailable, http.StatusServiceUnavailable}, php.Result{Cause: cause}}
}

func (r *run) process(ctx context.Context) int {
	known := false
	if r.action, known = r.deps.Policy.Action(r.request.Action); !known {
		r.action = policy.Action{Name: r.request.Action, Effect: policy.Read}
	}
	var err error
	r.claim, err = r.deps.Ledger.Claim(ctx, ledger.Delivery{
		Envelope:    r.env,
		Fingerprint: tebra.Fingerprint(r.request.Action, r.request.Params),
		Write:       r.action.Effect == policy.Write,
	})
	if err != nil {
		r.trouble.Warn("the request could not be claimed; it comes again", "entryId", r.env.EntryID, "error", err)
		return http.StatusServiceUnavailable
	}
	r.seen.Claimed(string(r.claim.Verdict), r.claim.Attempt, r.claim.Age, r.published)
	if status, done := afterClaim(r.claim.Verdict); done {
		r.log.Info("nothing to do", "verdict", string(r.claim.Verdict))
		auditVerdict(r.audit, &r.env, r.claim.Verdict)
		return status
	}
	if r.claim.Verdict == ledger.Unknown {
		return r.finish(ctx, ending{decision{letComplete, tebra.OutcomeUnknown, http.StatusNoContent},
			php.Result{Cause: "a write was begun whose outcome nobody knows"}})
	}
	return r.attempt(ctx)
}

// attempt makes the call, if nothing stands against it.
func (r *run) attempt(ctx context.Context) int {
	timeout := r.action.CallTimeout(r.cfg.PHPTimeout)
	if end := r.prepare(ctx, timeout); end != nil {
		return r.finish(ctx, *end)
	}
	r.log.Info("processing", "attempt", r.claim.Attempt, "ageMs", r.claim.Age.Milliseconds())
	traceparent, done := r.seen.Calling(ctx, r.request.Traceparent)
	r.called = true
	result := r.deps.API.Call(ctx, php.Request{
		Action: r.request.Action, Params: r.request.Params, Write: r.action.Effect == policy.Write,
		RequestID: r.request.ID, CorrelationID: r.request.CorrelationID, Traceparent: traceparent,
		Timeout: timeout,
	})
	done(telemetry.Called{Outcome: result.Outcome.String(), Code: result.Code, Status: result.Status})
	open := r.tellOthers(ctx, result)
	return r.finish(ctx, ending{decide(result, open, r.claim.Attempt), result})
}

// prepare does what comes before the call, and returns nil if the call is to be
// made. It ends early enough to leave the call its whole time: the handler's own
// deadline must not cut a write short, whose outcome nobody would know then.
func (r *run) prepare(ctx context.Context, timeout time.Duration) *ending {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-timeout))
		defer cancel()
	}
	// The gate is looked at twice: the API may have gone down while the request
	// waited for its turn.
	for _, check := range []func(context.Context) *ending{r.gate, r.admissible, r.waitForTurn, r.gate} {
		if end := check(ctx); end != nil {
			return end
		}
	}
	if err := r.deps.Ledger.Start(ctx, r.claim, timeout+startMargin); err != nil {
		r.trouble.Warn("the call may not be made", "entryId", r.env.EntryID, "error", err)
		return tryLater("the ledger did not let the call be made")
	}
	return nil
}

// gate sends a request back to its lane while the breaker is open.
func (r *run) gate(ctx context.Context) *ending {
	if !r.deps.Breaker.Open(ctx) {
		return nil
	}
	if r.claim.Attempt > giveUpReturned {
		return &ending{decision{letComplete, tebra.DeadLettered, http.StatusNoContent},
			php.Result{Cause: "the breaker is open, and every call failed before"}}
	}
	return &ending{decision{returnToLane, tebra.Unavailable, http.StatusNoContent}, php.Result{Cause: "the breaker is open"}}
}

// admissible holds the request against its action's ttl and the policy. What can't
// be called any more, or never could, is answered.
func (r *run) admissible(ctx context.Context) *ending {
	if ttl := r.action.TTL; ttl > 0 && r.claim.Age > ttl {
		return refusal(tebra.Expired, tebra.Expired.Meaning(), "older than its action's ttl")
	}
	err := r.authorize(ctx)
	var denied *policy.Denied
	switch {
	case err == nil:
		return nil
	case errors.As(err, &denied):
		return refusal(denied.Code, denied.Reason, denied.Reason)
	default:
		return tryLater(err.Error())
	}
}

// refusal answers a request that is not called.
func refusal(code tebra.ErrorCode, text, cause string) *ending {
	return &ending{decision{complete, code, http.StatusNoContent}, php.Result{UserText: text, Cause: cause}}
}

// authorize returns nil, a [*policy.Denied], or why the roles could not be asked
// for.
func (r *run) authorize(ctx context.Context) error {
	publishedBy, err := r.request.PublishedBy()
	if err != nil { // nobody knows who published it
		return &policy.Denied{Code: tebra.Unauthorized, Reason: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, rolesTimeout)
	defer cancel()
	return r.deps.Authorizer.Authorize(ctx, policy.Subject{
		UserID: r.request.UserID, PublishedBy: publishedBy, Action: r.request.Action})
}

// waitForTurn waits for the lane's rate, which all instances share.
func (r *run) waitForTurn(ctx context.Context) *ending {
	lane, ok := r.limitedLane()
	if !ok {
		return nil
	}
	defer r.seen.Waiting(ctx, lane.Name)()
	err := r.deps.Rate.Wait(ctx, rate.Limit{Lane: lane.Name, Interval: lane.Interval, Burst: lane.Burst}, r.cfg.RateWait)
	var late *rate.NotInTimeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &late):
		return &ending{decision{release, tebra.RateLimited, http.StatusTooManyRequests},
			php.Result{Cause: "its turn would not have come in time"}}
	default:
		return tryLater(err.Error())
	}
}

// limitedLane returns the lane whose rate the call counts against, if there is one.
func (r *run) limitedLane() (policy.Lane, bool) {
	lane, ok := r.deps.Policy.Lane(r.action.Lane)
	return lane, ok && lane.Limited()
}

// tellOthers tells the lane and the breaker how a call ended, and reports whether
// the breaker is open because of it. That they can't be told is no reason to lose
// an answer.
func (r *run) tellOthers(ctx context.Context, result php.Result) (open bool) {
	if !result.Infrastructure && result.RetryAfter == 0 { // the breaker counts that here
		_, _ = r.deps.Breaker.Record(ctx, true)
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	if lane, ok := r.limitedLane(); ok && result.RetryAfter > 0 {
		// At most php.MaxRetryAfter. Calls that were given their turn before are
		// still made.
		if err := r.deps.Rate.Hold(ctx, lane.Name, result.RetryAfter); err != nil {
			r.trouble.Warn("the lane could not be held back", "lane", lane.Name, "error", err)
		}
	}
	state, err := r.deps.Breaker.Record(ctx, !result.Infrastructure)
	if err != nil {
		r.trouble.Warn("the breaker could not be told", "error", err)
	}
	return result.Infrastructure && state != breaker.Closed
}
