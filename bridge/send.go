package bridge

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// publishTimeout bounds one try at publishing.
const publishTimeout = 10 * time.Second

// ackGrace is how long acknowledging may take once the bridge is stopping.
const ackGrace = 2 * time.Second

// send publishes what was admitted of a batch, rejects what was no request, and
// acknowledges what Pub/Sub has confirmed. What it can't send before half of
// CLAIM_IDLE has passed, or before the bridge stops, it lets go of: another
// bridge, or this one, reads it again with care.
func (b *Bridge) send(ctx, hard context.Context, bt *batch) {
	giveUp, cancel := context.WithDeadline(hard, bt.taken.Add(b.cfg.ClaimIdle/2))
	defer cancel()
	b.rejectAside(ctx, hard, bt, bt.rejects)
	b.acknowledge(ctx, hard, bt, bt.settled)
	refused := b.publish(ctx, hard, giveUp, bt)
	b.rejectAside(ctx, hard, bt, refused)
}

// publish publishes the items of a batch in as many tries as giveUp leaves time
// for, or one once ctx has ended, and acknowledges after each what Pub/Sub has
// confirmed: that does not wait for the rest. It returns what Pub/Sub refuses for
// what it is.
func (b *Bridge) publish(ctx, hard, giveUp context.Context, bt *batch) (refused []reject) {
	wait := newBackoff()
	for left := bt.items; len(left) > 0; {
		bt.pulse.beat()
		err := b.stamp(giveUp, left)
		b.noteRedis(giveUp, "stamping requests", err)
		if err == nil {
			var result tried
			result, err = b.publishOnce(giveUp, left)
			b.acknowledge(ctx, hard, bt, result.confirmed)
			b.counts.published.Add(int64(len(result.confirmed)))
			left = result.failed
			refused = append(refused, result.refused...)
			b.notePubSub(err)
		}
		if err != nil && (ctx.Err() != nil || !wait.sleep(giveUp)) {
			bt.unfinished = true
			break
		}
	}
	return refused
}

// notePubSub notes how a try at publishing went.
func (b *Bridge) notePubSub(err error) {
	b.gate.publishing(err == nil)
	if err == nil {
		b.notes.over("pubsub")
		return
	}
	b.notes.trouble("pubsub", "Pub/Sub can't be used; holding requests back and trying again", err)
}

// tried is what became of the items of one try.
type tried struct {
	confirmed []string // entries
	refused   []reject // Pub/Sub will never take them
	failed    []item   // may be tried again
}

// publishOnce tries all items once, and returns why the first that failed did.
func (b *Bridge) publishOnce(giveUp context.Context, items []item) (result tried, first error) {
	ctx, cancel := context.WithTimeout(giveUp, publishTimeout)
	defer cancel()
	out := outs.Get().(*outgoing)
	defer outs.Put(out)
	items, result.refused = b.fill(out, items)
	result.confirmed = make([]string, 0, len(items))
	began := time.Now()
	errs := b.deps.Requests.Publish(ctx, &out.messages)
	took := time.Since(began)
	for i, err := range errs {
		b.noteTry(&items[i], err)
		var refused *publish.RefusedError
		switch {
		case err == nil:
			result.confirmed = append(result.confirmed, items[i].entryID())
		case errors.As(err, &refused) && items[i].atFault(refused):
			result.refused = append(result.refused, b.refuse(&items[i]))
		default:
			result.failed = append(result.failed, items[i])
			first = cmp.Or(first, err)
		}
	}
	b.seen.Published(len(result.confirmed), took, first)
	if len(items) > 0 {
		b.seen.Waited(b.clock.now().Sub(items[0].arrival))
	}
	return result, first
}

// noteTry says how a try at publishing an item went.
func (b *Bridge) noteTry(it *item, err error) {
	defer b.spare(it.entryID(), &it.spoiled)
	it.sending.Done(err)
	if err == nil {
		b.lines.published(it)
	}
}

// outgoing is memory for one batch on its way out, used again and again: what
// grows with every batch is what a bridge would else spend most of its time on.
type outgoing struct {
	messages publish.Batch
	data     []byte
}

var outs = sync.Pool{New: func() any { return new(outgoing) }}

// fill makes messages of items. It returns the items, and those that are spoiled as
// rejects instead.
func (b *Bridge) fill(o *outgoing, items []item) (sound []item, spoiled []reject) {
	o.messages.Reset()
	sound = items[:0]
	for i := range items {
		it := &items[i]
		b.encode(o, it)
		switch {
		case it.spoiled:
			spoiled = append(spoiled, b.spoil(it, b.clock.now()))
		case len(spoiled) == 0:
			sound = items[:i+1]
		default:
			sound = append(sound, *it)
		}
	}
	return sound, spoiled
}

