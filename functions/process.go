package functions

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/sethvargo/go-retry"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/push"
	"tebraproxy/pkg/rate"
	"tebraproxy/pkg/tebra"
)

// Caller calls the API; a php.Client does.
type Caller interface {
	Call(context.Context, php.Request) php.Result
}

// DeadLetters publishes to the dead-letter topic and returns once the broker has
// confirmed it; a publish.Publisher does.
type DeadLetters interface {
	One(ctx context.Context, data []byte, envelope tebra.Envelope) error
}

// Deps is what the functions work with. They close none of it.
type Deps struct {
	Ledger      *ledger.Ledger
	Breaker     *breaker.Breaker
	Rate        *rate.Limiter
	Policy      *policy.Policy
	Authorizer  *policy.Authorizer
	API         Caller
	DeadLetters DeadLetters
	Log         *slog.Logger
}

// Processor is ProcessRequest. It is safe for concurrent use.
type Processor struct {
	cfg  Config
	deps Deps
}

// NewProcessor returns ProcessRequest. It does not talk to anybody yet.
func NewProcessor(cfg Config, deps Deps) *Processor { return &Processor{cfg: cfg, deps: deps} }

// ServeHTTP answers one push. The status is all that Pub/Sub looks at.
func (p *Processor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), p.cfg.HandlerTimeout)
	defer cancel()
	message, err := push.Read(r, push.MaxBody)
	if err != nil {
		refusePush(w, p.deps.Log, err)
		return
	}
	w.WriteHeader(p.handle(ctx, message))
}

// refusePush answers a body that is no push, with a reason that repeats nothing of it.
func refusePush(w http.ResponseWriter, log *slog.Logger, err error) {
	status := http.StatusBadRequest
	var bad *push.Error
	if errors.As(err, &bad) {
		status = bad.Status
	}
	log.Warn("push refused", "status", status, "error", err)
	http.Error(w, err.Error(), status)
}

func (p *Processor) handle(ctx context.Context, message push.Message) int {
	env, err := tebra.ParseEnvelope(message.Attributes)
	if err != nil {
		p.deps.Log.Warn("message refused: it was not published by a bridge", "messageId", message.ID, "error", err)
		return http.StatusBadRequest
	}
	if env.Probe {
		return p.probe(ctx)
	}
	run := &run{Processor: p, env: env, log: p.deps.Log.With(
		"entryId", env.EntryID, "requestId", env.RequestID, "correlationId", env.CorrelationID, "action", env.Action)}
	run.request, err = tebra.DecodeMessage(message.Data)
	if err != nil || !belongs(run.request, env) {
		run.log.Warn("message refused: its data is not the request that its attributes name", "messageId", message.ID)
		return http.StatusBadRequest
	}
	return run.process(ctx)
}

// belongs reports whether a request is the one that the envelope names.
func belongs(r tebra.Request, e tebra.Envelope) bool {
	return r.ID == e.RequestID && r.CorrelationID == e.CorrelationID && r.UserID == e.UserID && r.Action == e.Action
}

// probe tries the API once with the catalogue's harmless action and tells the
// breaker. The next probe comes by itself, so this one is never pushed again.
func (p *Processor) probe(ctx context.Context) int {
	action := p.deps.Policy.Probe()
	result := p.deps.API.Call(ctx, php.Request{
		Action: action.Name, RequestID: "probe", CorrelationID: "probe", Timeout: action.CallTimeout(p.cfg.PHPTimeout),
	})
	ok := !result.Infrastructure && result.Outcome != php.Unknown
	if err := p.deps.Breaker.Probed(ctx, ok); err != nil {
		p.deps.Log.Warn("the probe's result could not be noted", "error", err)
	}
	p.deps.Log.Info("probed the API", "ok", ok, "outcome", result.Outcome.String(), "status", result.Status, "cause", result.Cause)
	return http.StatusNoContent
}

