package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// event is one entry of one of the streams.
type event struct {
	stream int // ofStatus or ofResponses
	id     tebra.EntryID
	fields map[string]any

	data []byte // what goes over the wire but for its id; made once for all who get it
}

func (e *event) user() string { return text(e.fields["userId"]) }

func text(value any) string { s, _ := value.(string); return s }

// bareFields are those that tell of a request without what it holds.
var bareFields = []string{
	"id", "requestId", "correlationId", "userId", "action", "status", "errorCode", "attempt", "attempts", "timestamp", "duration",
}

// render makes the event's data in the form that the existing proxy sends (FACTS,
// What consumers of the streams expect), and keeps nothing else of it.
func (e *event) render(key string, bare bool) {
	fields := make(map[string]string, len(e.fields))
	for name, value := range e.fields {
		if !bare || slices.Contains(bareFields, name) {
			fields[name] = text(value)
		}
	}
	e.fields = nil
	timestamp := fields["timestamp"]
	if timestamp == "" {
		timestamp = tebra.FormatTime(time.UnixMilli(int64(e.id.Millis & (1<<53 - 1))))
	}
	var b bytes.Buffer
	b.WriteString("data: ")
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(struct { // strings only: it can't fail
		Type      string            `json:"type"`
		ID        string            `json:"id"`
		Timestamp string            `json:"timestamp"`
		Stream    string            `json:"stream"`
		Data      map[string]string `json:"data"`
	}{"update", e.id.String(), timestamp, key, fields})
	b.WriteByte('\n')
	e.data = b.Bytes()
}

// Bounds of what the hub holds.
const (
	// queueLength and queueBytes bound what waits for one client, also while it reads
	// what it missed.
	queueLength = 512
	queueBytes  = 8 << 20
	// heldBytes bounds what waits for all clients of an instance, what is just being
	// written and what they missed included.
	heldBytes = 64 << 20
	// mostRead and readBytes bound a read, per stream: of entries so that a queue
	// holds all that one read may have for a user, and of bytes, which the last
	// entry may go beyond.
	mostRead  = 100
	readBytes = 2 << 20
	// readBlock is how long one read waits for something new, and so how long
	// stopping may take.
	readBlock = time.Second
	// longestPause is how long the reader waits at most for a Redis that is away.
	longestPause = 2 * time.Second
)

// hub reads both streams once for all the clients of this instance.
type hub struct {
	rdb    redis.UniversalClient
	keys   [streams]string
	log    *slog.Logger
	budget int // bytes held for all clients
	most   int // streams in all
	mostBy int // streams of a user
	bare   bool
	ready  chan struct{}

	mu      sync.Mutex
	alive   bool
	stopped bool
	at      position // of the reader; all up to it is in the queues
	clients map[string][]*client
	count   int
	held    int // bytes, of all clients
}

func newHub(rdb redis.UniversalClient, keys tebra.Keys, most, mostBy int, bare bool, log *slog.Logger) *hub {
	return &hub{
		rdb: rdb, keys: [streams]string{keys.Status(), keys.Responses()}, log: log,
		budget: heldBytes, most: most, mostBy: mostBy, bare: bare, ready: make(chan struct{}), clients: map[string][]*client{},
	}
}

// client is one event stream. The hub writes its queue, one goroutine reads it.
type client struct {
	user   string
	events chan *event
	gone   chan struct{} // closed when the hub lets the client go
	bytes  int           // in the queue; guarded by the hub's mutex
	held   int           // besides, what is being written; guarded likewise
}

// Why a client may not join.
var (
	errFull     = errors.New("this instance serves as many event streams as it may")
	errUserFull = errors.New("this user has as many event streams open as one may")
	errStopping = errors.New("this instance stops")
)