// encode adds the message of an item, unless it is spoiled.
func (b *Bridge) encode(o *outgoing, it *item) {
	if it.spoiled {
		return
	}
	defer b.spare(it.entryID(), &it.spoiled)
	it.sending = b.seen.Publishing(&it.envelope, it.arrival)
	o.data = b.codec.encode(it.request, o.data[:0])
	o.messages.Add(o.data, &it.envelope)
}

// stamp gives every item the epoch, and makes the records of writes with it
// (DESIGN section 8). It is done again at each try: Redis may have been flushed.
func (b *Bridge) stamp(ctx context.Context, items []item) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	var writes []ledger.Admission
	for i := range items {
		if it := &items[i]; it.write && !it.spoiled {
			print := b.fingerprint(it)
			if !it.spoiled {
				writes = append(writes, ledger.Admission{Hash: it.envelope.Ledger, EntryID: it.entryID(), Fingerprint: print})
			}
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

// fingerprint returns that of an item, unless it is spoiled.
func (b *Bridge) fingerprint(it *item) string {
	defer b.spare(it.entryID(), &it.spoiled)
	return b.codec.fingerprint(it.request.Action, it.request.Params)
}

// atFault reports whether the item is what Pub/Sub refuses, or may be the topic
// is, and remembers when it was refused first.
func (it *item) atFault(refused *publish.RefusedError) bool {
	if !it.refused {
		it.refused, it.refusedAt = true, refused.First
	}
	return refused.Last > it.refusedAt
}

// refuse makes a reject of a request that Pub/Sub will not carry.
func (b *Bridge) refuse(it *item) reject {
	bad := &tebra.DecodeError{Code: tebra.DeadLettered, Reason: "Pub/Sub refuses to carry the request"}
	env := it.envelope
	env.Reason = bad.Code
	return reject{
		entryID: it.entryID(), err: bad,
		letter: letter{data: it.request.AppendJSON(nil), envelope: env},
		answer: &tebra.Response{ID: b.deps.NewID(), Error: bad.Error(), ErrorCode: bad.Code},
	}
}

// acknowledge takes entries out of the hand for good, and keeps trying until it
// has or the bridge must stop. It has a while for it even when the time for
// publishing is over: what is confirmed and not acknowledged goes out twice.
func (b *Bridge) acknowledge(ctx, hard context.Context, bt *batch, ids []string) {
	wait := newBackoff()
	for len(ids) > 0 {
		bt.pulse.beat()
		timeout := redisTimeout
		if ctx.Err() != nil {
			timeout = ackGrace
		}
		ackCtx, cancel := context.WithTimeout(context.WithoutCancel(hard), timeout)
		err := b.ack(ackCtx, bt, ids)
		cancel()
		b.noteRedis(hard, "acknowledging", err)
		if err == nil {
			return
		}
		if ctx.Err() != nil || !wait.sleep(hard) {
			bt.unfinished = true
			return
		}
	}
}

// ack acknowledges entries once. After so long, a Redis that was away say, another
// bridge may have claimed them, and is to end what it began.
func (b *Bridge) ack(ctx context.Context, bt *batch, ids []string) error {
	if b.outdated(bt.taken) {
		return b.stream.AckOwn(ctx, b.consumer, ids)
	}
	return b.stream.Ack(ctx, ids)
}

// rejectAside rejects entries beside the flow of the others: dead letters that
// can't be published hold nobody up. There is room for a few batches of them.
// While there is none, the caller waits for it if letters go out, or else lets go
// of these entries: they stay pending for this bridge, and are read again once
// letters go out, or claimed.
func (b *Bridge) rejectAside(ctx, hard context.Context, from *batch, rejects []reject) {
	if len(rejects) == 0 {
		return
	}
	bt := &batch{rejects: rejects, taken: from.taken}
	for i := range rejects {
		bt.ids = append(bt.ids, rejects[i].entryID)
	}
	b.hand.hold(bt)
	run := func() error {
		defer b.hand.release(bt)
		defer b.noPanic("rejecting")
		giveUp, cancel := context.WithDeadline(hard, bt.taken.Add(b.cfg.ClaimIdle/2))
		defer cancel()
		b.rejectAll(ctx, giveUp, rejects)
		return nil
	}
	for !b.rejecting.TryGo(run) {
		from.pulse.beat()
		if b.lettersDown.Load() || !sleep(ctx, rejectPoll) {
			b.hand.release(bt)
			b.leaveStray()
			return
		}
	}
}

// rejectPoll is how often a worker looks for room among the rejects.
const rejectPoll = 5 * time.Millisecond

// leaveStray notes that rejects are pending for this bridge that it doesn't hold.
func (b *Bridge) leaveStray() {
	b.strays.Store(true)
	if !b.lettersDown.Load() {
		b.findStrays()
	}
}

// findStrays has the strays read again, if there are any.
func (b *Bridge) findStrays() {
	if b.strays.Swap(false) {
		b.unclear.Store(true)
	}
}

// rejectAll puts rejects into the dead letters and then, once that is confirmed,
// answers and acknowledges them.
func (b *Bridge) rejectAll(ctx, giveUp context.Context, rejects []reject) {
	wait := newBackoff()
	for {
		var err error
		rejects, err = b.rejectOnce(giveUp, rejects)
		b.lettersDown.Store(err != nil)
		if err == nil {
			b.notes.over("deadletters")
			b.findStrays()
			return
		}
		b.notes.trouble("deadletters", "rejected entries can't be dead-lettered; trying again", err)
		if ctx.Err() != nil || !wait.sleep(giveUp) {
			b.strays.Store(true)
			return
		}
	}
}

// rejectOnce returns the rejects that must be tried again, and why. What has its
// letter out is finished even when the time for publishing is over, all of it
// within ackGrace, and its letter does not go out again.
func (b *Bridge) rejectOnce(giveUp context.Context, rejects []reject) (failed []reject, first error) {
	first = b.publishLetters(giveUp, rejects)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(giveUp), ackGrace)
	defer cancel()
	for i := range rejects {
		r := &rejects[i]
		if r.lettered {
			err := b.finishReject(ctx, r)
			if err == nil {
				continue
			}
			first = cmp.Or(first, err)
		}
		failed = append(failed, *r)
	}
	return failed, first
}

// publishLetters publishes the dead letters that are not out yet, and returns why
// the first that failed did.
func (b *Bridge) publishLetters(giveUp context.Context, rejects []reject) (first error) {
	ctx, cancel := context.WithTimeout(giveUp, publishTimeout)
	defer cancel()
	var letters publish.Batch
	var due []*reject
	for i := range rejects {
		if r := &rejects[i]; !r.lettered {
			b.beginSpan(r)
			letters.Add(r.letter.data, &r.letter.envelope)
			due = append(due, r)
		}
	}
	for i, err := range b.deps.DeadLetters.Publish(ctx, &letters) {
		due[i].lettered = err == nil
		b.endSpan(due[i], err)
		first = cmp.Or(first, err)
	}
	return first
}

// beginSpan begins the span of a letter. One at which the bridge panics has none.
func (b *Bridge) beginSpan(r *reject) {
	r.sending = nil
	if r.bare {
		return
	}
	defer b.spare(r.entryID, &r.bare)
	r.sending = b.seen.Rejecting(&r.letter.envelope, arrivalOf(r.entryID, b.clock.now()))
}

// endSpan says how a try at publishing a letter went.
func (b *Bridge) endSpan(r *reject, err error) {
	defer b.spare(r.entryID, &r.bare)
	r.sending.Done(err)
}

// finishReject answers and acknowledges an entry whose dead letter is out.
func (b *Bridge) finishReject(ctx context.Context, r *reject) error {
	done, err := b.endReject(ctx, r)
	if err != nil || !done {
		return err
	}
	b.counts.rejected.Add(1)
	b.seen.Rejected(r.err.Code)
	b.audit.Operation(telemetry.Operation{
		Envelope: &r.letter.envelope, Decision: telemetry.Invalid, Outcome: r.err.Code, Final: r.answer != nil})
	b.log.Warn("entry rejected", "entryId", r.entryID, "reason", string(r.err.Code), "answered", r.answer != nil)
	return nil
}

// endReject reports whether it was this bridge that ended the entry. The ledger
// sees to it that an entry which was a request to another bridge is not answered
// beside the function that serves it.
func (b *Bridge) endReject(ctx context.Context, r *reject) (bool, error) {
	if r.answer == nil {
		return b.stream.Discard(ctx, r.entryID, r.letter.envelope.Lane)
	}
	return b.deps.Ledger.Reject(ctx, r.letter.envelope, *r.answer)
}