// run is one attempt at one request.
type run struct {
	*Processor
	env     tebra.Envelope
	request tebra.Request
	action  policy.Action
	claim   *ledger.Claim
	log     *slog.Logger
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
		r.log.Warn("the request could not be claimed; it comes again", "error", err)
		return http.StatusServiceUnavailable
	}
	if status, done := afterClaim(r.claim.Verdict); done {
		r.log.Info("nothing to do", "verdict", string(r.claim.Verdict))
		return status
	}
	if r.claim.Verdict == ledger.Unknown {
		return r.finish(ctx, decision{letComplete, tebra.OutcomeUnknown, http.StatusNoContent}, php.Result{
			Cause: "a write was begun whose outcome nobody knows"})
	}
	return r.attempt(ctx)
}

// attempt checks whether the call may be made now, and makes it.
func (r *run) attempt(ctx context.Context) int {
	if r.deps.Breaker.Open(ctx) {
		return r.finish(ctx, decision{returnToLane, tebra.Unavailable, http.StatusNoContent}, php.Result{Cause: "the breaker is open"})
	}
	if d, result, ok := r.admissible(ctx); !ok {
		return r.finish(ctx, d, result)
	}
	if d, result, ok := r.waitForTurn(ctx); !ok {
		return r.finish(ctx, d, result)
	}
	timeout := r.action.CallTimeout(r.cfg.PHPTimeout)
	if err := r.deps.Ledger.Start(ctx, r.claim, timeout+startMargin); err != nil {
		r.log.Warn("the call may not be made", "error", err)
		return r.finish(ctx, tryLater, php.Result{Cause: "the ledger did not let the call be made"})
	}
	result := r.deps.API.Call(ctx, php.Request{
		Action: r.request.Action, Params: r.request.Params, Write: r.action.Effect == policy.Write,
		RequestID: r.request.ID, CorrelationID: r.request.CorrelationID, Traceparent: r.request.Traceparent,
		Timeout: timeout,
	})
	open := r.tellBreaker(ctx, result)
	return r.finish(ctx, decide(result, open, r.claim.Attempt), result)
}

// startMargin is what a lease must have left beyond the call itself.
const startMargin = 5 * time.Second

// tryLater gives a request back because something of ours is in trouble.
var tryLater = decision{release, tebra.Unavailable, http.StatusServiceUnavailable}

// admissible holds a request that was never called against its action's ttl and
// the policy.
func (r *run) admissible(ctx context.Context) (decision, php.Result, bool) {
	if ttl := r.action.TTL; ttl > 0 && r.claim.Age > ttl {
		return decision{complete, tebra.Expired, http.StatusNoContent},
			php.Result{Cause: "older than its action's ttl"}, false
	}
	publishedBy, err := r.request.PublishedBy()
	if err == nil {
		err = r.deps.Authorizer.Authorize(ctx, policy.Subject{
			UserID: r.request.UserID, PublishedBy: publishedBy, Action: r.request.Action})
	}
	var denied *policy.Denied
	if bad, ok := tebra.IsDecodeError(err); ok {
		denied = &policy.Denied{Code: tebra.Unauthorized, Reason: bad.Error()}
	}
	switch {
	case err == nil:
		return decision{}, php.Result{}, true
	case denied != nil, errors.As(err, &denied):
		return decision{complete, denied.Code, http.StatusNoContent},
			php.Result{UserText: denied.Reason, Cause: denied.Reason}, false
	default:
		return tryLater, php.Result{Cause: err.Error()}, false
	}
}

// waitForTurn waits for the lane's rate, which all instances share.
func (r *run) waitForTurn(ctx context.Context) (decision, php.Result, bool) {
	lane, ok := r.deps.Policy.Lane(r.action.Lane)
	if !ok || !lane.Limited() {
		return decision{}, php.Result{}, true
	}
	err := r.deps.Rate.Wait(ctx, rate.Limit{Lane: lane.Name, Interval: lane.Interval, Burst: lane.Burst}, r.cfg.RateWait)
	var late *rate.NotInTimeError
	switch {
	case err == nil:
		return decision{}, php.Result{}, true
	case errors.As(err, &late):
		return decision{release, tebra.RateLimited, http.StatusTooManyRequests},
			php.Result{Cause: "its turn would not have come in time"}, false
	default:
		return tryLater, php.Result{Cause: err.Error()}, false
	}
}

