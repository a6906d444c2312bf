package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// Start begins a call, and marks a write as started. It must have returned nil just before the call
// is sent, and need is the longest that the call can take. A read needs no mark:
// for it, Start does nothing.
//
// After any error the call must not be made, and the claim is to be released. It
// is [ErrLeaseLost], [ErrLeaseTooShort], [ErrReplicas], or what Redis or the network
// said. Start may be called again, for a call that certainly never left.
func (l *Ledger) Start(ctx context.Context, c *Claim, need time.Duration) error {
	if !c.callable {
		return c.wrap("start", errors.New("only a run that Claim gave may call the API"))
	}
	err := l.mark(ctx, c, need)
	c.begun = c.begun || err == nil
	return err
}

func (l *Ledger) mark(ctx context.Context, c *Claim, need time.Duration) error {
	if !c.Delivery.Write {
		return nil
	}
	c.starts++
	if l.cfg.Replicas == 0 {
		return l.start(ctx, l.rdb, c, need)
	}
	return l.startReplicated(ctx, c, need)
}

func (l *Ledger) start(ctx context.Context, rdb redis.Scripter, c *Claim, need time.Duration) error {
	cmd := l.run(ctx, rdb, startScript, c, nil, need.Milliseconds(), c.starts)
	return l.step(cmd, c, "start", map[string]error{"lost": ErrLeaseLost, "short": ErrLeaseTooShort})
}

// startReplicated starts and then waits for replicas on the same connection: WAIT
// asks for what that connection wrote. Watch is how go-redis holds on to one.
func (l *Ledger) startReplicated(ctx context.Context, c *Claim, need time.Duration) error {
	var confirmed int64
	var refused error
	err := l.rdb.Watch(ctx, func(tx *redis.Tx) (err error) {
		if refused = l.start(ctx, tx, c, need); refused != nil {
			return refused
		}
		confirmed, err = tx.Wait(ctx, l.cfg.Replicas, l.cfg.ReplicaWait).Result()
		return err
	}, l.keys.Ledger(c.Delivery.Envelope.Ledger))
	if refused != nil {
		return refused
	}
	if err != nil {
		return c.wrap("wait for the replicas of the start of", err)
	}
	if confirmed >= int64(l.cfg.Replicas) {
		return nil
	}
	short := fmt.Errorf("%d of %d within %v: %w", confirmed, l.cfg.Replicas, l.cfg.ReplicaWait, ErrReplicas)
	undone := l.run(ctx, l.rdb, unstartScript, c, nil, c.starts).Err()
	return c.wrap("start", errors.Join(short, undone))
}

// Complete writes the entry's terminal answer: response, status and record, and
// frees its place in the lane. Of resp only Data, or ErrorCode and Error, count
// (an empty Error becomes the code's meaning); the rest comes from the claim and
// the Redis clock. Whatever needs a person must be in the dead letters before.
//
// It works for as long as nobody else has taken over, even after the lease has
// run out; then it returns [ErrStale] and changes nothing.
func (l *Ledger) Complete(ctx context.Context, c *Claim, resp tebra.Response) error {
	return l.complete(ctx, c, resp, l.newAnswerID())
}

func (l *Ledger) complete(ctx context.Context, c *Claim, resp tebra.Response, answerID string) error {
	if !c.Verdict.Held() {
		return c.wrap("complete", fmt.Errorf("a claim of verdict %s holds nothing", c.Verdict))
	}
	if err := checkResponse(c, resp); err != nil {
		return c.wrap("complete", err)
	}
	e := &c.Delivery.Envelope
	cmd := l.run(ctx, l.rdb, completeScript, c, nil,
		answerID, string(resp.ErrorCode), body(resp), c.Attempt,
		&c.Delivery.Fingerprint, &e.Epoch, millis(e.AdmittedAt))
	return l.step(cmd, c, "complete", map[string]error{"stale": ErrStale})
}

// body is what the answer carries: the data of a success, or an error's text.
func body(resp tebra.Response) any {
	if resp.State() == tebra.Success {
		return []byte(resp.Data)
	}
	if resp.Error == "" {
		return resp.ErrorCode.Meaning()
	}
	return resp.Error
}

// Release gives the claim back, so that the request is tried again: status pending
// with code. It says that the call was not made or had no effect: whoever can't
// say that must not release, but let the lease run out. What is Unknown stays so.
//
// It returns [ErrStale] when another has taken over, and changes nothing then.
func (l *Ledger) Release(ctx context.Context, c *Claim, code tebra.ErrorCode) error {
	if !c.Verdict.Held() {
		return c.wrap("release", fmt.Errorf("a claim of verdict %s holds nothing", c.Verdict))
	}
	cmd := l.run(ctx, l.rdb, releaseScript, c, nil, string(code))
	return l.step(cmd, c, "release", map[string]error{"stale": ErrStale})
}

// Return puts the entry back into its lane's waiting line in Redis, as if it had
// not been published, and the message is to be acknowledged. The attempt counts
// only if its call was begun ([Ledger.Start]): a request that fails by itself must
// come to an end, one that waits for the API must not. Like Release it says that the call had no effect.
//
// It returns [ErrEntryGone] when the stream no longer has the entry, [ErrStale] when
// another has taken over, and changes nothing then.
func (l *Ledger) Return(ctx context.Context, c *Claim, code tebra.ErrorCode) error {
	if !c.callable {
		return c.wrap("return", errors.New("only a run that Claim gave may wait for its call"))
	}
	cmd := l.run(ctx, l.rdb, returnScript, c, nil,
		string(code), c.Delivery.Envelope.Lane, boolArg(c.begun))
	return l.step(cmd, c, "return", map[string]error{"stale": ErrStale, "gone": ErrEntryGone})
}

// Reject answers an entry that will not be served, because it is no request or
// Pub/Sub won't carry it, and takes it out of every hand. It needs no claim, for
// such an entry has none; should it have been a request to a bridge of another
// configuration, then whoever works on it answers, or has answered, and Reject
// only takes it out of hand and returns false. Of e the names, the ledger's hash, the
// lane and the entry count; of answer the ID, which must be this rejection's alone
// and makes it safe to repeat, ErrorCode and Error. The dead letter must have been
// published before.
func (l *Ledger) Reject(ctx context.Context, e tebra.Envelope, answer tebra.Response) (bool, error) {
	c := &Claim{Delivery: Delivery{Envelope: e}, token: answer.ID}
	if answer.ID == "" || answer.State() == tebra.Success {
		return false, c.wrap("reject", errors.New("the answer must be an error, with an ID"))
	}
	word, err := l.run(ctx, l.rdb, rejectScript, c, nil,
		answer.ID, string(answer.ErrorCode), body(answer)).Text()
	if err != nil {
		return false, c.wrap("reject", err)
	}
	return word == "ok", nil
}
