package deadletters

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/tebra"
)

// Outcome is what became of one letter.
type Outcome string

// The outcomes. The first two are of a forecast or a dry run.
const (
	WouldReplay      Outcome = "would_replay"
	WouldAcknowledge Outcome = "would_acknowledge" // it was replayed before
	Replayed         Outcome = "replayed"
	Acknowledged     Outcome = "acknowledged" // it was replayed before
	Dropped          Outcome = "dropped"
	Refused          Outcome = "refused"
	Missing          Outcome = "not_found"
	Undone           Outcome = "not_done" // the act ended before its turn, or failed at it
	Unsure           Outcome = "unknown"  // it was being dropped when that failed: it may be gone
)

// Refusals of ours beside those of the ledger.
const (
	// NotARequest: there is nothing that could be put back.
	NotARequest ledger.Refusal = "not_a_request"
	// TooLarge: a bridge would reject the entry that a replay makes, which is longer
	// than the first, and of what is rejected for its size nobody keeps the
	// contents. Force overrides it.
	TooLarge ledger.Refusal = "too_large"
)

// spare is how many bytes a replay leaves free below the bound, for what a bridge
// of another version may count beside.
const spare = 256

// Result is what became of one letter, or would.
type Result struct {
	Letter  Letter // only with its ID where the outcome is Missing
	Outcome Outcome
	EntryID string         // the entry that stands for it now
	Forced  bool           // a refusal was overridden
	Refusal ledger.Refusal // when refused
	Why     string         // for people: when refused, missing, or not done
}

// Report is what became of an act's letters.
type Report struct {
	Results []Result
	More    bool // a bound was reached: there may be more letters that match
}

// Count returns how many letters had one of the outcomes.
func (r Report) Count(outcomes ...Outcome) int {
	n := 0
	for _, result := range r.Results {
		if slices.Contains(outcomes, result.Outcome) {
			n++
		}
	}
	return n
}

// ReplayOptions change how [Queue.Replay] goes about it.
type ReplayOptions struct {
	DryRun bool // say what would be done, and change nothing
	Force  bool // override the refusals that can be (DESIGN section 10)
	// Progress, when set, is called with how many letters are done, of how many.
	Progress func(done, total int)
}

// batch is how many letters are put on record and acknowledged at a time.
const batch = 50

// Replay puts the requests of the letters that match back on the requests stream,
// as far as the ledger lets it, and acknowledges those that are there. The rest
// stay where they were. It may be interrupted and run again: no letter is lost and
// none is replayed twice. The report comes beside an error as well.
func (q *Queue) Replay(ctx context.Context, f Filter, o ReplayOptions) (report Report, err error) {
	h := q.hold(ctx)
	defer h.release(ctx, &err)
	f.IDs = unique(f.IDs)
	letters, more, err := q.collect(ctx, h, f)
	report.More = more
	if err != nil {
		return report, err
	}
	var failed error
	for chunk := range slices.Chunk(letters, batch) {
		var results []Result
		switch {
		case failed != nil:
			results = undone(chunk)
		case o.DryRun:
			results, failed = q.check(ctx, chunk, o.Force)
		default:
			results, failed = q.replayBatch(ctx, h, chunk, o.Force)
		}
		report.Results = append(report.Results, results...)
		if o.Progress != nil && failed == nil {
			o.Progress(len(report.Results), len(letters))
		}
	}
	report.addMissing(f, letters)
	return report, failed
}

// check tells of each letter what a replay would do.
func (q *Queue) check(ctx context.Context, letters []Letter, force bool) ([]Result, error) {
	results := make([]Result, 0, len(letters))
	for i, l := range letters {
		r := q.forecast(ctx, l, force)
		results = append(results, r)
		if r.Outcome == Undone {
			return append(results, undone(letters[i+1:])...), errors.New(r.Why)
		}
	}
	return results, nil
}

// replayBatch replays those of the letters that it may. What the ledger refuses
// needs no record, because nothing is done.
func (q *Queue) replayBatch(ctx context.Context, h *hold, letters []Letter, force bool) ([]Result, error) {
	results, err := q.check(ctx, letters, force)
	if err != nil {
		return undone(letters), err
	}
	var records []tebra.AuditRecord
	for _, r := range results {
		if r.Outcome != Refused {
			records = append(records, q.record(tebra.DeadLetterReplayed, r.Letter, decision(r)))
		}
	}
	if len(records) == 0 {
		return results, nil
	}
	if err := q.deps.Auditor.Audit(ctx, records...); err != nil {
		return undone(letters), fmt.Errorf("nothing is replayed that can't be put on record: %w", err)
	}
	err = q.replayAllowed(ctx, letters, results)
	return results, errors.Join(err, q.acknowledgeDone(ctx, h, results))
}

func decision(r Result) tebra.Decision {
	if r.Forced {
		return tebra.Forced
	}
	return tebra.Allowed
}

// replayAllowed replays, in place, what results say would be.
func (q *Queue) replayAllowed(ctx context.Context, letters []Letter, results []Result) error {
	var failed error
	for i := range results {
		r := &results[i]
		switch {
		case r.Outcome == Refused:
		case failed != nil:
			r.Outcome, r.EntryID = Undone, ""
		default:
			forced := r.Forced
			replayed, err := q.deps.Ledger.Replay(ctx, q.wish(letters[i], forced))
			*r = result(letters[i], replayed, err, Replayed, Acknowledged)
			r.Forced = forced
			if r.Outcome == Undone {
				failed = fmt.Errorf("replaying letter %s: %w", r.Letter.ID, err)
			}
		}
	}
	return failed
}

