package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge"
	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// Status is how an installation stands.
type Status struct {
	At      time.Time // by the Redis clock
	Streams []Stream  // requests, responses, status
	Waiting stream.Waiting
	Lanes   []Lane
	// Bridges are those that live, LastBridge is when any was last heard of.
	Bridges    []bridge.Heartbeat
	LastBridge time.Time
	Breaker    breaker.Snapshot
	Answers    Answers
	// DeadLetters is nil where they were not counted, since Redis knows nothing of
	// them; Uncounted says why they could not be.
	DeadLetters *DeadLetters
	Uncounted   error
}

// Stream is how long a stream is.
type Stream struct {
	Name   string
	Length int64
	Oldest time.Time // when its first entry was added, zero without one
}

// Lane is how a lane stands.
type Lane struct {
	stream.Lane
	Interval time.Duration // between two calls, 0 for a lane without a rate
	Burst    int
	// Ahead is for how long turns are given out or held back already.
	Ahead time.Duration
}

// DeadLetters says how many dead letters wait for an operator.
type DeadLetters struct {
	Waiting int
	More    bool // there are at least so many
}

// DeadLetterCounter counts the dead letters that wait, up to a bound of its own.
type DeadLetterCounter interface {
	Count(ctx context.Context) (DeadLetters, error)
}

// InFlight returns how many requests are admitted and unanswered, and when the
// oldest of them arrived, zero where none is.
func (s Status) InFlight() (n int64, oldest time.Time) {
	for _, lane := range s.Lanes {
		n += lane.Open
		if !lane.Oldest.IsZero() && (oldest.IsZero() || lane.Oldest.Before(oldest)) {
			oldest = lane.Oldest
		}
	}
	return n, oldest
}

// Status looks at everything once, with the answers of the last while; of those at
// most some 20,000 statuses are read. count may be nil; that it fails is no error of
// the whole.
func (i *Inspector) Status(ctx context.Context, last time.Duration, count DeadLetterCounter) (Status, error) {
	var s Status
	var err error
	if s.At, err = i.stream.Now(ctx); err != nil {
		return s, err
	}
	for _, look := range []func(context.Context, *Status) error{i.lookAtStreams, i.lookAtLanes, i.lookAtBridges} {
		if err := look(ctx, &s); err != nil {
			return s, err
		}
	}
	if s.Answers, err = i.answers(ctx, s.At.Add(-last)); err != nil {
		return s, err
	}
	if count == nil {
		return s, nil
	}
	waiting, err := count.Count(ctx)
	if err != nil {
		s.Uncounted = err
		return s, nil
	}
	s.DeadLetters = &waiting
	return s, nil
}

func (i *Inspector) lookAtStreams(ctx context.Context, s *Status) error {
	names := []string{i.keys.Requests(), i.keys.Responses(), i.keys.Status()}
	lengths, firsts := make([]*redis.IntCmd, len(names)), make([]*redis.XMessageSliceCmd, len(names))
	_, err := i.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for n, name := range names {
			lengths[n], firsts[n] = p.XLen(ctx, name), p.XRangeN(ctx, name, "-", "+", 1)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking at the streams: %w", err)
	}
	for n, name := range names {
		state := Stream{Name: name, Length: lengths[n].Val()}
		if first := firsts[n].Val(); len(first) > 0 {
			state.Oldest = entryTime(first[0].ID)
		}
		s.Streams = append(s.Streams, state)
	}
	if s.Streams[0].Length == 0 && i.rdb.Exists(ctx, i.keys.Requests()).Val() == 0 {
		return nil // nobody has asked anything yet, nor made the groups
	}
	s.Waiting, err = i.stream.Waiting(ctx)
	return err
}

func (i *Inspector) lookAtLanes(ctx context.Context, s *Status) error {
	lanes, err := i.stream.Lanes(ctx)
	if err != nil {
		return err
	}
	for _, l := range lanes {
		lane := Lane{Lane: l}
		rules, known := i.rules.Lane(l.Name)
		if known {
			lane.Interval, lane.Burst = rules.Interval, rules.Burst
		}
		if lane.Ahead, err = i.rate.Ahead(ctx, l.Name); err != nil {
			return err
		}
		s.Lanes = append(s.Lanes, lane)
	}
	return nil
}

func (i *Inspector) lookAtBridges(ctx context.Context, s *Status) (err error) {
	if s.Bridges, s.LastBridge, err = bridge.Heartbeats(ctx, i.rdb, i.keys); err != nil {
		return err
	}
	s.Breaker, err = i.breaker.State(ctx)
	return err
}

// Answers is how requests ended over a while.
type Answers struct {
	// Since is from when on they are counted: later than was asked for where
	// there were too many statuses to read.
	Since    time.Time
	Cut      bool // there were
	ByAction []ActionAnswers
}

// ActionAnswers is how the requests of one action ended.
type ActionAnswers struct {
	Action   string
	Success  int
	Errors   map[tebra.ErrorCode]int
	Attempts map[tebra.ErrorCode]int // that failed and were, or are, tried again
}

const (
	mostStatuses = 20_000 // that are read for [Answers]
	mostActions  = 100    // that are told apart; the rest is otherActions
	otherActions = "(others)"
)

// answers counts the last statuses of requests from since on, and of the failed
// attempts between. The newest are read first.
func (i *Inspector) answers(ctx context.Context, since time.Time) (Answers, error) {
	a := Answers{Since: since}
	byAction := map[string]*ActionAnswers{}
	read := 0
	err := scan(ctx, i.rdb.XRevRangeN, i.keys.Status(), "+", startOf(since), func(entry redis.XMessage) bool {
		if read++; read > mostStatuses {
			a.Cut = true
			return false
		}
		if u, ok := readUpdate(entry); ok {
			actionOf(byAction, u.Action).count(u)
			if read == mostStatuses {
				a.Since = u.at
			}
		}
		return true
	})
	if !a.Cut {
		a.Since = since
	}
	for _, action := range byAction {
		if action.Success+len(action.Errors)+len(action.Attempts) > 0 {
			a.ByAction = append(a.ByAction, *action)
		}
	}
	slices.SortFunc(a.ByAction, func(x, y ActionAnswers) int { return cmp.Compare(x.Action, y.Action) })
	return a, err
}

func actionOf(byAction map[string]*ActionAnswers, name string) *ActionAnswers {
	if _, ok := byAction[name]; !ok && len(byAction) >= mostActions {
		name = otherActions
	}
	if byAction[name] == nil {
		byAction[name] = &ActionAnswers{Action: name, Errors: map[tebra.ErrorCode]int{}, Attempts: map[tebra.ErrorCode]int{}}
	}
	return byAction[name]
}

func (a *ActionAnswers) count(u update) {
	switch {
	case u.State == tebra.Success:
		a.Success++
	case u.State == tebra.Failed:
		a.Errors[u.ErrorCode]++
	case u.State == tebra.Pending && u.ErrorCode != "":
		a.Attempts[u.ErrorCode]++
	}
}
