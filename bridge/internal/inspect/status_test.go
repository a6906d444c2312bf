package inspect

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge"
	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// counted is a number of dead letters, or why it isn't known.
type counted struct {
	n   int
	err error
}

func (c counted) Count(context.Context) (DeadLetters, error) {
	return DeadLetters{Waiting: c.n}, c.err
}

func TestStatusTellsHowEverythingStands(t *testing.T) {
	t.Parallel()
	i := setup(t)
	now, err := i.stream.Now(t.Context())
	i.must(err)
	seq := 0
	id := func(ago time.Duration) string {
		seq++
		return fmt.Sprintf("%d-%d", now.Add(-ago).UnixMilli(), seq)
	}
	i.ask(id(time.Hour), "r1", "u1", "health")
	i.ask(id(time.Minute), "r2", "u1", "health")
	i.ask(id(0), "r3", "u1", "health")
	i.say(id(time.Hour), "old", "u1", "health", tebra.Success, 1, "")
	i.say(id(time.Minute), "r1", "u1", "health", tebra.Pending, 1, tebra.Unavailable)
	i.say(id(0), "r1", "u1", "health", tebra.Failed, 2, tebra.Rejected)
	i.say(id(0), "r2", "u1", "health", tebra.Success, 1, "")
	if _, err := i.stream.Read(t.Context(), "b1", 2, time.Second); err != nil {
		t.Fatal(err)
	}
	arrived := now.Add(-time.Hour).Truncate(time.Millisecond)
	i.must(i.rdb.ZAdd(t.Context(), i.keys.Open(tebra.DefaultLane), redis.Z{Score: float64(arrived.UnixMilli()), Member: "1-0"}).Err())
	i.must(i.rate.Hold(t.Context(), "providers", time.Minute))
	i.must(i.rdb.SAdd(t.Context(), i.keys.Lanes(), "providers").Err())

	s, err := i.Status(t.Context(), 15*time.Minute, counted{n: 3})
	i.must(err)
	if s.At.Before(now) || len(s.Streams) != 3 || s.Streams[0].Length != 3 || !s.Streams[0].Oldest.Equal(arrived) || s.Streams[1].Length != 0 {
		t.Errorf("streams = %+v at %v, want 3 requests, the oldest an hour ago", s.Streams, s.At)
	}
	if s.Waiting.Oldest == "" {
		t.Error("the oldest unread entry is not named")
	}
	s.Waiting.Oldest = ""
	if want := (stream.Waiting{Unread: true, Lag: 1, InHand: 2}); s.Waiting != want && s.Waiting != (stream.Waiting{Unread: true, Lag: -1, InHand: 2}) {
		t.Errorf("waiting = %+v, want %+v", s.Waiting, want)
	}
	if n, oldest := s.InFlight(); n != 1 || !oldest.Equal(arrived) {
		t.Errorf("InFlight() = %d, %v, want 1, %v", n, oldest, arrived)
	}
	providers := s.Lanes[1]
	if providers.Name != "providers" || providers.Interval == 0 || providers.Ahead < 50*time.Second {
		t.Errorf("lane = %+v, want providers, held for a minute", providers)
	}
	want := []ActionAnswers{{
		Action: "health", Success: 1, Errors: map[tebra.ErrorCode]int{tebra.Rejected: 1}, Attempts: map[tebra.ErrorCode]int{tebra.Unavailable: 1},
	}}
	if !reflect.DeepEqual(s.Answers.ByAction, want) || s.Answers.Cut {
		t.Errorf("answers = %+v, want %+v", s.Answers, want)
	}
	if s.DeadLetters == nil || s.DeadLetters.Waiting != 3 {
		t.Errorf("dead letters = %+v, want 3", s.DeadLetters)
	}
	failed := errors.New("no such subscription")
	if s, err := i.Status(t.Context(), time.Minute, counted{err: failed}); err != nil || s.DeadLetters != nil || !errors.Is(s.Uncounted, failed) {
		t.Errorf("Status() = %+v, %v, want why the dead letters can't be counted, and no error", s, err)
	}
}

