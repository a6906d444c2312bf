package tebra

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// EntryID is a Redis stream entry's ID, milliseconds and sequence.
//
// Its milliseconds are usually the Redis server's clock at the XADD, but a client
// may choose its own, and one huge choice makes all later IDs inherit it (FACTS,
// Redis): never trust them alone, see [EntryID.Arrival].
type EntryID struct{ Millis, Seq uint64 }

// ParseEntryID reads "1732332332000-0". The sequence, with its dash, may be
// missing; it is 0 then. The error quotes the beginning of s.
func ParseEntryID(s string) (EntryID, error) {
	millis, seq, found := strings.Cut(s, "-")
	if !found {
		seq = "0"
	}
	ms, err := strconv.ParseUint(millis, 10, 64)
	if err != nil {
		return EntryID{}, notAnEntryID(s)
	}
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return EntryID{}, notAnEntryID(s)
	}
	return EntryID{Millis: ms, Seq: n}, nil
}

func notAnEntryID(s string) error {
	return fmt.Errorf(`stream entry ID "%s": want MILLISECONDS-SEQUENCE`, printable(s))
}

func (id EntryID) String() string {
	return strconv.FormatUint(id.Millis, 10) + "-" + strconv.FormatUint(id.Seq, 10)
}

// Compare orders IDs as Redis does.
func (id EntryID) Compare(other EntryID) int {
	if c := cmp.Compare(id.Millis, other.Millis); c != 0 {
		return c
	}
	return cmp.Compare(id.Seq, other.Seq)
}

// Arrival is when the entry came in: the ID's time, unless that lies in the
// future of admittedAt, the Redis clock when a bridge took it (DESIGN section 6.2).
func (id EntryID) Arrival(admittedAt time.Time) time.Time {
	if id.Millis < uint64(max(admittedAt.UnixMilli(), 0)) {
		return time.UnixMilli(int64(id.Millis))
	}
	return admittedAt
}
