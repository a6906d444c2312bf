package ledger

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// batch bounds how many records one script call or pipeline touches: some
// milliseconds of the server's time.
const batch = 500

// An Admission is a write that a bridge is about to publish.
type Admission struct {
	Hash        string // [tebra.LedgerHash]
	EntryID     string
	Fingerprint string // [tebra.Fingerprint]
}

// Admit makes the records of writes and returns the epoch that their messages
// must carry. known[i] says that the record of writes[i] was there before, made
// for another entry or already claimed; it is left as it is.
//
// It returns [ErrEpochChanged] when Redis lost its data on the way.
func (l *Ledger) Admit(ctx context.Context, writes []Admission) (epoch string, known []bool, err error) {
	candidate := l.newToken()
	known = make([]bool, 0, len(writes))
	for first := true; first || len(writes) > 0; first = false {
		chunk := writes[:min(len(writes), batch)]
		writes = writes[len(chunk):]
		e, k, err := l.admit(ctx, chunk, candidate)
		if err != nil {
			return "", nil, fmt.Errorf("admit %d writes to the ledger: %w", len(chunk), err)
		}
		if !first && e != epoch {
			return "", nil, fmt.Errorf("admit writes to the ledger: %w", ErrEpochChanged)
		}
		epoch, known = e, append(known, k...)
	}
	return epoch, known, nil
}

func (l *Ledger) admit(ctx context.Context, writes []Admission, candidate string) (string, []bool, error) {
	keys := make([]string, 0, 1+len(writes))
	args := make([]any, 0, 3+2*len(writes))
	keys = append(keys, l.keys.Epoch())
	args = append(args, l.clock(), l.cfg.TTL.Milliseconds(), candidate)
	for _, w := range writes {
		keys = append(keys, l.keys.Ledger(w.Hash))
		args = append(args, w.EntryID, w.Fingerprint)
	}
	reply, err := admitScript.Run(ctx, l.rdb, keys, args...).StringSlice()
	if err != nil {
		return "", nil, err
	}
	if len(reply) != len(keys) {
		return "", nil, fmt.Errorf("unexpected reply of %d parts from the script", len(reply))
	}
	known := make([]bool, len(writes))
	for i := range known {
		known[i] = reply[i+1] == "1"
	}
	return reply[0], known, nil
}

// Epoch returns the epoch, which it sets first where there is none.
func (l *Ledger) Epoch(ctx context.Context) (string, error) {
	epoch, _, err := l.Admit(ctx, nil)
	return epoch, err
}

// Standing is how far the ledger knows an entry to be.
type Standing int

// The standings.
const (
	// NoRecord: nothing is known of the entry's request.
	NoRecord Standing = iota
	// Known: the request is on record, but this entry was not claimed.
	Known
	// Begun: this entry was claimed, so a status later than the bridge's pending
	// has been written.
	Begun
	// Returned: this entry was claimed, and given back to wait in Redis.
	Returned
	// AnsweredHere: this entry has its terminal answer.
	AnsweredHere
	// SupersededHere: this entry was replayed as another and will have no answer.
	SupersededHere
)

// A Ref names an entry and the record of its request.
type Ref struct {
	Hash    string
	EntryID string
}

// Lookup returns the standing of each entry, in one round trip per 500.
func (l *Ledger) Lookup(ctx context.Context, refs []Ref) ([]Standing, error) {
	standings := make([]Standing, 0, len(refs))
	for len(refs) > 0 {
		chunk := refs[:min(len(refs), batch)]
		refs = refs[len(chunk):]
		found, err := l.lookup(ctx, chunk)
		if err != nil {
			return nil, fmt.Errorf("look up %d entries in the ledger: %w", len(chunk), err)
		}
		standings = append(standings, found...)
	}
	return standings, nil
}

func (l *Ledger) lookup(ctx context.Context, refs []Ref) ([]Standing, error) {
	cmds := make([]*redis.SliceCmd, len(refs))
	_, err := l.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, r := range refs {
			cmds[i] = p.HMGet(ctx, l.keys.Ledger(r.Hash),
				"state", "entry", "attempts", "a:"+r.EntryID, "r:"+r.EntryID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	standings := make([]Standing, len(refs))
	for i, cmd := range cmds {
		standings[i] = standing(cmd.Val(), refs[i].EntryID)
	}
	return standings, nil
}

// standing reads what lookup asked for, nil for a field that is not there.
func standing(f []any, entry string) Standing {
	state, worked, attempts, answered, replayed := f[0], f[1], f[2], f[3], f[4]
	if answered != nil {
		return AnsweredHere
	}
	if replayed != nil {
		return SupersededHere
	}
	if state == nil {
		return NoRecord
	}
	if worked == entry && attempts != nil && attempts != "0" {
		if state == "admitted" {
			return Returned
		}
		return Begun
	}
	return Known
}
