package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// Stream is the requests stream of one installation.
type Stream struct {
	rdb  Client
	keys tebra.Keys
}

// Client is what every client of go-redis is; its interface leaves out the
// method that hands out replies unparsed.
type Client interface {
	redis.UniversalClient
	DoRaw(ctx context.Context, args ...any) *redis.RawCmd
}

// New returns the requests stream under keys. It does not talk to Redis.
func New(rdb Client, keys tebra.Keys) *Stream {
	return &Stream{rdb: rdb, keys: keys}
}

// EnsureGroups makes the stream and its two groups where they are missing, from
// the very first entry, so that what came before is served. It reports whether
// it made group bridge. It takes a round trip per group.
func (s *Stream) EnsureGroups(ctx context.Context) (made bool, err error) {
	for _, group := range [...]string{tebra.GroupParked, tebra.GroupBridge} {
		err := s.rdb.XGroupCreateMkStream(ctx, s.keys.Requests(), group, "0").Err()
		switch {
		case err == nil:
			made = group == tebra.GroupBridge
		case !strings.HasPrefix(err.Error(), "BUSYGROUP"):
			return false, fmt.Errorf("creating consumer group %s on %s: %w", group, s.keys.Requests(), err)
		}
	}
	return made, nil
}

// NoGroup reports whether err says that a group or the stream is not there: the
// data was flushed, or a failover lost it. [Stream.EnsureGroups] mends it.
func NoGroup(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && strings.HasPrefix(reply.Error(), "NOGROUP")
}

// LastID returns the ID of the entry that was added last, "0-0" if there is none.
func (s *Stream) LastID(ctx context.Context) (tebra.EntryID, error) {
	info, err := s.rdb.XInfoStream(ctx, s.keys.Requests()).Result()
	if err != nil {
		if strings.Contains(err.Error(), "no such key") {
			return tebra.EntryID{}, nil
		}
		return tebra.EntryID{}, fmt.Errorf("reading the last ID of %s: %w", s.keys.Requests(), err)
	}
	last := info.LastGeneratedID
	if last == "" { // miniredis doesn't tell
		last = info.LastEntry.ID
	}
	if last == "" {
		return tebra.EntryID{}, nil
	}
	return tebra.ParseEntryID(last)
}

// Read gives up to count entries that nobody has had yet to consumer, waiting up
// to block for the first. No entries and no error means that none came. block
// must be shorter than the client's read timeout, and is rounded to
// milliseconds.
func (s *Stream) Read(ctx context.Context, consumer string, count int, block time.Duration) ([]Entry, error) {
	cmd := s.rdb.DoRaw(ctx, "XREADGROUP", "GROUP", tebra.GroupBridge, consumer,
		"COUNT", count, "BLOCK", max(block.Milliseconds(), 1), "STREAMS", s.keys.Requests(), ">")
	return s.read(cmd)
}

// Own returns up to count entries with IDs above after that are in consumer's
// hand already. Deleted ones have no fields.
func (s *Stream) Own(ctx context.Context, consumer, after string, count int) ([]Entry, error) {
	cmd := s.rdb.DoRaw(ctx, "XREADGROUP", "GROUP", tebra.GroupBridge, consumer,
		"COUNT", count, "STREAMS", s.keys.Requests(), after)
	return s.read(cmd)
}

func (s *Stream) read(cmd *redis.RawCmd) ([]Entry, error) {
	raw, err := cmd.Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err == nil {
		var entries []Entry
		if entries, err = parseRead(raw); err == nil {
			return entries, nil
		}
	}
	return nil, fmt.Errorf("reading %s: %w", s.keys.Requests(), err)
}

// Get returns one entry of the stream, without fields when it is not there.
func (s *Stream) Get(ctx context.Context, id string) (Entry, error) {
	raw, err := s.rdb.DoRaw(ctx, "XRANGE", s.keys.Requests(), id, id).Result()
	if err == nil {
		r := reply{text: string(raw)}
		var entries []Entry
		if entries, err = r.entries(); err == nil && len(entries) == 1 {
			return entries[0], nil
		}
	}
	if err != nil {
		return Entry{}, fmt.Errorf("reading entry %s of %s: %w", id, s.keys.Requests(), err)
	}
	return Entry{ID: id}, nil
}

// AutoClaim takes over up to count entries that were in any consumer's hand
// without a sign of life for at least idle, beginning at cursor ("0-0" at
// first), and returns where to go on ("0-0" when it is through). gone are IDs
// that were trimmed while pending: they stay pending for whom they were, and
// are returned again, until [Stream.Discard] takes them out.
func (s *Stream) AutoClaim(ctx context.Context, consumer string, idle time.Duration, cursor string, count int) (entries []Entry, gone []string, next string, err error) {
	raw, err := s.evalRaw(ctx, autoClaim, []string{s.keys.Requests()},
		tebra.GroupBridge, consumer, idle.Milliseconds(), cursor, count)
	if err == nil {
		entries, gone, next, err = parseAutoClaim(raw)
	}
	if err != nil {
		return nil, nil, "", fmt.Errorf("claiming idle entries of %s: %w", s.keys.Requests(), err)
	}
	return entries, gone, next, nil
}