// join adds a client. Everything after the returned position will be in its queue.
func (h *hub) join(user string) (*client, position, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.stopped:
		return nil, position{}, errStopping
	case h.count >= h.most:
		return nil, position{}, errFull
	case len(h.clients[user]) >= h.mostBy:
		return nil, position{}, errUserFull
	}
	c := &client{user: user, events: make(chan *event, queueLength), gone: make(chan struct{})}
	h.clients[user] = append(h.clients[user], c)
	h.count++
	return c, h.at, nil
}

// leave removes a client, if the hub has not let it go before. Its goroutine calls
// it when it holds nothing any more.
func (h *hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(c)
	h.release(c, c.held)
}

// remove lets a client go, and its queue at once: its goroutine may be stuck in a
// write for a while.
func (h *hub) remove(c *client) {
	all := h.clients[c.user]
	i := slices.Index(all, c)
	if i < 0 {
		return
	}
	if all = slices.Delete(all, i, i+1); len(all) > 0 {
		h.clients[c.user] = all
	} else {
		delete(h.clients, c.user)
	}
	h.count--
	close(c.gone)
	for {
		select {
		case e := <-c.events:
			c.bytes -= len(e.data)
			h.release(c, len(e.data))
		default:
			return
		}
	}
}

// hold counts n bytes that are kept for a client. Where that is too much for all
// together, it lets those go who have the most waiting; false if that is c.
func (h *hub) hold(c *client, n int) bool {
	for h.held > 0 && h.held+n > h.budget {
		worst := c
		for _, all := range h.clients {
			for _, other := range all {
				if other != c && other.held > max(worst.held, c.held+n) {
					worst = other
				}
			}
		}
		if worst == c {
			return false
		}
		h.remove(worst)
	}
	c.held += n
	h.held += n
	return true
}

// keep is hold for who does not have the mutex. A client that the hub has let go
// keeps nothing.
func (h *hub) keep(c *client, n int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !c.letGo() && h.hold(c, n)
}

func (h *hub) release(c *client, n int) {
	c.held -= n
	h.held -= n
}

// wrote notes that n bytes are no longer kept for a client.
func (h *hub) wrote(c *client, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release(c, n)
}

// letGo reports whether the hub has ended the client's stream.
func (c *client) letGo() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// took notes that the client's goroutine took an event out of its queue.
func (h *hub) took(c *client, e *event) {
	h.mu.Lock()
	c.bytes -= len(e.data)
	h.mu.Unlock()
}

// seen returns the reader's position if the client has taken all there is for it.
// One that the hub has let go was not given all.
func (h *hub) seen(c *client) (position, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at, len(c.events) == 0 && !c.letGo()
}

func (h *hub) running() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.alive
}

// run reads until ctx ends, then lets all clients go.
func (h *hub) run(ctx context.Context) {
	h.mu.Lock()
	h.alive = true
	h.mu.Unlock()
	defer h.stop()
	if !h.persist(ctx, h.begin) {
		return
	}
	close(h.ready)
	for h.persist(ctx, h.read) {
	}
}