// acknowledgeDone acknowledges the letters that stand on the stream again.
func (q *Queue) acknowledgeDone(ctx context.Context, h *hold, results []Result) error {
	var ids []string
	for _, r := range results {
		if r.Outcome == Replayed || r.Outcome == Acknowledged {
			ids = append(ids, r.Letter.ID)
		}
	}
	if err := h.acknowledge(ctx, ids); err != nil {
		return fmt.Errorf("%d letters were replayed and are still listed; replay them again to take them off, nothing is done twice: %w", len(ids), err)
	}
	return nil
}

// forecast says what a replay would do. Force is used only where it is needed.
func (q *Queue) forecast(ctx context.Context, l Letter, force bool) Result {
	if l.Kind != Request {
		return Result{Letter: l.bare(), Outcome: Refused, Refusal: NotARequest, Why: notARequest(l)}
	}
	r := q.askLedger(ctx, l, force)
	if r.Outcome != WouldReplay || q.wish(l, false).Bytes() <= q.cfg.MaxRequestBytes-spare {
		return r
	}
	if force {
		r.Forced = true
		return r
	}
	return Result{Letter: l.bare(), Outcome: Refused, Refusal: TooLarge, Why: fmt.Sprintf(
		"its new entry would not surely fit into the %d bytes that a bridge carries, would be rejected, and what it holds would be lost; "+
			"raise MAX_REQUEST_BYTES in the bridges and here, or force it if theirs is higher already", q.cfg.MaxRequestBytes)}
}

// askLedger is [Queue.forecast] as far as the ledger decides.
func (q *Queue) askLedger(ctx context.Context, l Letter, force bool) Result {
	would, err := q.deps.Ledger.CheckReplay(ctx, q.wish(l, false))
	r := result(l, would, err, WouldReplay, WouldAcknowledge)
	if r.Outcome != Refused || !force {
		return r
	}
	would, err = q.deps.Ledger.CheckReplay(ctx, q.wish(l, true))
	r = result(l, would, err, WouldReplay, WouldAcknowledge)
	r.Forced = r.Outcome == WouldReplay
	return r
}

func notARequest(l Letter) string {
	if l.Kind == Rejected {
		return "it was no request when it came, and would be none again; mend its sender and have it sent anew, then drop the letter"
	}
	return "it holds no request of this system; find out who published it, then drop the letter"
}

func (q *Queue) wish(l Letter, force bool) ledger.Replay {
	return ledger.Replay{
		Request: l.request, EntryID: l.Envelope.EntryID, Lane: l.Envelope.Lane,
		Write: q.deps.IsWrite(l.request.Action), Force: force,
	}
}

// result says what the ledger's answer means for a letter: fresh, where the
// request goes back on the stream, or again, where it was there before.
func result(l Letter, answer ledger.Replayed, err error, fresh, again Outcome) Result {
	r := Result{Letter: l.bare(), Outcome: fresh, EntryID: answer.EntryID}
	var refused *ledger.RefusedError
	switch {
	case errors.As(err, &refused):
		r.Outcome, r.Refusal, r.Why = Refused, refused.Reason, refused.Reason.Explain()
	case err != nil:
		r.Outcome, r.Why = Undone, err.Error()
	case answer.Already:
		r.Outcome = again
	}
	return r
}

func undone(letters []Letter) []Result {
	results := make([]Result, 0, len(letters))
	for _, l := range letters {
		results = append(results, Result{Letter: l.bare(), Outcome: Undone})
	}
	return results
}

func unique(ids []string) []string { return slices.Compact(slices.Sorted(slices.Values(ids))) }

// addMissing adds the IDs that were asked for and of which no letter came.
func (r *Report) addMissing(f Filter, letters []Letter) {
	for _, id := range f.IDs {
		if !slices.ContainsFunc(letters, func(l Letter) bool { return l.ID == id }) {
			r.Results = append(r.Results, Result{
				Letter: Letter{ID: id}, Outcome: Missing, Why: notFound(id, r.More).Error(),
			})
		}
	}
}

// Drop gives letters up for good: each is put on record and then acknowledged, some
// at a time; where that fails the rest is left where it was.
// Nobody is told; whoever sent the request has had their answer. The report comes
// beside an error as well.
func (q *Queue) Drop(ctx context.Context, ids []string) (report Report, err error) {
	if len(ids) == 0 {
		return report, errors.New("no letter is named that should be dropped")
	}
	h := q.hold(ctx)
	defer h.release(ctx, &err)
	f := Filter{IDs: unique(ids)}
	letters, more, err := q.collect(ctx, h, f)
	report.More = more
	if err != nil {
		return report, err
	}
	var failed error
	for chunk := range slices.Chunk(letters, batch) {
		results := undone(chunk)
		if failed == nil {
			results, failed = q.dropBatch(ctx, h, chunk)
		}
		report.Results = append(report.Results, results...)
	}
	report.addMissing(f, letters)
	return report, failed
}

// dropBatch drops letters, as many as one call acknowledges. Where that fails, they
// may have been acknowledged all the same.
func (q *Queue) dropBatch(ctx context.Context, h *hold, letters []Letter) ([]Result, error) {
	var records []tebra.AuditRecord
	var ids []string
	for _, l := range letters {
		records = append(records, q.record(tebra.DeadLetterDropped, l, tebra.Allowed))
		ids = append(ids, l.ID)
	}
	results := undone(letters)
	if err := q.deps.Auditor.Audit(ctx, records...); err != nil {
		return results, fmt.Errorf("nothing is dropped that can't be put on record: %w", err)
	}
	outcome, why, err := Dropped, "", h.acknowledge(ctx, ids)
	if err != nil {
		outcome, why = Unsure, "it may be gone, or come again within "+lease.String()+"; list the dead letters again then"
	}
	for i := range results {
		results[i].Outcome, results[i].Why = outcome, why
	}
	return results, err
}
