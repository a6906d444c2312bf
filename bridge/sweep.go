package bridge

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// sweepPage is how many entries of a lane the sweep asks for at a time.
const sweepPage = 1000

// sweep is the last line behind the promise of one answer for every request
// (DESIGN section 5.8). What has been open for ANSWER_DEADLINE is noted; what is
// still open as long again after its note is answered here. Two looks, because
// an old entry may have been admitted only just now.
func (b *Bridge) sweep(ctx context.Context) error {
	lanes, err := b.lanes.all(ctx, b.deps.Redis, b.deps.Keys)
	if err != nil {
		return err
	}
	notes, err := b.deps.Redis.HGetAll(ctx, b.deps.Keys.Overdue()).Result()
	if err != nil {
		return fmt.Errorf("reading the notes of overdue entries: %w", err)
	}
	now := b.clock.now()
	var failed error // one entry that can't be answered keeps nobody else waiting
	for _, lane := range lanes {
		failed = errors.Join(failed, b.sweepLane(ctx, lane, now, notes))
	}
	return errors.Join(failed, b.dropNotes(ctx, notes))
}

// noteName is a field of the overdue hash.
func noteName(lane, entryID string) string { return lane + "|" + entryID }

// sweepLane looks at every overdue entry of a lane, a page at a time. What leaves
// the set meanwhile moves others to the page before: the next sweep sees those.
func (b *Bridge) sweepLane(ctx context.Context, lane string, now time.Time, notes map[string]string) error {
	overdue := redis.ZRangeBy{
		Min: "-inf", Max: strconv.FormatInt(now.Add(-b.cfg.AnswerDeadline).UnixMilli(), 10), Count: sweepPage,
	}
	var failed error
	for {
		old, err := b.deps.Redis.ZRangeByScore(ctx, b.deps.Keys.Open(lane), &overdue).Result()
		if err != nil {
			return errors.Join(failed, fmt.Errorf("looking for overdue entries of lane %s: %w", lane, err))
		}
		for _, id := range old {
			err := b.sweepEntry(ctx, lane, id, now, notes[noteName(lane, id)])
			if ctx.Err() != nil {
				return err
			}
			if err != nil && failed == nil { // the first says enough
				failed = err
			}
		}
		if len(old) < sweepPage {
			return failed
		}
		overdue.Offset += sweepPage
	}
}

// sweepEntry notes an overdue entry, or answers one that was noted long ago.
func (b *Bridge) sweepEntry(ctx context.Context, lane, id string, now time.Time, note string) error {
	noted, err := strconv.ParseInt(note, 10, 64)
	if err != nil { // no note yet
		if err := b.deps.Redis.HSetNX(ctx, b.deps.Keys.Overdue(), noteName(lane, id), now.UnixMilli()).Err(); err != nil {
			return fmt.Errorf("noting an overdue entry: %w", err)
		}
		return nil
	}
	if now.Sub(time.UnixMilli(noted)) < b.cfg.AnswerDeadline {
		return nil
	}
	return b.answerOverdue(ctx, lane, id)
}

// dropNotes forgets the notes of entries that are no longer open.
func (b *Bridge) dropNotes(ctx context.Context, notes map[string]string) error {
	for name := range notes {
		lane, id, ok := strings.Cut(name, "|")
		if ok {
			err := b.deps.Redis.ZScore(ctx, b.deps.Keys.Open(lane), id).Err()
			if err == nil {
				continue
			}
			if err != redis.Nil {
				return fmt.Errorf("looking whether an overdue entry is open: %w", err)
			}
		}
		if err := b.deps.Redis.HDel(ctx, b.deps.Keys.Overdue(), name).Err(); err != nil {
			return fmt.Errorf("dropping the note of an entry: %w", err)
		}
	}
	return nil
}

// answerOverdue gives an entry the answer that never came. The ledger makes sure
// that only one does, and none while somebody works on it.
func (b *Bridge) answerOverdue(ctx context.Context, lane, id string) error {
	defer b.spare(id, new(bool)) // it stays open then, and the others have their turn
	entry, err := b.stream.Get(ctx, id)
	if err != nil {
		return err
	}
	// It was admitted, so its size was right, whatever the bound is now.
	req, err := b.codec.decode(entry.Fields, math.MaxInt)
	if err != nil { // its contents are gone: nobody can be told
		return b.closeOverdue(ctx, lane, id)
	}
	it := b.newItem(id, req, b.clock.now())
	it.envelope.Lane = lane
	if it.envelope.Epoch, err = b.epoch.get(ctx, b.deps.Ledger); err != nil {
		return err
	}
	claim, err := b.deps.Ledger.Settle(ctx, ledger.Delivery{
		Envelope: it.envelope, Write: it.write,
		Fingerprint: b.codec.fingerprint(req.Action, req.Params),
	})
	if err != nil {
		return err
	}
	code := tebra.NoAnswer
	switch claim.Verdict {
	case ledger.Run:
	case ledger.Unknown:
		code = tebra.OutcomeUnknown
	case ledger.Repeated: // the ledger has answered it just now
		b.audit.Operation(telemetry.Operation{Envelope: &it.envelope, Decision: telemetry.Repeated, Final: true})
		return nil
	case ledger.Conflict:
		b.audit.Operation(telemetry.Operation{
			Envelope: &it.envelope, Decision: telemetry.Conflict, Outcome: tebra.Duplicate, Final: true})
		return nil
	default: // leased, or answered meanwhile
		return nil
	}
	if err := b.deadLetter(ctx, &it, code); err != nil {
		return err
	}
	err = b.deps.Ledger.Complete(ctx, claim, tebra.Response{ErrorCode: code})
	if err == nil {
		b.log.Warn("answered an overdue request", "entryId", id, "lane", lane, "reason", string(code))
		b.audit.Operation(telemetry.Operation{
			Envelope: &it.envelope, Decision: telemetry.GivenUp, Outcome: code, Final: true, Attempt: claim.Attempt})
	}
	return err
}

// undelivered is why a dead letter could not be published, which is no trouble of Redis.
type undelivered struct{ error }

func (e undelivered) Unwrap() error { return e.error }

// letter publishes one dead letter and returns once that is confirmed, or with an
// [undelivered].
func (b *Bridge) letter(ctx context.Context, data []byte, e tebra.Envelope) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := b.deps.DeadLetters.One(ctx, data, e); err != nil {
		return undelivered{err}
	}
	b.seen.DeadLetter(e.Reason)
	return nil
}

// deadLetter publishes a request to the dead letters.
func (b *Bridge) deadLetter(ctx context.Context, it *item, reason tebra.ErrorCode) error {
	it.envelope.Reason = reason
	return b.letter(ctx, b.codec.encode(it.request, nil), it.envelope)
}

// closeOverdue ends an entry whose contents are gone.
func (b *Bridge) closeOverdue(ctx context.Context, lane, id string) error {
	r := trimmed(id)
	if err := b.letter(ctx, r.letter.data, r.letter.envelope); err != nil {
		return err
	}
	if err := b.deps.Redis.ZRem(ctx, b.deps.Keys.Open(lane), id).Err(); err != nil {
		return fmt.Errorf("closing overdue entry %s: %w", id, err)
	}
	b.log.Warn("an overdue entry was removed from the stream by somebody else", "entryId", id, "lane", lane)
	return nil
}