// persist does something until it works, and returns false when ctx has ended.
func (h *hub) persist(ctx context.Context, do func(context.Context) error) bool {
	pause := 50 * time.Millisecond
	for ctx.Err() == nil {
		err := do(ctx)
		if err == nil {
			return true
		}
		if pause == 50*time.Millisecond && ctx.Err() == nil { // once per outage
			h.log.Warn("the streams can't be read; event streams wait", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
	return false
}

func (h *hub) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.alive, h.stopped = false, true
	for _, all := range h.clients {
		for _, c := range all {
			close(c.gone)
		}
	}
	h.clients, h.count = map[string][]*client{}, 0
}

// begin puts the reader where the streams are now.
func (h *hub) begin(ctx context.Context) error {
	at, err := ends(ctx, h.rdb, h.keys)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.at = at
	h.mu.Unlock()
	return nil
}

// ends returns the last position of the streams.
func ends(ctx context.Context, rdb redis.UniversalClient, keys [streams]string) (position, error) {
	var at position
	for i, key := range keys {
		info, err := rdb.XInfoStream(ctx, key).Result()
		if missing(err) {
			continue
		}
		if err != nil {
			return at, err
		}
		if at[i], err = tebra.ParseEntryID(info.LastGeneratedID); err != nil {
			return at, err
		}
	}
	return at, nil
}

// missing reports whether Redis said that there is no such stream.
func missing(err error) bool {
	return errors.Is(err, redis.Nil) || err != nil && strings.Contains(err.Error(), "no such key")
}

// read waits until there is something new, and hands out all there is. The waiting
// read takes one entry of a stream at most, and what is behind it comes in pages: no
// XREAD can be bounded in bytes, and answers may be large all of a sudden.
func (h *hub) read(ctx context.Context) error {
	at := h.position()
	found, err := h.rdb.XRead(ctx, &redis.XReadArgs{
		Streams: []string{h.keys[ofStatus], h.keys[ofResponses], at[ofStatus].String(), at[ofResponses].String()},
		Count:   1, Block: readBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		return err
	}
	var first []*event
	for _, s := range found {
		first = append(first, eventsOf(slices.Index(h.keys[:], s.Stream), s.Messages)...)
	}
	slices.SortFunc(first, inOrder)
	h.deliver(first[:min(1, len(first))]) // of the other stream there may be more before its entry
	for ctx.Err() == nil {
		events, err := h.behind(ctx)
		if err != nil || len(events) == 0 {
			return err
		}
		h.deliver(events)
	}
	return nil
}

// behind returns the next events that are there already, in the order in which they
// were written, as far as their IDs tell: of two in one millisecond the status comes
// first. The responses are read first, so that whatever was written with an answer or
// before it is there when the statuses are read. Only where there are more than one
// read takes, an answer may come before a status that was written earlier.
func (h *hub) behind(ctx context.Context) ([]*event, error) {
	var events []*event
	at := h.position()
	for _, i := range [streams]int{ofResponses, ofStatus} {
		pageCtx, cancel := context.WithTimeout(ctx, pageTimeout)
		found, err := page(pageCtx, h.rdb, h.keys[i], at[i], mostID, mostRead, readBytes)
		cancel()
		if err != nil {
			return nil, err
		}
		events = append(events, eventsOf(i, found)...)
	}
	slices.SortFunc(events, inOrder)
	return events, nil
}

func (h *hub) position() position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func eventsOf(stream int, entries []redis.XMessage) []*event {
	events := make([]*event, 0, len(entries))
	for _, entry := range entries {
		id, err := tebra.ParseEntryID(entry.ID)
		if stream < 0 || err != nil {
			continue // Redis sends none such
		}
		events = append(events, &event{stream: stream, id: id, fields: entry.Values})
	}
	return events
}

func inOrder(a, b *event) int {
	return cmp.Or(cmp.Compare(a.id.Millis, b.id.Millis), cmp.Compare(a.stream, b.stream), cmp.Compare(a.id.Seq, b.id.Seq))
}

// deliver puts events into the queues of their users' clients. One that is full
// lets its client go: it comes back and reads from Redis what it missed.
func (h *hub) deliver(events []*event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		h.at[e.stream] = e.id
		all := h.clients[e.user()]
		if len(all) == 0 {
			continue
		}
		e.render(h.keys[e.stream], h.bare)
		for _, c := range slices.Clone(all) {
			if !c.letGo() && !h.offer(c, e) {
				h.remove(c)
			}
		}
	}
}

// offer queues an event unless the queue is full, or all together are. An event that
// is larger than the queue's whole bound passes through an empty queue.
func (h *hub) offer(c *client, e *event) bool {
	if len(c.events) == cap(c.events) || c.bytes > 0 && c.bytes+len(e.data) > queueBytes || !h.hold(c, len(e.data)) {
		return false
	}
	c.bytes += len(e.data)
	c.events <- e // there is room: nobody else writes
	return true
}
