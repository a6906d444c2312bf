package inspect

import (
	"fmt"
	"slices"
	"testing"

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
		got = append(got, fmt.Sprintf("%s %s %d", r.RequestID, r.State, r.Took(r.Changed).Milliseconds()))
	}
	if want := []string{"r1  0", "r1 pending 2", "before processing 0", "r1 success 4"}; !slices.Equal(got, want) {
		t.Errorf("Next() = %q, want %q", got, want)
	}
	if under := w.UnderWay(); len(under) != 1 || under[0].RequestID != "before" {
		t.Errorf("UnderWay() = %+v, want the one that is not answered", under)
	}
	if changed, err := w.Next(t.Context()); err != nil || len(changed) != 0 {
		t.Errorf("Next() = %+v, %v without changes, want none", changed, err)
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
