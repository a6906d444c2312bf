package inspect

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// HistoryQuery says which requests [Inspector.History] looks for.
type HistoryQuery struct {
	Filter
	// Since leaves out what arrived before; zero for as far as the stream goes.
	Since time.Time
	// Limit is how many requests there are at most, above 0: the newest.
	Limit int
	// Payloads asks for the params.
	Payloads bool
}

// History returns what was asked and how it ended, the oldest first, and whether
// there are more than Limit. It reads the requests stream backwards until it has
// found enough, and the status stream from there to its end.
func (i *Inspector) History(ctx context.Context, q HistoryQuery) (found []Request, more bool, err error) {
	err = scan(ctx, i.rdb.XRevRangeN, i.keys.Requests(), "+", startOf(q.Since), func(entry redis.XMessage) bool {
		r := i.readRequest(entry)
		if !q.fits(r.UserID, r.Action) {
			return true
		}
		if more = len(found) == q.Limit; more {
			return false
		}
		if !q.Payloads {
			r.Params = nil
		}
		found = append(found, r)
		return true
	})
	if err != nil || len(found) == 0 {
		return nil, false, err
	}
	slices.Reverse(found)
	return found, more, i.followAll(ctx, found)
}

// followAll brings requests, the oldest of which comes first, into the states in
// which they are now. Of two entries of one request, the earlier one is answered
// first.
func (i *Inspector) followAll(ctx context.Context, requests []Request) error {
	byKey := make(map[key][]*Request, len(requests))
	for n := range requests {
		r := &requests[n]
		byKey[r.key()] = append(byKey[r.key()], r)
	}
	return scan(ctx, i.rdb.XRangeN, i.keys.Status(), startOf(requests[0].Arrived), "+", func(entry redis.XMessage) bool {
		u, ok := readUpdate(entry)
		if !ok {
			return true
		}
		for _, r := range byKey[u.key()] {
			if !r.State.Terminal() && !r.Arrived.After(u.at) {
				r.follow(u)
				break
			}
		}
		return true
	})
}
