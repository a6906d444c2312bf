package functions

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/push"
	"tebraproxy/pkg/rate"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
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
	Telemetry   *telemetry.Functions // nil observes nothing
}

// Processor is ProcessRequest. It is safe for concurrent use.
type Processor struct {
	cfg     Config
	deps    Deps
	audit   *telemetry.Auditor
	trouble *slog.Logger // for what meets every request alike
}

// NewProcessor returns ProcessRequest. It does not talk to anybody yet.
func NewProcessor(cfg Config, deps Deps) *Processor {
	return &Processor{cfg: cfg, deps: deps, audit: telemetry.NewAuditor(deps.Log, deps.Policy.ActionWord), trouble: telemetry.Thin(deps.Log)}
}

// ServeHTTP answers one push. The status is all that Pub/Sub looks at.
func (p *Processor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := workContext(r, p.cfg.HandlerTimeout)
	defer cancel()
	message, err := push.Read(r, push.MaxBody)
	if err != nil {
		refusePush(w, p.trouble, err)
		return
	}
	answerPush(w, p.handle(ctx, message))
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

// answers are the texts that go with a status. Pub/Sub reads none of them; they
// are for whoever tries the endpoint by hand.
var answers = map[int]string{
	http.StatusBadRequest:         "refused: the message was not published by a bridge, or its data is not the request that its attributes name",
	http.StatusTooManyRequests:    "not now: push it again later",
	http.StatusServiceUnavailable: "not done: push it again later",
}

// answerPush answers a push that was read.
func answerPush(w http.ResponseWriter, status int) {
	if text, ok := answers[status]; ok {
		http.Error(w, text, status)
		return
	}
	w.WriteHeader(status)
}

func (p *Processor) handle(ctx context.Context, message push.Message) int {
	env, err := tebra.ParseEnvelope(message.Attributes)
	if err != nil {
		p.trouble.Warn("message refused: it was not published by a bridge", "messageId", message.ID, "error", err)
		return http.StatusBadRequest
	}
	if env.Probe {
		return p.probe(ctx)
	}
	run := &run{Processor: p, env: env}
	ctx, run.seen = p.deps.Telemetry.Begin(ctx, &run.env, message.PublishTime)
	defer run.seen.End()
	about := append([]any{"entryId", env.EntryID, "requestId", tebra.Shown(env.RequestID), "correlationId", tebra.Shown(env.CorrelationID),
		"action", p.deps.Policy.ActionWord(env.Action)},
		run.seen.LogAttrs()...)
	run.log, run.published = p.deps.Log.With(about...), message.PublishTime
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
	ok := isBack(result)
	p.deps.Log.Info("probed the API", "ok", ok, "outcome", result.Outcome.String(), "status", result.Status, "cause", result.Cause)
	if ctx.Err() != nil { // we left, so nothing was learned
		return http.StatusNoContent
	}
	if err := p.deps.Breaker.Probed(ctx, ok); err != nil {
		p.deps.Log.Warn("the probe's result could not be noted", "error", err)
	}
	return http.StatusNoContent
}

// isBack reports whether a probe found the API at work: it answered, refused, or
// asked to slow down. A 200 that is no answer is none, such as a maintenance page:
// the requests that wait would be spent on it.
func isBack(r php.Result) bool {
	return r.Outcome == php.Answered || r.Outcome == php.Refused || r.Code == tebra.RateLimited
}
