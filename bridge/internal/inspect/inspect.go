package inspect

import (
	"time"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/rate"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// Inspector looks at one installation. It is safe for concurrent use; a [Watch] is
// not.
type Inspector struct {
	rdb     stream.Client
	keys    tebra.Keys
	rules   *policy.Policy
	stream  *stream.Stream
	ledger  *ledger.Ledger
	breaker *breaker.Breaker
	rate    *rate.Limiter
}

// New returns an inspector of the installation under keys. rules say which lanes
// have which rates. It does not talk to Redis, nor own the client.
func New(rdb stream.Client, keys tebra.Keys, rules *policy.Policy) *Inspector {
	return &Inspector{
		rdb: rdb, keys: keys, rules: rules,
		stream: stream.New(rdb, keys), ledger: ledger.New(rdb, keys, ledger.Config{}),
		breaker: breaker.New(rdb, keys, breaker.Config{}), rate: rate.New(rdb, keys),
	}
}

// Filter says which requests are meant. What is empty leaves all in.
type Filter struct {
	UserID string
	Action string
}

func (f Filter) fits(userID, action string) bool {
	return (f.UserID == "" || f.UserID == userID) && (f.Action == "" || f.Action == action)
}

// entryTime is when an entry was added, as its ID tells.
func entryTime(id string) time.Time {
	e, err := tebra.ParseEntryID(id)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(int64(e.Millis))
}

// startOf is the first ID of a stream that an entry added at t can have, "-" for
// the zero time.
func startOf(t time.Time) string {
	if t.IsZero() || t.UnixMilli() <= 0 {
		return "-"
	}
	return tebra.EntryID{Millis: uint64(t.UnixMilli())}.String()
}
