package ledger

import (
	"context"
	"fmt"

	"tebraproxy/pkg/tebra"
)

// A Replay is an operator's wish to send a dead letter's request once more.
type Replay struct {
	// Request is the dead letter's, with its IDs.
	Request tebra.Request
	// EntryID and Lane are the dead letter's, from its envelope.
	EntryID string
	Lane    string
	// Write says that the action changes something.
	Write bool
	// Force overrides [NeedsForce] and [Unsettled]. The old entry is then answered
	// by the new one, unless it was answered before.
	Force bool
}

// Replayed says which entry stands for a dead letter now.
type Replayed struct {
	EntryID string
	// Already says that an earlier replay made it: the dead letter is only to be
	// acknowledged.
	Already bool
}

// Replay puts a dead letter's request back on the requests stream, under its own
// ID and with a replayOf field, so that lane, gate and policy hold for it as for
// any other, and notes in the record that the new entry follows the old one
// (DESIGN section 10). The record stays: it grants one more run, to whichever
// entry of the request comes first.
//
// It returns a [*RefusedError] with the reason when the ledger refuses, and has
// changed nothing then.
func (l *Ledger) Replay(ctx context.Context, r Replay) (Replayed, error) {
	return l.replay(ctx, r, l.newToken(), false)
}

// CheckReplay returns what [Ledger.Replay] would, by the same rules, and changes
// nothing. A request that would be put back has no EntryID yet.
func (l *Ledger) CheckReplay(ctx context.Context, r Replay) (Replayed, error) {
	return l.replay(ctx, r, l.newToken(), true)
}

func (l *Ledger) replay(ctx context.Context, r Replay, token string, looking bool) (Replayed, error) {
	hash := tebra.LedgerHash(r.Request.UserID, r.Request.ID)
	keys := []string{
		l.keys.Ledger(hash), l.keys.Open(r.Lane), l.keys.Retrying(r.Lane), l.keys.Requests(), l.keys.Epoch(),
	}
	args := []any{
		l.clock(), l.cfg.TTL.Milliseconds(), token, r.EntryID,
		tebra.Fingerprint(r.Request.Action, r.Request.Params), boolArg(r.Write), boolArg(r.Force), token, maxReplays, boolArg(looking),
	}
	if !looking {
		args = append(args, entryFields(r)...)
	}
	reply, err := replayScript.Run(ctx, l.rdb, keys, args...).StringSlice()
	if err != nil {
		return Replayed{}, fmt.Errorf("replay entry %s: %w", r.EntryID, err)
	}
	if len(reply) != 2 {
		return Replayed{}, fmt.Errorf("replay entry %s: unexpected reply of %d parts from the script", r.EntryID, len(reply))
	}
	switch reply[0] {
	case "replayed", "would":
		return Replayed{EntryID: reply[1]}, nil
	case "already":
		return Replayed{EntryID: reply[1], Already: true}, nil
	default:
		return Replayed{}, &RefusedError{Reason: Refusal(reply[0]), EntryID: r.EntryID}
	}
}

// Bytes returns how much the names and values of the new entry have together, which
// is what a bridge bounds. It is more than that of the first entry, which named no
// replayOf, and perhaps no IDs.
func (r Replay) Bytes() int {
	n := 0
	for _, f := range entryFields(r) {
		if text, ok := f.(string); ok {
			n += len(text)
		}
	}
	return n
}

// entryFields writes the request as an entry of the requests stream (DESIGN
// section 4), names and values in turn.
func entryFields(r Replay) []any {
	req := r.Request
	fields := []any{
		"id", req.ID, "action", req.Action, "params", string(req.Params), "userId", req.UserID,
		"timestamp", req.Timestamp, "correlationId", req.CorrelationID,
	}
	if len(req.Metadata) > 0 {
		fields = append(fields, "_metadata", string(req.Metadata))
	}
	if req.Traceparent != "" {
		fields = append(fields, "traceparent", req.Traceparent)
	}
	return append(fields, "replayOf", r.EntryID)
}
