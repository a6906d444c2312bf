package ledger

import (
	"reflect"
	"testing"

	"tebraproxy/pkg/tebra"
)

func TestLookTellsWhatIsOnRecordAndChangesNothing(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		look := func() (r Record, known bool) {
			t.Helper()
			f.unchanged("Look()", func() {
				var err error
				r, known, err = f.l.Look(t.Context(), aWrite.hash())
				f.must(err)
			})
			return r, known
		}
		if r, known := look(); known {
			t.Errorf("Look() = %+v before anything was asked, want no record", r)
		}
		d := f.send(aWrite)
		want := Record{State: "admitted", EntryID: d.Envelope.EntryID, Admitted: f.clock()}
		check := func(when string) {
			t.Helper()
			got, known := look()
			if got.Admitted.Equal(want.Admitted) {
				got.Admitted = want.Admitted
			}
			if !known || !reflect.DeepEqual(got, want) {
				t.Errorf("Look() %s = %+v (%v), want %+v", when, got, known, want)
			}
		}
		check("after admission")

		c := f.run(d)
		want.State, want.Attempts, want.Started, want.Lease = "running", 1, true, f.clock().Add(testLease)
		check("in a run")

		f.must(f.l.Release(t.Context(), c, tebra.Unavailable))
		want.State, want.Code, want.Lease, want.Started = "retrying", tebra.Unavailable, Record{}.Lease, false
		check("between two runs")

		f.must(f.l.Complete(t.Context(), f.run(d), fail(tebra.Rejected)))
		answers, err := f.rdb.XRange(t.Context(), f.keys.Responses(), "-", "+").Result()
		f.must(err)
		want.State, want.Attempts, want.Code = "done", 2, tebra.Rejected
		want.Answered = []AnsweredEntry{{d.Envelope.EntryID, answers[0].ID}}
		check("after the answer")

		second := f.replay(d, aWrite, true)
		want.State, want.EntryID, want.Attempts, want.Code = "admitted", second.Envelope.EntryID, 0, ""
		want.Replays = []ReplayedEntry{{d.Envelope.EntryID, second.Envelope.EntryID}}
		check("after a replay")
	})
}
