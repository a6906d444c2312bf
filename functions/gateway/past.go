package gateway

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// Bounds of reading what a client missed.
const (
	// mostReaders is how many clients read the past at a time; others wait.
	mostReaders = 8
	// pageStatus and pageResponses are entries read at a time. Answers hold data.
	pageStatus, pageResponses = 200, 25
	pageTimeout               = 5 * time.Second
)

// past reads what clients missed.
type past struct {
	rdb  redis.UniversalClient
	keys [streams]string
	turn chan struct{}
}

func newPast(rdb redis.UniversalClient, keys tebra.Keys) *past {
	return &past{rdb: rdb, keys: [streams]string{keys.Status(), keys.Responses()}, turn: make(chan struct{}, mostReaders)}
}

// lost reports whether entries after from may be gone from a stream, and returns
// from where to go on. It errs on the side of saying so: a client whose last entry
// was itself trimmed can't be told whether more was.
func (p *past) lost(ctx context.Context, from position) (position, bool, error) {
	any := false
	for i, key := range p.keys {
		start, lost, err := p.lostOf(ctx, key, from[i])
		if err != nil {
			return from, false, err
		}
		from[i], any = start, any || lost
	}
	return from, any, nil
}

func (p *past) lostOf(ctx context.Context, key string, from tebra.EntryID) (tebra.EntryID, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	none := tebra.EntryID{}
	info, err := p.rdb.XInfoStream(ctx, key).Result()
	if missing(err) { // never written, or all of it is gone
		return none, from != none, nil
	}
	if err != nil {
		return from, false, err
	}
	last, err := tebra.ParseEntryID(info.LastGeneratedID)
	if err != nil || from.Compare(last) > 0 { // another life of Redis: all there is is new
		return none, true, err
	}
	if from == last {
		return from, false, nil
	}
	if info.Length == 0 {
		return from, true, nil
	}
	first, err := tebra.ParseEntryID(info.FirstEntry.ID)
	return from, err == nil && from.Compare(first) < 0 && !wholeStream(info, from), err
}

// wholeStream reports whether nothing was ever taken from the stream that would
// have come after from. Redis before 7.0 does not say.
func wholeStream(info *redis.XInfoStream, from tebra.EntryID) bool {
	deleted, err := tebra.ParseEntryID(info.MaxDeletedEntryID)
	if err == nil && (deleted != tebra.EntryID{} || info.EntriesAdded > 0) {
		if info.EntriesAdded == info.Length {
			return true
		}
		return deleted != tebra.EntryID{} && deleted.Compare(from) <= 0
	}
	return false
}

// read gives the user's events after from, up to and with to, to emit, in order
// and a page at a time. An error of emit ends it.
func (p *past) read(ctx context.Context, user string, from, to position, emit func(*event) error) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var both [streams]*pages
	for i, count := range [streams]int64{pageStatus, pageResponses} {
		both[i] = &pages{rdb: p.rdb, key: p.keys[i], stream: i, count: count, from: from[i], to: to[i]}
	}
	for {
		next, err := earliest(ctx, both)
		if next == nil || err != nil {
			return err
		}
		if next.user() != user {
			continue
		}
		next.render(p.keys[next.stream])
		if err := emit(next); err != nil {
			return err
		}
	}
}

// earliest takes the earliest event out of the pages, nil when there is none left.
func earliest(ctx context.Context, both [streams]*pages) (*event, error) {
	var first *pages
	for _, p := range both {
		if err := p.fill(ctx); err != nil {
			return nil, err
		}
		if len(p.events) > 0 && (first == nil || inOrder(p.events[0], first.events[0]) < 0) {
			first = p
		}
	}
	if first == nil {
		return nil, nil
	}
	e := first.events[0]
	first.events = first.events[1:]
	return e, nil
}

// pages reads a stream a page at a time.
type pages struct {
	rdb      redis.UniversalClient
	key      string
	stream   int
	count    int64
	from, to tebra.EntryID // after from, up to and with to
	events   []*event
	over     bool
}

// fill reads the next page when the last one is used up.
func (p *pages) fill(ctx context.Context) error {
	if len(p.events) > 0 || p.over {
		return nil
	}
	if p.over = p.from.Compare(p.to) >= 0; p.over {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	found, err := p.rdb.XRangeN(ctx, p.key, "("+p.from.String(), p.to.String(), p.count).Result()
	if err != nil {
		return err
	}
	p.over = int64(len(found)) < p.count
	for _, m := range found {
		id, err := tebra.ParseEntryID(m.ID)
		if err != nil {
			return err
		}
		p.events = append(p.events, &event{stream: p.stream, id: id, fields: m.Values})
		p.from = id
	}
	return nil
}
