package bridge

import (
	"context"
	"errors"
	"time"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/tebra"
)

// publishTimeout bounds one try at publishing.
const publishTimeout = 10 * time.Second

// send publishes what was admitted of a batch, rejects what was no request, and
// acknowledges what Pub/Sub has confirmed. What it can't send before half of
// CLAIM_IDLE has passed, or before the bridge stops, it lets go of: another
// bridge, or this one, reads it again with care.
func (b *Bridge) send(ctx, hard context.Context, bt *batch) {
	giveUp, cancel := context.WithDeadline(hard, bt.taken.Add(b.cfg.ClaimIdle/2))
	defer cancel()
	done := append([]string(nil), bt.settled...)
	published := b.publish(ctx, giveUp, bt)
	done = append(done, published...)
	b.acknowledge(ctx, hard, done)
	b.counts.published.Add(int64(len(published)))
	b.rejectAll(ctx, giveUp, bt.rejects)
}

// publish returns the IDs of the entries that Pub/Sub has confirmed, in as many
// tries as giveUp leaves time for, or one once ctx has ended. An item that
// Pub/Sub refuses for what it is becomes a reject of the batch.
func (b *Bridge) publish(ctx, giveUp context.Context, bt *batch) []string {
	var confirmed []string
	left := bt.items
	wait := newBackoff()
	for len(left) > 0 {
		var failed []item
		err := b.stamp(giveUp, left)
		if err == nil {
			failed, err = b.publishOnce(giveUp, bt, left, &confirmed)
		} else {
			failed = left
		}
		left = failed
		if err == nil {
			b.gate.publishing(true)
			b.notes.over("pubsub")
			continue
		}
		b.gate.publishing(false)
		b.notes.trouble("pubsub", "Pub/Sub can't be used; holding requests back and trying again", err)
		if ctx.Err() != nil || !wait.sleep(giveUp) {
			b.unclear.Store(true)
			break
		}
	}
	return confirmed
}

// publishOnce tries all items once and returns those that may be tried again,
// with the first reason why.
func (b *Bridge) publishOnce(giveUp context.Context, bt *batch, items []item, confirmed *[]string) (failed []item, first error) {
	ctx, cancel := context.WithTimeout(giveUp, publishTimeout)
	defer cancel()
	var messages publish.Batch
	var data []byte
	for i := range items {
		data = items[i].request.AppendJSON(data[:0])
		messages.Add(data, &items[i].envelope)
	}
	began := time.Now()
	for i, err := range b.deps.Requests.Publish(ctx, &messages) {
		var refused *publish.RefusedError
		switch {
		case err == nil:
			*confirmed = append(*confirmed, items[i].entryID())
		case errors.As(err, &refused):
			bt.rejects = append(bt.rejects, b.refuse(&items[i]))
		default:
			failed = append(failed, items[i])
			if first == nil {
				first = err
			}
		}
	}
	b.counts.publishNanos.Store(int64(time.Since(began)))
	return failed, first
}

// stamp gives every item the epoch, and makes the records of writes with it
// (DESIGN section 8). It is done again at each try: Redis may have been flushed.
func (b *Bridge) stamp(ctx context.Context, items []item) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	var writes []ledger.Admission
	for i := range items {
		if it := &items[i]; it.write {
			writes = append(writes, ledger.Admission{
				Hash: it.envelope.Ledger, EntryID: it.entryID(),
				Fingerprint: tebra.Fingerprint(it.request.Action, it.request.Params),
			})
		}
	}
	epoch, err := b.epoch.get(ctx, b.deps.Ledger)
	if len(writes) > 0 {
		epoch, _, err = b.deps.Ledger.Admit(ctx, writes)
	}
	if err != nil {
		return err
	}
	for i := range items {
		items[i].envelope.Epoch = epoch
	}
	return nil
}

// refuse makes a reject of a request that Pub/Sub will not carry.
func (b *Bridge) refuse(it *item) reject {
	bad := &tebra.DecodeError{Code: tebra.DeadLettered, Reason: "Pub/Sub refuses to carry the request"}
	env := it.envelope
	env.Reason = bad.Code
	now := b.clock.now()
	return reject{
		entryID: it.entryID(), err: bad, lane: it.envelope.Lane,
		letter: letter{data: it.request.AppendJSON(nil), envelope: env},
		answer: &tebra.Response{
			ID: b.deps.NewID(), RequestID: it.request.ID, CorrelationID: it.request.CorrelationID,
			Error: bad.Error(), ErrorCode: bad.Code, Timestamp: now, Duration: now.Sub(it.arrival),
			UserID: it.request.UserID, Action: it.request.Action,
		},
	}
}

// acknowledge takes entries out of the hand for good, and keeps trying until it
// has or the bridge must stop.
func (b *Bridge) acknowledge(ctx, hard context.Context, ids []string) {
	wait := newBackoff()
	for len(ids) > 0 {
		ackCtx, cancel := context.WithTimeout(hard, redisTimeout)
		err := b.stream.Ack(ackCtx, ids)
		cancel()
		if err == nil {
			return
		}
		b.troubled("acknowledging", err)
		if ctx.Err() != nil || !wait.sleep(hard) {
			b.unclear.Store(true)
			return
		}
	}
}

// rejectAll puts rejects into the dead letters and then, once that is confirmed,
// answers and acknowledges them.
func (b *Bridge) rejectAll(ctx, giveUp context.Context, rejects []reject) {
	wait := newBackoff()
	for len(rejects) > 0 {
		var err error
		if rejects, err = b.rejectOnce(giveUp, rejects); err == nil {
			return
		}
		b.notes.trouble("deadletters", "rejected entries can't be dead-lettered; trying again", err)
		if ctx.Err() != nil || !wait.sleep(giveUp) {
			b.unclear.Store(true)
			return
		}
	}
	b.notes.over("deadletters")
}

// rejectOnce returns the rejects that must be tried again, and why.
func (b *Bridge) rejectOnce(giveUp context.Context, rejects []reject) (failed []reject, first error) {
	ctx, cancel := context.WithTimeout(giveUp, publishTimeout)
	defer cancel()
	var letters publish.Batch
	for i := range rejects {
		letters.Add(rejects[i].letter.data, &rejects[i].letter.envelope)
	}
	for i, err := range b.deps.DeadLetters.Publish(ctx, &letters) {
		if err == nil {
			err = b.finishReject(ctx, &rejects[i])
		}
		if err != nil {
			failed = append(failed, rejects[i])
			if first == nil {
				first = err
			}
		}
	}
	return failed, first
}

func (b *Bridge) finishReject(ctx context.Context, r *reject) error {
	done, err := b.stream.Reject(ctx, r.entryID, r.lane, r.answer)
	if err != nil || !done {
		return err
	}
	b.counts.rejected.Add(1)
	b.log.Warn("entry rejected", "entryId", r.entryID, "reason", string(r.err.Code), "answered", r.answer != nil)
	return nil
}