// parseAutoClaim reads the reply to the script of that name. The next to look at
// is the one after the last: not every server understands an ID that is to be
// left out.
func parseAutoClaim(raw []byte) (entries []Entry, gone []string, next string, err error) {
	r := reply{text: string(raw)}
	n, err := r.array()
	if err != nil {
		return nil, nil, "", err
	}
	if n != 3 {
		return nil, nil, "", fmt.Errorf("%w: not a last ID, entries and IDs", errReply)
	}
	last, err := r.str()
	if err != nil {
		return nil, nil, "", err
	}
	if entries, err = r.entries(); err != nil {
		return nil, nil, "", err
	}
	if gone, err = r.strs(nil); err != nil {
		return nil, nil, "", err
	}
	if last == "" {
		return entries, gone, "0-0", nil
	}
	id, err := tebra.ParseEntryID(last)
	if err != nil {
		return nil, nil, "", err
	}
	if id.Seq++; id.Seq == 0 { // the next millisecond begins
		id.Millis++
	}
	return entries, gone, id.String(), nil
}

// Pending returns the IDs of up to count entries, from the given one on, that are
// in consumer's hand, be they still in the stream or not.
func (s *Stream) Pending(ctx context.Context, consumer, from string, count int) ([]string, error) {
	list, err := s.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: s.keys.Requests(), Group: tebra.GroupBridge, Start: from, End: "+", Count: int64(count), Consumer: consumer,
	}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("listing what is pending for %s: %w", consumer, err)
	}
	ids := make([]string, len(list))
	for i, p := range list {
		ids[i] = p.ID
	}
	return ids, nil
}

// Ack takes entries out of the bridges' hands for good. It may be repeated.
func (s *Stream) Ack(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	args := append(make([]any, 0, 3+len(ids)), "XACK", s.keys.Requests(), tebra.GroupBridge)
	for i := range ids {
		args = append(args, &ids[i]) // a pointer spares a copy
	}
	if err := s.rdb.Do(ctx, args...).Err(); err != nil {
		return fmt.Errorf("acknowledging %d entries of %s: %w", len(ids), s.keys.Requests(), err)
	}
	return nil
}

// GiveBack marks entries in consumer's hand as idle for so long that any bridge
// claims them at its next look.
func (s *Stream) GiveBack(ctx context.Context, consumer string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	args := []any{tebra.GroupBridge, consumer, (24 * time.Hour).Milliseconds()}
	for _, id := range ids {
		args = append(args, id)
	}
	if err := giveBack.Run(ctx, s.rdb, []string{s.keys.Requests()}, args...).Err(); err != nil {
		return fmt.Errorf("giving back %d entries of %s: %w", len(ids), s.keys.Requests(), err)
	}
	return nil
}

// Consumer is a member of group bridge, or in group parked a lane.
type Consumer struct {
	Name    string
	Pending int64
	Idle    time.Duration // since it last asked for anything
}

// Consumers returns the consumers of a group.
func (s *Stream) Consumers(ctx context.Context, group string) ([]Consumer, error) {
	infos, err := s.rdb.XInfoConsumers(ctx, s.keys.Requests(), group).Result()
	if err != nil {
		return nil, fmt.Errorf("listing the consumers of group %s on %s: %w", group, s.keys.Requests(), err)
	}
	consumers := make([]Consumer, 0, len(infos))
	for _, c := range infos {
		consumers = append(consumers, Consumer{Name: c.Name, Pending: c.Pending, Idle: c.Idle})
	}
	return consumers, nil
}

// Waiting says how much of the requests stream is not done with.
type Waiting struct {
	Unread bool   // something was never given to a bridge
	Oldest string // the first of it, "" if nothing is unread
	Lag    int64  // how much, where Redis can tell, else -1
	InHand int64  // pending in group bridge
	Parked int64  // pending in group parked
}

// Idle reports whether nothing waits.
func (w Waiting) Idle() bool { return !w.Unread && w.InHand == 0 && w.Parked == 0 }

// Waiting asks Redis how much waits, in two round trips.
func (s *Stream) Waiting(ctx context.Context) (Waiting, error) {
	last, err := s.LastID(ctx)
	if err != nil {
		return Waiting{}, err
	}
	groups, err := s.rdb.XInfoGroups(ctx, s.keys.Requests()).Result()
	if err != nil {
		return Waiting{}, fmt.Errorf("listing the groups of %s: %w", s.keys.Requests(), err)
	}
	w := Waiting{Lag: -1, Unread: last != tebra.EntryID{}} // until the group says otherwise
	for _, g := range groups {
		switch g.Name {
		case tebra.GroupParked:
			w.Parked = g.Pending
		case tebra.GroupBridge:
			w.InHand = g.Pending
			delivered, err := tebra.ParseEntryID(g.LastDeliveredID)
			if err != nil {
				return Waiting{}, err
			}
			w.Unread = false
			if delivered.Compare(last) < 0 { // the newest may have been deleted unread
				rest, err := s.rdb.XRangeN(ctx, s.keys.Requests(), "("+g.LastDeliveredID, "+", 1).Result()
				if err != nil {
					return Waiting{}, fmt.Errorf("looking for unread entries of %s: %w", s.keys.Requests(), err)
				}
				w.Unread = len(rest) > 0
				if w.Unread {
					w.Oldest = rest[0].ID
				}
			}
			w.Lag = g.Lag
			if !w.Unread {
				w.Lag = 0
			}
		}
	}
	return w, nil
}

// Now returns the Redis server's clock.
func (s *Stream) Now(ctx context.Context) (time.Time, error) {
	t, err := s.rdb.Time(ctx).Result()
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the clock of Redis: %w", err)
	}
	return t, nil
}
