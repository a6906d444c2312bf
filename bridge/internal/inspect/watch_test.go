package inspect

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

func TestWatchSeesEveryChangeFromNowOn(t *testing.T) {
	t.Parallel()
	i := setup(t)
	i.ask("1000-0", "before", "u1", "health")
	w, err := i.NewWatch(t.Context(), Filter{UserID: "u1"})
	i.must(err)
	i.ask("1001-0", "r1", "u1", "health")
	i.ask("1002-0", "r2", "u2", "health")
	i.say("1003-0", "r1", "u1", "health", tebra.Pending, 0, "")
	i.say("1004-0", "before", "u1", "health", tebra.Processing, 1, "")
	i.say("1005-0", "r1", "u1", "health", tebra.Success, 1, "")
	i.say("1006-0", "r2", "u2", "health", tebra.Success, 1, "")
	changed, err := w.Next(t.Context())
	i.must(err)
	var got []string
	for _, r := range changed {
		took, known := r.Took(r.Changed)
		got = append(got, fmt.Sprintf("%s %s %d %v", r.RequestID, r.State, took.Milliseconds(), known))
	}
	if want := []string{"r1  0 true", "r1 pending 2 true", "before processing 4 true", "r1 success 4 true"}; !slices.Equal(got, want) {
		t.Errorf("Next() = %q, want %q", got, want)
	}
	if under := w.UnderWay(); len(under) != 1 || under[0].RequestID != "before" {
		t.Errorf("UnderWay() = %+v, want the one that is not answered", under)
	}
	if changed, err := w.Next(t.Context()); err != nil || len(changed) != 0 {
		t.Errorf("Next() = %+v, %v without changes, want none", changed, err)
	}
}

// TestAWatchTellsNoTimeThatItDoesNotKnow of a request from before it: the last of
// them it finds, and of others it says nothing.
func TestAWatchTellsNoTimeThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	i := setup(t)
	const all = 2*mostBefore + fewPage // as many as are looked at, with the last page whole, are fewer
	_, err := i.rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for n := range all {
			p.XAdd(t.Context(), &redis.XAddArgs{Stream: i.keys.Requests(), ID: fmt.Sprintf("%d-0", 1000+n),
				Values: []string{"id", fmt.Sprint(n), "userId", "u1", "action", "health"}})
		}
		return nil
	})
	i.must(err)
	i.ask("9000-0", "again", "u1", "health")
	i.ask("9001-0", "again", "u1", "health")
	i.ask("9002-0", "another's", "u2", "health")
	w, err := i.NewWatch(t.Context(), Filter{UserID: "u1"})
	i.must(err)
	if n := len(w.before); n > mostBefore || n < mostBefore/2 {
		t.Errorf("%d requests are remembered, want some, and at most %d", n, mostBefore)
	}
	for _, id := range []string{"0", fmt.Sprint(all - 1), "again", "nobody's"} {
		i.say("*", id, "u1", "health", tebra.Processing, 1, "")
	}
	changed, err := w.Next(t.Context())
	i.must(err)
	var got []string
	for _, r := range changed {
		_, known := r.Took(r.Changed)
		got = append(got, fmt.Sprintf("%s %s %v", r.RequestID, r.EntryID, known))
	}
	if want := []string{"0  false", fmt.Sprintf("%d %d-0 true", all-1, 1000+all-1), "again 9001-0 true", "nobody's  false"}; !slices.Equal(got, want) {
		t.Errorf("Next() = %q, want %q", got, want)
	}
}

// TestAWatchLooksBackOnLittleWhereEntriesAreLarge.
func TestAWatchLooksBackOnLittleWhereEntriesAreLarge(t *testing.T) {
	t.Parallel()
	i := setup(t)
	for n := range 3 * fewPage {
		i.add(i.keys.Requests(), fmt.Sprintf("%d-0", 1000+n), "id", fmt.Sprint("r", n), "userId", "u1", "action", "health", "params", `{"x":"`+strings.Repeat("x", 1<<20)+`"}`)
	}
	w, err := i.NewWatch(t.Context(), Filter{})
	i.must(err)
	if n := len(w.before); n != pageBytes>>20 {
		t.Errorf("%d requests of 1 MiB are looked at, want %d", n, pageBytes>>20)
	}
}

// narrow is a way to Redis that carries only so many entries in time.
type narrow struct{ most int64 }

func (n *narrow) DialHook(next redis.DialHook) redis.DialHook { return next }
func (n *narrow) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (n *narrow) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); cmd.Name() == "xread" && args[2].(int64) > n.most {
			cmd.SetErr(context.DeadlineExceeded)
			return context.DeadlineExceeded
		}
		return next(ctx, cmd)
	}
}

// TestAWatchOverANarrowWayReadsLess rather than the same again and again in vain, and
// misses nothing.
func TestAWatchOverANarrowWayReadsLess(t *testing.T) {
	t.Parallel()
	i := setup(t)
	w, err := i.NewWatch(t.Context(), Filter{})
	i.must(err)
	const n = 60
	for k := range n {
		i.ask(fmt.Sprintf("%d-0", 1000+k), fmt.Sprint("r", k), "u1", "health")
	}
	i.rdb.AddHook(&narrow{most: 5})
	var got []string
	failures := 0
	for len(got) < n && failures < n {
		changed, err := w.Next(t.Context())
		if err != nil {
			failures++
		}
		for _, r := range changed {
			got = append(got, r.RequestID)
		}
	}
	for k := range n {
		if len(got) <= k || got[k] != fmt.Sprint("r", k) {
			t.Fatalf("saw %q with %d failures, want all %d requests in order", got, failures, n)
		}
	}
}

// TestAWatchReadsFewerWhereTheyAreLarge.
func TestAWatchReadsFewerWhereTheyAreLarge(t *testing.T) {
	t.Parallel()
	i := setup(t)
	w, err := i.NewWatch(t.Context(), Filter{})
	i.must(err)
	i.add(i.keys.Requests(), "1000-0", "id", "r", "userId", "u1", "action", "health", "params", `{"x":"`+strings.Repeat("x", 1<<20)+`"}`)
	_, err = w.Next(t.Context())
	i.must(err)
	if w.count > pageBytes>>20 {
		t.Errorf("%d entries are read after one of 1 MiB, want %d at most", w.count, pageBytes>>20)
	}
}

func TestWatchKeepsABoundedNumberOfRequests(t *testing.T) {
	t.Parallel()
	w := &Watch{underWay: map[key]*Request{}}
	for n := range mostWatched + 1 {
		r := &Request{RequestID: fmt.Sprint(n), Arrived: entryTime(fmt.Sprint(n + 1))}
		w.underWay[r.key()] = r
	}
	w.bound()
	under := w.UnderWay()
	if len(under) > mostWatched || under[len(under)-1].RequestID != fmt.Sprint(mostWatched) {
		t.Errorf("UnderWay() = %d requests, the last %+v, want at most %d, the newest among them", len(under), under[len(under)-1], mostWatched)
	}
}
