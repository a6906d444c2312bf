package ledger

import (
	"fmt"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

func TestAdmitMakesRecordsInTheEpoch(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		var writes []Admission
		for i := range 2*batch + 1 {
			writes = append(writes, Admission{Hash: fmt.Sprintf("h%d", i), EntryID: fmt.Sprintf("1-%d", i), Fingerprint: "p"})
		}
		epoch, known, err := f.l.Admit(t.Context(), writes)
		f.must(err)
		if epoch == "" || len(known) != len(writes) || slices.Contains(known, true) {
			t.Fatalf("Admit() = epoch %q, %d known, want an epoch and none of %d known", epoch, len(known), len(writes))
		}
		last := writes[len(writes)-1]
		want := map[string]string{
			"state": "admitted", "entry": last.EntryID, "print": "p", "epoch": epoch, "admitted": millis(f.clock()),
		}
		got, err := f.rdb.HGetAll(t.Context(), f.keys.Ledger(last.Hash)).Result()
		f.must(err)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("record = %v, want %v", got, want)
		}
		f.unchanged("the second Admit()", func() {
			again, known, err := f.l.Admit(t.Context(), writes)
			f.must(err)
			if again != epoch || slices.Contains(known, true) {
				t.Errorf("second Admit() = epoch %q, known %t, want %q, false", again, slices.Contains(known, true), epoch)
			}
		})
		if got, err := f.l.Epoch(t.Context()); err != nil || got != epoch {
			t.Errorf("Epoch() = %q, %v, want %q", got, err, epoch)
		}
	})
}

func TestAdmitLeavesARecordAlone(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aWrite)
		again := Admission{Hash: d.Envelope.Ledger, EntryID: "9-9", Fingerprint: "another"}
		claimed := Admission{Hash: d.Envelope.Ledger, EntryID: d.Envelope.EntryID, Fingerprint: d.Fingerprint}
		f.claim(d)
		f.unchanged("Admit() of what is on record", func() {
			_, known, err := f.l.Admit(t.Context(), []Admission{again, claimed})
			f.must(err)
			if !slices.Equal(known, []bool{true, true}) {
				t.Errorf("Admit() = known %v, want both", known)
			}
		})
	})
}

func TestTheEpochIsSetOncePerLifeOfRedis(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		first, err := f.l.Epoch(t.Context())
		f.must(err)
		f.unchanged("the second Epoch()", func() {
			if again, err := f.l.Epoch(t.Context()); err != nil || again != first {
				t.Errorf("second Epoch() = %q, %v, want %q", again, err, first)
			}
		})
		f.flush()
		if after, err := f.l.Epoch(t.Context()); err != nil || after == first || after == "" {
			t.Errorf("Epoch() after a flush = %q, %v, want another than %q", after, err, first)
		}
	})
}

func TestAdmitNoticesARedisThatLostItsDataMidway(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		other := redis.NewClient(f.rdb.Options())
		defer other.Close()
		f.rdb.AddHook(peertest.AfterFirst(func() { f.must(other.FlushAll(t.Context()).Err()) }))
		_, _, err := f.l.Admit(t.Context(), make([]Admission, batch+1))
		wantError(t, "Admit()", err, ErrEpochChanged)
	})
}

func TestLookupTellsHowFarAnEntryIs(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		named := func(id string) request { return request{id: id, params: `{}`, write: true} }
		absent, admitted, begun, answered, returned := f.arrive(aRead), f.send(named("a")), f.send(named("b")), f.send(named("c")), f.send(named("d"))
		f.claim(begun)
		f.answer(answered, succeed())
		f.must(f.l.Return(t.Context(), f.claim(returned), tebra.Unavailable))
		again := f.send(named("c"))
		replayed := f.send(named("e"))
		_, err := f.l.Replay(t.Context(), replayOf(replayed, named("e"), true))
		f.must(err)
		calledAndReturned := f.send(named("f"))
		f.must(f.l.Return(t.Context(), f.run(calledAndReturned), tebra.Unavailable))
		var refs []Ref
		want := []Standing{NoRecord, Known, Begun, AnsweredHere, Known, Known, SupersededHere, Returned}
		for _, d := range []Delivery{absent, admitted, begun, answered, returned, again, replayed, calledAndReturned} {
			refs = append(refs, Ref{Hash: d.Envelope.Ledger, EntryID: d.Envelope.EntryID})
		}
		for range batch {
			refs, want = append(refs, refs[0]), append(want, NoRecord)
		}
		f.unchanged("Lookup()", func() {
			got, err := f.l.Lookup(t.Context(), refs)
			f.must(err)
			if !slices.Equal(got, want) {
				t.Errorf("Lookup() = %v…, want %v…", got[:8], want[:8])
			}
		})
	})
}