func TestStatusOfAnEmptyRedisIsNoError(t *testing.T) {
	t.Parallel()
	i := setup(t)
	i.must(i.rdb.FlushAll(t.Context()).Err())
	s, err := i.Status(t.Context(), time.Minute, nil)
	if err != nil || s.Streams[0].Length != 0 || len(s.Bridges) != 0 || s.Breaker.State != breaker.Closed || s.DeadLetters != nil {
		t.Errorf("Status() = %+v, %v, want an empty one", s, err)
	}
}

func TestAnswersAreReadUpToABound(t *testing.T) {
	t.Parallel()
	i := setup(t)
	fields := tebra.StatusUpdate{RequestID: "r", CorrelationID: "r", UserID: "u", Action: "health", State: tebra.Success, Timestamp: time.Now()}.Fields()
	for range (mostStatuses + 1000) / 1000 {
		_, err := i.rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for range 1000 {
				p.XAdd(i.ctx, &redis.XAddArgs{Stream: i.keys.Status(), Values: fields})
			}
			return nil
		})
		i.must(err)
	}
	a, err := i.answers(t.Context(), time.Now().Add(-time.Hour))
	if err != nil || !a.Cut || a.ByAction[0].Success != mostStatuses || time.Since(a.Since) > 30*time.Minute {
		t.Errorf("answers() = %+v, %v, want the newest %d and since when they are", a, err, mostStatuses)
	}
}

func TestConcernsNameWhatNeedsAPerson(t *testing.T) {
	t.Parallel()
	now := time.Now()
	well := func() Status {
		return Status{At: now, Bridges: []bridge.Heartbeat{{Consumer: "b1"}}}
	}
	for _, test := range []struct {
		name   string
		change func(*Status)
		want   string
	}{
		{"well", func(*Status) {}, ""},
		{"no bridge", func(s *Status) { s.Bridges = nil }, "no bridge lives (never heard of)"},
		{"a bridge that died", func(s *Status) { s.Bridges, s.LastBridge = nil, now.Add(-time.Minute) }, "last heard of 1m0s ago"},
		{"open", func(s *Status) {
			s.Breaker = breaker.Snapshot{State: breaker.Open, Since: now.Add(-time.Minute), At: now}
		}, "the breaker has been open for 1m0s"},
		{"old", func(s *Status) {
			s.Lanes = []Lane{{Lane: stream.Lane{Name: "default", Open: 7, Oldest: now.Add(-time.Hour)}}}
		}, "the oldest of 7 requests in flight is unanswered for 1h0m0s"},
		{"young", func(s *Status) {
			s.Lanes = []Lane{{Lane: stream.Lane{Name: "default", Open: 7, Oldest: now.Add(-time.Minute)}}}
		}, ""},
		{"failing", func(s *Status) {
			s.Answers.ByAction = []ActionAnswers{{Action: "health", Success: 4, Errors: map[tebra.ErrorCode]int{tebra.Rejected: 6}}}
		}, "6 of 10 requests health ended in an error"},
		{"failing now and then", func(s *Status) {
			s.Answers.ByAction = []ActionAnswers{{Action: "health", Success: 5, Errors: map[tebra.ErrorCode]int{tebra.Rejected: 5}}}
		}, ""},
		{"dead letters", func(s *Status) { s.DeadLetters = &DeadLetters{Waiting: 1000, More: true} }, "at least 1000 dead letters wait"},
		{"none of them", func(s *Status) { s.DeadLetters = &DeadLetters{} }, ""},
	} {
		s := well()
		test.change(&s)
		got := s.Concerns()
		if (test.want == "") != (len(got) == 0) || (test.want != "" && (len(got) != 1 || !strings.Contains(got[0].What, test.want) || got[0].Do == "")) {
			t.Errorf("Concerns() when %s = %+v, want %q", test.name, got, test.want)
		}
	}
}
