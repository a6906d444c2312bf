package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// Lane is how much of the requests stream is a lane's, for people to look at.
type Lane struct {
	Name     string
	Open     int64     // admitted and unanswered
	Retrying int64     // of those, waiting out a Pub/Sub backoff
	Parked   int64     // waiting for room in the lane
	Oldest   time.Time // arrival of the oldest open one, zero where none is open
}

// Lanes returns every lane that was ever used, by name, in three round trips.
func (s *Stream) Lanes(ctx context.Context) ([]Lane, error) {
	names, err := s.laneNames(ctx)
	if err != nil {
		return nil, err
	}
	parked, err := s.Consumers(ctx, tebra.GroupParked)
	if err != nil && !noStream(err) {
		return nil, err
	}
	pipe := s.rdb.Pipeline()
	open, retrying := make([]*redis.IntCmd, len(names)), make([]*redis.IntCmd, len(names))
	oldest := make([]*redis.ZSliceCmd, len(names))
	for i, name := range names {
		open[i], retrying[i] = pipe.ZCard(ctx, s.keys.Open(name)), pipe.ZCard(ctx, s.keys.Retrying(name))
		oldest[i] = pipe.ZRangeWithScores(ctx, s.keys.Open(name), 0, 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("counting the open requests of all lanes: %w", err)
	}
	lanes := make([]Lane, len(names))
	for i, name := range names {
		lanes[i] = Lane{Name: name, Open: open[i].Val(), Retrying: retrying[i].Val()}
		if first := oldest[i].Val(); len(first) > 0 {
			lanes[i].Oldest = time.UnixMilli(int64(first[0].Score))
		}
		if at := slices.IndexFunc(parked, func(c Consumer) bool { return c.Name == name }); at >= 0 {
			lanes[i].Parked = parked[at].Pending
		}
	}
	return lanes, nil
}

func (s *Stream) laneNames(ctx context.Context) ([]string, error) {
	names, err := s.rdb.SMembers(ctx, s.keys.Lanes()).Result()
	if err != nil {
		return nil, fmt.Errorf("reading the lanes: %w", err)
	}
	if !slices.Contains(names, tebra.DefaultLane) {
		names = append(names, tebra.DefaultLane)
	}
	slices.Sort(names)
	return names, nil
}

// noStream reports whether err says that the requests stream or a group of it is
// not there yet.
func noStream(err error) bool {
	var reply redis.Error
	return NoGroup(err) || (errors.As(err, &reply) && strings.Contains(reply.Error(), "no such key"))
}

// Stage is where an entry of the requests stream stands.
type Stage string

// The stages, in the order of an entry's way.
const (
	Unread   Stage = "unread"   // no bridge was given it
	InHand   Stage = "in hand"  // a bridge works on it
	Parked   Stage = "parked"   // it waits for room in its lane, or for the API
	Open     Stage = "open"     // published, the functions work on it
	Retrying Stage = "retrying" // published, it waits out a backoff
	Gone     Stage = "gone"     // answered, or never there
)

// Place is where an entry stands, for people to look at.
type Place struct {
	Stage Stage
	Lane  string // of a parked, open or retrying entry
	By    string // the bridge that has it in hand
}

// Where returns where an entry stands, in four round trips.
func (s *Stream) Where(ctx context.Context, id string) (Place, error) {
	names, err := s.laneNames(ctx)
	if err != nil {
		return Place{}, err
	}
	place, err := s.published(ctx, id, names)
	if err != nil || place.Stage != Gone {
		return place, err
	}
	for _, group := range [...]string{tebra.GroupParked, tebra.GroupBridge} {
		pending, err := s.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: s.keys.Requests(), Group: group, Start: id, End: id, Count: 1}).Result()
		switch {
		case err != nil && !noStream(err):
			return Place{}, fmt.Errorf("looking for entry %s in group %s: %w", id, group, err)
		case len(pending) == 0:
		case group == tebra.GroupParked:
			return Place{Stage: Parked, Lane: pending[0].Consumer}, nil
		default:
			return Place{Stage: InHand, By: pending[0].Consumer}, nil
		}
	}
	return s.readYet(ctx, id)
}

// published looks for an entry in the lanes' sets.
func (s *Stream) published(ctx context.Context, id string, lanes []string) (Place, error) {
	pipe := s.rdb.Pipeline()
	open, retrying := make([]*redis.FloatCmd, len(lanes)), make([]*redis.FloatCmd, len(lanes))
	for i, lane := range lanes {
		open[i], retrying[i] = pipe.ZScore(ctx, s.keys.Open(lane), id), pipe.ZScore(ctx, s.keys.Retrying(lane), id)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return Place{}, fmt.Errorf("looking for entry %s in the lanes: %w", id, err)
	}
	for i, lane := range lanes {
		switch {
		case retrying[i].Err() == nil:
			return Place{Stage: Retrying, Lane: lane}, nil
		case open[i].Err() == nil:
			return Place{Stage: Open, Lane: lane}, nil
		}
	}
	return Place{Stage: Gone}, nil
}

// readYet tells what was never given to a bridge from what is done with.
func (s *Stream) readYet(ctx context.Context, text string) (Place, error) {
	id, err := tebra.ParseEntryID(text)
	if err != nil {
		return Place{}, err
	}
	groups, err := s.rdb.XInfoGroups(ctx, s.keys.Requests()).Result()
	if err != nil && !noStream(err) {
		return Place{}, fmt.Errorf("listing the groups of %s: %w", s.keys.Requests(), err)
	}
	var delivered tebra.EntryID // without a group, nothing was
	for _, g := range groups {
		if g.Name != tebra.GroupBridge {
			continue
		}
		if delivered, err = tebra.ParseEntryID(g.LastDeliveredID); err != nil {
			return Place{}, err
		}
	}
	if id.Compare(delivered) > 0 {
		return Place{Stage: Unread}, nil
	}
	return Place{Stage: Gone}, nil
}
