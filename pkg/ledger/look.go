package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"tebraproxy/pkg/tebra"
)

// Record is what the ledger has on a request, for people to look at. Decisions are
// made in the scripts only, on what is there then.
type Record struct {
	State    string // admitted, running, retrying or done
	EntryID  string // that it was admitted for, or last worked on
	Admitted time.Time
	// Lease is until when the run that is under way is its holder's alone, zero
	// where none is.
	Lease    time.Time
	Unknown  bool // whether a call was made is not known; it is settled as outcome_unknown
	Started  bool // a call that changes something may have been made
	Attempts int  // since its admission or last replay
	// Code is why it was given back last, or when done the outcome: "" for success.
	Code     tebra.ErrorCode
	Orphan   bool // made after Redis had lost what was before
	Answered []AnsweredEntry
	Replays  []ReplayedEntry
}

// AnsweredEntry is an entry that has its terminal answer.
type AnsweredEntry struct {
	EntryID  string
	AnswerID string // entry of the responses stream
}

// ReplayedEntry is an entry that an operator replayed as another.
type ReplayedEntry struct {
	EntryID    string
	NewEntryID string
}

// Look returns the record under a hash of [tebra.LedgerHash], and whether there is
// one. It changes nothing.
func (l *Ledger) Look(ctx context.Context, hash string) (Record, bool, error) {
	f, err := l.rdb.HGetAll(ctx, l.keys.Ledger(hash)).Result()
	if err != nil {
		return Record{}, false, fmt.Errorf("look at a record of the ledger: %w", err)
	}
	if len(f) == 0 {
		return Record{}, false, nil
	}
	return readRecord(f), true, nil
}

// readRecord reads a record's fields, which doc.go lists. The lists go by entry.
func readRecord(f map[string]string) Record {
	attempts, _ := strconv.Atoi(f["attempts"]) // "" is none
	r := Record{
		State: f["state"], EntryID: f["entry"], Admitted: readMillis(f["admitted"]), Lease: readMillis(f["lease"]),
		Unknown: f["verdict"] == "unknown", Started: f["started"] != "", Attempts: attempts,
		Code: tebra.ErrorCode(f["code"]), Orphan: f["orphan"] != "",
	}
	if r.State == "done" {
		r.Code = tebra.ErrorCode(f["outcome"])
	}
	for _, name := range slices.SortedFunc(maps.Keys(f), byEntry) {
		first, _, _ := strings.Cut(f[name], " ")
		if entry, ok := strings.CutPrefix(name, "a:"); ok {
			r.Answered = append(r.Answered, AnsweredEntry{EntryID: entry, AnswerID: first})
		}
		if entry, ok := strings.CutPrefix(name, "r:"); ok {
			r.Replays = append(r.Replays, ReplayedEntry{EntryID: entry, NewEntryID: first})
		}
	}
	return r
}

// byEntry orders fields of a record that name entries by those.
func byEntry(a, b string) int {
	return entryOf(a).Compare(entryOf(b))
}

// entryOf returns the entry that a field names, or the first of all.
func entryOf(field string) tebra.EntryID {
	_, text, _ := strings.Cut(field, ":")
	id, err := tebra.ParseEntryID(text)
	if err != nil {
		return tebra.EntryID{}
	}
	return id
}

// readMillis reads a time of the Redis clock, zero where there is none.
func readMillis(text string) time.Time {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n)
}
