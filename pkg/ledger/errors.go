package ledger

import (
	"errors"

	"tebraproxy/pkg/tebra"
)

// What a caller decides on. Compare with errors.Is: they come wrapped.
var (
	// ErrStale says that the claim is no longer the caller's: its lease ran out
	// and another took over, or it was given back before. Nothing was changed.
	ErrStale = errors.New("the claim is no longer held: another worker has taken the request over")
	// ErrLeaseLost is what Start returns instead: the call must not be made.
	ErrLeaseLost = errors.New("the lease is lost: do not call")
	// ErrLeaseTooShort says that the lease would end before the call can. The
	// call must not be made; Release the claim.
	ErrLeaseTooShort = errors.New("the lease ends before the call can: do not call, release the claim")
	// ErrReplicas says that the mark of a started write did not reach enough
	// replicas in time. The call must not be made; Release the claim.
	ErrReplicas = errors.New("too few Redis replicas confirmed the start: do not call, release the claim")
	// ErrEntryGone says that the entry is no longer in the requests stream, so that
	// it can't wait there. Nothing was changed: Release the claim.
	ErrEntryGone = errors.New("the entry is no longer in the requests stream: release the claim instead")
	// ErrEpochChanged says that Redis lost its data between two parts of a batch.
	// Admit the whole batch again.
	ErrEpochChanged = errors.New("the Redis data was replaced during admission: admit the batch again")
)

// A RefusedError says why a dead letter was not replayed.
type RefusedError struct {
	Reason  Refusal
	EntryID string // the dead letter's
}

func (e *RefusedError) Error() string {
	return "replay of entry " + e.EntryID + " refused: " + e.Reason.Explain()
}

// Refusal is why a dead letter was not replayed.
type Refusal string

// The reasons to refuse a replay. Force overrides the last two.
const (
	// Succeeded: the request has had its success by another entry or a replay.
	Succeeded Refusal = "succeeded"
	// Leased: somebody works on the request now.
	Leased Refusal = "leased"
	// Differs: the record under this ID is about another action or other params.
	Differs Refusal = "differs"
	// TooOften: the record lists as many replays as it can.
	TooOften Refusal = "too_often"
	// NeedsForce: a write of which nobody knows whether it was made.
	NeedsForce Refusal = "needs_force"
	// Unsettled: the entry has no terminal answer yet, or another run of its
	// request is under way.
	Unsettled Refusal = "unsettled"
)

// Explain says for people why, and what to do.
func (r Refusal) Explain() string {
	switch r {
	case Succeeded:
		return "the request succeeded since; drop the dead letter"
	case Leased:
		return "a worker holds the request now; try again in some minutes"
	case Differs:
		return "the record under this user and ID is about another action or other params; send it under a new ID"
	case TooOften:
		return "it was replayed too often already; mend the cause, then send it under a new ID"
	case NeedsForce:
		return "it changes data, and nobody knows whether the call was made; look in the practice-management system first, then force it"
	case Unsettled:
		return "its request has not come to its end yet; try again in a minute, or force it to take its place"
	default:
		return string(r)
	}
}

// checkResponse returns an error unless resp can end c: exactly one of data and
// a known error code, and nothing but outcome_unknown where that is the outcome.
func checkResponse(c *Claim, resp tebra.Response) error {
	if resp.State() == tebra.Success && len(resp.Data) == 0 {
		return errors.New("the response has neither data nor an error code")
	}
	if resp.State() == tebra.Failed && resp.ErrorCode.Meaning() == "" {
		return errors.New("the response's error code is not of the closed set")
	}
	if c.Verdict == Unknown && resp.ErrorCode != tebra.OutcomeUnknown {
		return errors.New("a claim of verdict unknown can only be answered outcome_unknown")
	}
	return nil
}
