package inspect

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

func summary(requests []Request) []string {
	var all []string
	for _, r := range requests {
		all = append(all, fmt.Sprintf("%s %s %s %s %d", r.EntryID, r.RequestID, r.State, r.ErrorCode, r.Changed.UnixMilli()))
	}
	return all
}

func TestHistoryTellsWhatWasAskedAndHowItEnded(t *testing.T) {
	t.Parallel()
	i := setup(t)
	i.ask("1000-0", "r1", "u1", "health")
	i.ask("1001-0", "r2", "u2", "health")
	i.say("1002-0", "r1", "u1", "health", tebra.Pending, 0, "")
	i.say("1003-0", "r1", "u1", "health", tebra.Processing, 1, "")
	i.say("1004-0", "r1", "u1", "health", tebra.Success, 1, "")
	i.ask("1005-0", "r1", "u1", "health") // the same again, whose answer is repeated
	i.ask("1006-0", "r3", "u1", "createAppointment")
	i.say("1007-0", "r2", "u2", "health", tebra.Failed, 1, tebra.Rejected)
	i.say("1008-0", "r1", "u1", "health", tebra.Success, 1, "")
	i.add(i.keys.Requests(), "1009-0", "nonsense", "1")
	for _, test := range []struct {
		name string
		q    HistoryQuery
		want []string
		more bool
	}{
		{"all", HistoryQuery{Limit: 10}, []string{
			"1000-0 r1 success  1004", "1001-0 r2 error rejected 1007", "1005-0 r1 success  1008", "1006-0 r3   1006",
			"1009-0 " + i.readID("1009-0") + "  malformed 1009",
		}, false},
		{"a user's", HistoryQuery{Filter: Filter{UserID: "u2"}, Limit: 10}, []string{"1001-0 r2 error rejected 1007"}, false},
		{"an action's", HistoryQuery{Filter: Filter{Action: "createAppointment"}, Limit: 10}, []string{"1006-0 r3   1006"}, false},
		{"since", HistoryQuery{Filter: Filter{UserID: "u1"}, Since: time.UnixMilli(1005), Limit: 10}, []string{"1005-0 r1 success  1008", "1006-0 r3   1006"}, false},
		{"the newest", HistoryQuery{Filter: Filter{UserID: "u1"}, Limit: 1}, []string{"1006-0 r3   1006"}, true},
		{"nobody's", HistoryQuery{Filter: Filter{UserID: "u9"}, Limit: 1}, nil, false},
	} {
		found, more, err := i.History(t.Context(), test.q)
		if err != nil || !slices.Equal(summary(found), test.want) || more != test.more {
			t.Errorf("History() of %s = %q, %v, %v, want %q, %v", test.name, summary(found), more, err, test.want, test.more)
		}
		for _, r := range found {
			if r.Params != nil {
				t.Errorf("History() of %s has params, want none", test.name)
			}
		}
	}
	found, _, err := i.History(t.Context(), HistoryQuery{Filter: Filter{UserID: "u2"}, Limit: 1, Payloads: true})
	if err != nil || len(found) != 1 || string(found[0].Params) != `{"secret":1}` {
		t.Errorf("History() with payloads = %+v, %v, want the params", found, err)
	}
}

// readID is the ID that a bridge gives to an entry without one.
func (i *installation) readID(entry string) string {
	i.Helper()
	e, found, err := i.at(i.ctx, i.Inspector.keys.Requests(), entry)
	i.must(err)
	if !found {
		i.Fatalf("entry %s is not there", entry)
	}
	return i.readRequest(e).RequestID
}

func TestScansGoThroughEveryEntryOnceWhateverTheirSizes(t *testing.T) {
	t.Parallel()
	i := setup(t)
	var want []string
	for n := range 3*firstPage + 7 {
		size := 10
		if n%50 == 0 {
			size = pageBytes / 20
		}
		want = append(want, i.add("s", fmt.Sprintf("%d-0", n+1), "field", string(make([]byte, size))))
	}
	for _, test := range []struct {
		name        string
		page        pager
		start, stop string
	}{{"forwards", i.rdb.XRangeN, "-", "+"}, {"backwards", i.rdb.XRevRangeN, "+", "-"}} {
		var got []string
		err := scan(t.Context(), test.page, "s", test.start, test.stop, func(e redis.XMessage) bool {
			got = append(got, e.ID)
			return true
		})
		if test.name == "backwards" {
			slices.Reverse(got)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("scan() %s = %d entries, %v, want all %d in order", test.name, len(got), err, len(want))
		}
	}
}
