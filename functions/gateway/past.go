package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// Bounds of reading what a client missed.
const (
	// mostReaders is how many read of the past at a time, a page or how far it goes;
	// others wait.
	mostReaders = 4
	// mostPage and pageBytes bound a page; its last entry may go beyond the bytes.
	mostPage    = 200
	pageBytes   = 1 << 20
	pageTimeout = 5 * time.Second
	// longestReplay is how long a client may take for what it missed before it must
	// come again.
	longestReplay = 2 * time.Minute
)

// past reads what clients missed.
type past struct {
	rdb  redis.UniversalClient
	keys [streams]string
	hub  *hub          // counts what is kept for clients
	turn chan struct{} // to read
}

func newPast(rdb redis.UniversalClient, keys tebra.Keys, hub *hub) *past {
	return &past{rdb: rdb, keys: [streams]string{keys.Status(), keys.Responses()}, hub: hub, turn: make(chan struct{}, mostReaders)}
}

// lost reports whether entries after from may be gone from a stream, and returns
// from where to go on. It errs on the side of saying so: a client whose last entry
// was itself trimmed can't be told whether more was. It takes a turn, since Redis
// tells with it of whole entries, which may be large, and after an outage everybody
// asks at once.
func (p *past) lost(ctx context.Context, from position) (position, bool, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return from, false, ctx.Err()
	}
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
	oldest, err := p.rdb.XRangeN(ctx, key, "-", "+", 1).Result() // what XINFO says of it, the embedded Redis does not
	if err != nil || len(oldest) == 0 {
		return from, true, err
	}
	first, err := tebra.ParseEntryID(oldest[0].ID)
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

// read gives the client's events after from, up to and with to, to emit, in order and
// a page at a time. Between pages it tells reached up to where all was emitted. An
// error of either ends it, and errLetGo does when the hub lets the client go. Only
// while a page is read does it have a turn: a client that is slow to take what it
// missed holds up nobody.
func (p *past) read(ctx context.Context, c *client, from, to position, emit func(*event) error, reached func(position) error) error {
	var both [streams]*pages
	for i := range both {
		both[i] = &pages{past: p, client: c, stream: i, from: from[i], to: to[i]}
	}
	for {
		var at position
		for i, pages := range both {
			if err := pages.fill(ctx); err != nil {
				return err
			}
			if len(pages.events) == 0 {
				at[i] = pages.from
			}
		}
		if err := reached(at); err != nil {
			return err
		}
		if both[ofStatus].over() && both[ofResponses].over() {
			return nil
		}
		if err := emitEarliest(ctx, both, emit); err != nil {
			return err
		}
	}
}

// emitEarliest emits what the pages hold, in order, until one of them must be filled.
func emitEarliest(ctx context.Context, both [streams]*pages, emit func(*event) error) error {
	for {
		var first *pages
		for _, p := range both {
			if len(p.events) == 0 && !p.over() {
				return nil
			}
			if len(p.events) > 0 && (first == nil || inOrder(p.events[0], first.events[0]) < 0) {
				first = p
			}
		}
		if first == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if first.client.letGo() {
			return errLetGo
		}
		if err := first.emit(emit); err != nil {
			return err
		}
	}
}

// errUnread says that Redis did not give what a client missed.
var errUnread = errors.New("reading what a client missed")

// pages reads one client's events of a stream, a page at a time.
type pages struct {
	past     *past
	client   *client
	stream   int
	from, to tebra.EntryID // after from, up to and with to
	events   []*event
}

// over reports whether there is nothing left, neither read nor to be read.
func (p *pages) over() bool { return len(p.events) == 0 && p.from.Compare(p.to) >= 0 }

// emit takes the first event out of the page and emits it.
func (p *pages) emit(emit func(*event) error) error {
	e := p.events[0]
	p.events[0], p.events = nil, p.events[1:]
	err := emit(e)
	p.past.hub.wrote(p.client, len(e.data))
	return err
}

// fill reads the next page when the last one is used up. It waits for its turn, and
// keeps the client's own events only.
func (p *pages) fill(ctx context.Context) error {
	if len(p.events) > 0 || p.over() {
		return nil
	}
	select {
	case p.past.turn <- struct{}{}:
		defer func() { <-p.past.turn }()
	case <-p.client.gone:
		return errLetGo
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	key := p.past.keys[p.stream]
	found, err := page(ctx, p.past.rdb, key, p.from, p.to, mostPage, pageBytes)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnread, err)
	}
	for _, e := range eventsOf(p.stream, found) {
		p.from = e.id
		if e.user() != p.client.user {
			continue
		}
		e.render(key, p.past.hub.bare)
		if !p.past.hub.keep(p.client, len(e.data)) {
			return errLetGo
		}
		p.events = append(p.events, e)
	}
	if len(found) == 0 {
		p.from = p.to
	}
	return nil
}