// tellBreaker notes a call's outcome and reports whether the breaker is open now.
// That it could not be told is no reason to lose an answer.
func (r *run) tellBreaker(ctx context.Context, result php.Result) bool {
	state, err := r.deps.Breaker.Record(ctx, !result.Infrastructure)
	if err != nil {
		r.log.Warn("the breaker could not be told", "error", err)
	}
	return result.Infrastructure && state != breaker.Closed
}

// finish does in the ledger what was decided and returns what Pub/Sub is told.
// It has its own deadline, so that a caller that left is still accounted for.
func (r *run) finish(ctx context.Context, d decision, result php.Result) int {
	ctx, cancel := detach(ctx)
	defer cancel()
	err := r.inLedger(ctx, d, result)
	r.report(d, result, err)
	switch {
	case err == nil:
		return d.http
	case errors.Is(err, ledger.ErrStale):
		return http.StatusTooManyRequests // whoever has it now sees to it
	default:
		return http.StatusServiceUnavailable
	}
}

// finishGrace is how long the ledger may be tried when the handler's own time is
// up, or the server is stopping.
const finishGrace = 3 * time.Second

// detach returns a context that lives on for finishGrace after ctx has ended.
func detach(ctx context.Context) (context.Context, context.CancelFunc) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(finishGrace, cancel) })
	return own, func() { stop(); cancel() }
}

func (r *run) inLedger(ctx context.Context, d decision, result php.Result) error {
	switch d.step {
	case letComplete:
		if err := r.deadLetter(ctx, d.code); err != nil {
			return err
		}
		return r.complete(ctx, d, result)
	case complete:
		return r.complete(ctx, d, result)
	case returnToLane:
		err := persist(ctx, func(ctx context.Context) error { return r.deps.Ledger.Return(ctx, r.claim, d.code) })
		if !errors.Is(err, ledger.ErrEntryGone) {
			return err
		}
		return errors.Join(err, r.release(ctx, d.code))
	default:
		return r.release(ctx, d.code)
	}
}

func (r *run) release(ctx context.Context, code tebra.ErrorCode) error {
	return persist(ctx, func(ctx context.Context) error { return r.deps.Ledger.Release(ctx, r.claim, code) })
}

func (r *run) complete(ctx context.Context, d decision, result php.Result) error {
	response := tebra.Response{Data: result.Data}
	if d.code != "" {
		response = tebra.Response{ErrorCode: d.code, Error: result.UserText}
	}
	if d.step == letComplete {
		response.Error = d.code.Meaning()
	}
	return persist(ctx, func(ctx context.Context) error { return r.deps.Ledger.Complete(ctx, r.claim, response) })
}

// deadLetter publishes the request for an operator to look at.
func (r *run) deadLetter(ctx context.Context, reason tebra.ErrorCode) error {
	env := r.env
	env.Reason = reason
	data := r.request.AppendJSON(nil)
	return persist(ctx, func(ctx context.Context) error { return r.deps.DeadLetters.One(ctx, data, env) })
}

// stepTimeout bounds one try at a step in the ledger or the dead letters.
const stepTimeout = 5 * time.Second

// persist tries a step until it succeeds, ctx ends, or trying is of no use. The
// ledger's steps and dead letters may all be repeated.
func persist(ctx context.Context, do func(context.Context) error) error {
	backoff := retry.WithCappedDuration(2*time.Second, retry.WithJitterPercent(25, retry.NewExponential(50*time.Millisecond)))
	return retry.Do(ctx, backoff, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		err := do(ctx)
		if err == nil || errors.Is(err, ledger.ErrStale) || errors.Is(err, ledger.ErrEntryGone) {
			return err
		}
		return retry.RetryableError(err)
	})
}

// report writes the one log line of an attempt. It never holds contents.
func (r *run) report(d decision, result php.Result, err error) {
	log := r.log.With("attempt", r.claim.Attempt, "step", d.step.String(), "outcome", result.Outcome.String(),
		"age", r.claim.Age.Round(time.Millisecond))
	if d.code != "" {
		log = log.With("errorCode", string(d.code), "cause", result.Cause)
	}
	if result.Status != 0 {
		log = log.With("apiStatus", result.Status)
	}
	switch {
	case err != nil:
		log.Error("the attempt could not be brought to its end; it comes again", "error", err)
	case d.code != "":
		log.Warn("attempt ended")
	default:
		log.Info("answered")
	}
}
