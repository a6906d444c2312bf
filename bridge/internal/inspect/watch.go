package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// watchBlock is how long one read waits for entries. go-redis doesn't end a
	// blocked read when its context is cancelled.
	watchBlock = 250 * time.Millisecond
	// watchGrace is how much longer than watchBlock a read may take.
	watchGrace = 2 * time.Second
	// watchCount bounds the entries of each stream in one read. Fewer are read where
	// they are large, or where a read has failed: it may have been too much for the
	// way to Redis, and would be again.
	watchCount = 500
	// mostWatched bounds how many requests under way a watch knows; of more, the
	// oldest are seen again at their next change.
	mostWatched = 10_000
	// mostBefore bounds how many entries a watch looks back at, which are fewer where
	// they are large, and fewPage how many of them it reads at first.
	mostBefore = 2000
	fewPage    = 10
)

// Watch sees requests as they come and as their states change, from when it was
// made on. It doesn't read the responses: a request's last status says how it
// ended, without its data. When a request arrived that it sees only then is known of
// the last 2000 or so before it, and of no others.
type Watch struct {
	inspector        *Inspector
	filter           Filter
	requests, status string           // the IDs after which to read
	count            int              // of entries to read, of each stream
	underWay         map[key]*Request // not answered yet
	before           map[key]Request  // arrived before the watch, and not seen by it yet
}

// NewWatch returns a watch of what fits the filter.
func (i *Inspector) NewWatch(ctx context.Context, f Filter) (*Watch, error) {
	w := &Watch{inspector: i, filter: f, underWay: map[key]*Request{}, before: map[key]Request{}, count: firstPage}
	var err error
	if w.requests, err = i.lastID(ctx, i.keys.Requests()); err != nil {
		return nil, err
	}
	if w.status, err = i.lastID(ctx, i.keys.Status()); err != nil {
		return nil, err
	}
	return w, w.lookBack(ctx)
}

// lookBack remembers the last requests before the watch: of those whose statuses
// come later, it tells when they arrived. Of two under one ID the later one counts,
// as in [Watch.arrived].
func (w *Watch) lookBack(ctx context.Context) error {
	n, size := 0, 0
	i := w.inspector
	return scanFrom(ctx, i.rdb.XRevRangeN, i.keys.Requests(), w.requests, "-", fewPage, func(entry redis.XMessage) bool {
		r := i.readRequest(entry)
		r.Params = nil
		if _, later := w.before[r.key()]; !later && r.ErrorCode == "" && w.filter.fits(r.UserID, r.Action) {
			w.before[r.key()] = r
		}
		n, size = n+1, size+sizeOf(entry)
		return n < mostBefore && size < pageBytes
	})
}

func (i *Inspector) lastID(ctx context.Context, stream string) (string, error) {
	last, err := i.rdb.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil {
		return "", fmt.Errorf("reading the end of %s: %w", stream, err)
	}
	if len(last) == 0 {
		return "0-0", nil
	}
	return last[0].ID, nil
}

// Next waits for some 250 ms for changes and returns each request that changed, as
// it was then, once for every change and in their order. After an error it may be
// called again: it goes on where it was.
func (w *Watch) Next(ctx context.Context) ([]Request, error) {
	ctx, cancel := context.WithTimeout(ctx, watchBlock+watchGrace)
	defer cancel()
	keys := w.inspector.keys
	streams, err := w.inspector.rdb.XRead(ctx, &redis.XReadArgs{
		Streams: []string{keys.Requests(), keys.Status(), w.requests, w.status},
		Count:   int64(w.count),
		Block:   watchBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		w.count = max(1, w.count/8)
		return nil, fmt.Errorf("reading %s and %s: %w", keys.Requests(), keys.Status(), err)
	}
	var changed []Request
	most := watchCount
	for _, s := range streams {
		most = min(most, fitting(s.Messages))
		for _, entry := range s.Messages {
			var r *Request
			if s.Stream == keys.Requests() {
				w.requests = entry.ID
				r = w.arrived(entry)
			} else {
				w.status = entry.ID
				r = w.changed(entry)
			}
			if r != nil {
				changed = append(changed, *r)
			}
		}
	}
	w.count = min(most, 2*w.count)
	w.bound()
	return changed, nil
}

// UnderWay returns the requests that are not answered, the oldest first, and before
// them those of which it isn't known when they arrived.
func (w *Watch) UnderWay() []Request {
	all := make([]Request, 0, len(w.underWay))
	for _, r := range w.underWay {
		all = append(all, *r)
	}
	slices.SortFunc(all, byArrival)
	return all
}

func byArrival(a, b Request) int {
	return cmp.Or(a.Arrived.Compare(b.Arrived), cmp.Compare(a.EntryID, b.EntryID), cmp.Compare(a.RequestID, b.RequestID))
}

// arrived takes an entry of the requests stream, and returns the request if it is
// to be seen.
func (w *Watch) arrived(entry redis.XMessage) *Request {
	r := w.inspector.readRequest(entry)
	if !w.filter.fits(r.UserID, r.Action) {
		return nil
	}
	r.Params = nil
	delete(w.before, r.key())
	if known, ok := w.underWay[r.key()]; ok { // its status was read in the read before
		known.EntryID, known.Arrived, known.ReplayOf = r.EntryID, r.Arrived, r.ReplayOf
		return nil
	}
	if r.ErrorCode == "" { // else it will have no status
		w.underWay[r.key()] = &r
	}
	return &r
}

// changed takes an entry of the status stream, and returns the request if it is to
// be seen.
func (w *Watch) changed(entry redis.XMessage) *Request {
	u, ok := readUpdate(entry)
	if !ok || !w.filter.fits(u.UserID, u.Action) {
		return nil
	}
	r, ok := w.underWay[u.key()]
	if !ok {
		r = &Request{RequestID: u.RequestID, CorrelationID: u.CorrelationID, UserID: u.UserID, Action: u.Action}
		if before, ok := w.before[u.key()]; ok {
			r = &before
			delete(w.before, u.key())
		}
		w.underWay[u.key()] = r
	}
	r.follow(u)
	if u.State.Terminal() {
		delete(w.underWay, u.key())
	}
	return r
}

// bound forgets the oldest of too many.
func (w *Watch) bound() {
	if len(w.underWay) <= mostWatched {
		return
	}
	for _, r := range w.UnderWay()[:len(w.underWay)-mostWatched*9/10] {
		delete(w.underWay, r.key())
	}
}
