package functions

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/push"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// Recorder is RecordDeadLetter: it answers for what the retry policy gave up on
// (DESIGN section 10). Its subscription retries for ever. It is safe for
// concurrent use.
type Recorder struct {
	cfg     RecorderConfig
	deps    Deps
	audit   *telemetry.Auditor
	trouble *slog.Logger // for what meets every dead letter alike
}

// NewRecorder returns RecordDeadLetter. Of deps it needs Ledger, Policy and Log.
func NewRecorder(cfg RecorderConfig, deps Deps) *Recorder {
	return &Recorder{cfg: cfg, deps: deps, audit: telemetry.NewAuditor(deps.Log, deps.Policy.ActionWord), trouble: telemetry.Thin(deps.Log)}
}

// ServeHTTP answers one push of a dead letter.
func (d *Recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := workContext(r, d.cfg.HandlerTimeout)
	defer cancel()
	message, err := push.Read(r, push.MaxBody)
	if err != nil {
		refusePush(w, d.trouble, err)
		return
	}
	answerPush(w, d.handle(ctx, message))
}

func (d *Recorder) handle(ctx context.Context, message push.Message) int {
	log := d.deps.Log.With("messageId", message.ID)
	env, err := tebra.ParseEnvelope(message.Attributes)
	if err != nil { // nobody can be answered; the inspection subscription keeps it
		log.Warn("a dead letter that no bridge published", "error", err)
		return http.StatusNoContent
	}
	if env.Reason != "" || env.Probe { // answered before, or nobody's
		return http.StatusNoContent
	}
	ctx, seen := d.deps.Telemetry.Begin(ctx, &env, message.PublishTime)
	defer seen.End()
	log = log.With("entryId", env.EntryID, "requestId", tebra.Shown(env.RequestID), "correlationId", tebra.Shown(env.CorrelationID),
		"action", d.deps.Policy.ActionWord(env.Action)).With(seen.LogAttrs()...)
	claim, err := d.deps.Ledger.Settle(ctx, d.delivery(env, message.Data))
	if err != nil {
		d.trouble.Warn("the dead letter could not be claimed; it comes again", "entryId", env.EntryID, "error", err)
		return http.StatusServiceUnavailable
	}
	if claim.Verdict == ledger.Busy { // the last attempt may still be running
		log.Info("the dead letter comes again: its request is being worked on")
		return http.StatusServiceUnavailable
	}
	if status, done := afterClaim(claim.Verdict); done {
		log.Info("nothing to do about a dead letter", "verdict", string(claim.Verdict))
		auditVerdict(d.audit, &env, claim.Verdict)
		return status
	}
	return d.settle(ctx, claim, log)
}

// settle answers for a request that will not be called any more.
func (d *Recorder) settle(ctx context.Context, claim *ledger.Claim, log *slog.Logger) int {
	ctx, cancel := detach(ctx, finishGrace)
	defer cancel()
	code := tebra.DeadLettered
	if claim.Verdict == ledger.Unknown {
		code = tebra.OutcomeUnknown
	}
	log = log.With("errorCode", string(code), "lastErrorCode", string(claim.LastCode), "attempts", claim.Attempt)
	err := persist(ctx, func(ctx context.Context) error {
		return d.deps.Ledger.Complete(ctx, claim, tebra.Response{ErrorCode: code, Error: lastWords(code, claim.LastCode)})
	})
	switch {
	case err == nil:
		log.Warn("answered a dead letter")
		d.deps.Telemetry.Answered(&claim.Delivery.Envelope, code, claim.Age)
		d.deps.Telemetry.DeadLetter(code)
		d.audit.Operation(telemetry.Operation{
			Envelope: &claim.Delivery.Envelope, Decision: telemetry.GivenUp, Outcome: code, Final: true, Attempt: claim.Attempt})
		return http.StatusNoContent
	case errors.Is(err, ledger.ErrStale):
		log.Info("the dead letter comes again: somebody took its request over")
	default:
		log.Error("the dead letter could not be answered; it comes again", "error", err)
	}
	return http.StatusServiceUnavailable
}

// delivery needs only the attributes: a body that can't be read is answered too.
func (d *Recorder) delivery(env tebra.Envelope, data []byte) ledger.Delivery {
	delivery := ledger.Delivery{Envelope: env, Write: d.deps.Policy.IsWrite(env.Action)}
	if request, err := tebra.DecodeMessage(data); err == nil && belongs(request, env) {
		delivery.Fingerprint = tebra.Fingerprint(request.Action, request.Params)
	}
	return delivery
}

// lastWords is the text of the answer: what happened, and what went wrong last.
func lastWords(code, last tebra.ErrorCode) string {
	if last == "" {
		return code.Meaning()
	}
	return code.Meaning() + " (last: " + last.Meaning() + ")"
}
