package functions

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sethvargo/go-retry"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/tebra"
)

// finish does in the ledger what was decided and returns what Pub/Sub is told. It
// goes on trying until the handler's time is up and a little longer, see [detach].
func (r *run) finish(ctx context.Context, end ending) int {
	ctx, cancel := detach(ctx, finishGrace)
	defer cancel()
	done := r.seen.Finishing(ctx, end.step.String())
	err := r.inLedger(ctx, end)
	if errors.Is(err, ledger.ErrEntryGone) { // it can't wait in Redis, so Pub/Sub has to keep it
		end.step, end.http = release, http.StatusServiceUnavailable
		err = r.inLedger(ctx, end)
	}
	done()
	r.report(end, err)
	r.account(end, err)
	switch {
	case err == nil:
		return end.http
	case errors.Is(err, ledger.ErrStale):
		return http.StatusTooManyRequests // whoever has it now sees to it
	default:
		return http.StatusServiceUnavailable
	}
}

func (r *run) inLedger(ctx context.Context, end ending) error {
	switch end.step {
	case complete:
		return r.complete(ctx, end)
	case letComplete:
		if err := r.deadLetter(ctx, end.code); err != nil {
			return err
		}
		return r.complete(ctx, end)
	case returnToLane:
		return persist(ctx, func(ctx context.Context) error { return r.deps.Ledger.Return(ctx, r.claim, end.code) })
	default:
		return persist(ctx, func(ctx context.Context) error { return r.deps.Ledger.Release(ctx, r.claim, end.code) })
	}
}

func (r *run) complete(ctx context.Context, end ending) error {
	response := tebra.Response{Data: end.result.Data}
	if end.code != "" {
		response = tebra.Response{ErrorCode: end.code, Error: end.result.UserText}
	}
	if end.step == letComplete { // what the API said last is not what became of the request
		response.Error = end.code.Meaning()
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

// report writes the one log line of an attempt. It never holds contents.
func (r *run) report(end ending, err error) {
	about := append(make([]any, 0, 16), "attempt", r.claim.Attempt, "step", end.step.String(),
		"outcome", end.result.Outcome.String(), "ageMs", r.claim.Age.Milliseconds())
	if end.code != "" {
		about = append(about, "errorCode", string(end.code), "cause", end.result.Cause)
	}
	if end.result.Status != 0 {
		about = append(about, "apiStatus", end.result.Status)
	}
	switch {
	case err != nil:
		r.log.Error("the attempt could not be brought to its end; it comes again", append(about, "error", err)...)
	case end.code != "":
		r.log.Warn("attempt ended", about...)
	default:
		r.log.Info("answered", about...)
	}
}

const (
	// finishGrace is how long the ledger may still be tried once the handler's time
	// is up, or the server is stopping: less than the server waits for it.
	finishGrace = 2 * time.Second
	// stepTimeout bounds one try at a step in the ledger or the dead letters.
	stepTimeout = 5 * time.Second
)

// detach returns a context that lives on for grace after ctx has ended, so that
// what was done can still be accounted for. Its deadline is as early as can be told,
// because a Redis client that waits for a reply looks at nothing else.
func detach(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	own := context.WithoutCancel(ctx)
	if ctx.Err() != nil {
		return context.WithTimeout(own, grace)
	}
	var cancel context.CancelFunc
	if deadline, ok := ctx.Deadline(); ok {
		own, cancel = context.WithDeadline(own, deadline.Add(grace))
	} else {
		own, cancel = context.WithCancel(own)
	}
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-own.Done():
		}
	})
	return own, func() { stop(); cancel() }
}

// persist tries a step until it succeeds, ctx ends, or trying is of no use. The
// ledger's steps and dead letters may all be repeated. The error is that of the
// last try.
func persist(ctx context.Context, do func(context.Context) error) error {
	backoff := retry.WithCappedDuration(2*time.Second, retry.WithJitterPercent(25, retry.NewExponential(50*time.Millisecond)))
	last := ctx.Err() // should ctx have ended before the first try
	_ = retry.Do(ctx, backoff, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		if last = do(ctx); last == nil || isFinal(last) {
			return nil
		}
		return retry.RetryableError(last)
	})
	return last
}

// isFinal reports whether a step that failed so would fail again.
func isFinal(err error) bool {
	var refused *publish.RefusedError
	return errors.Is(err, ledger.ErrStale) || errors.Is(err, ledger.ErrEntryGone) || errors.As(err, &refused)
}
