package bridge

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// dayOld is longer ago than RETENTION.
func dayOld(seq int) string {
	return fmt.Sprintf("%d-%d", time.Now().Add(-30*time.Hour).UnixMilli(), seq)
}

// addDayOld writes n requests that are older than RETENTION.
func (b *bundle) addDayOld(from, n int, action string) []string {
	b.Helper()
	var ids []string
	for i := range n {
		id := dayOld(from + i)
		if err := b.rdb.XAdd(b.Context(), &redis.XAddArgs{Stream: b.keys.Requests(), ID: id, Values: request(action)}).Err(); err != nil {
			b.Fatalf("XADD: %v", err)
		}
		ids = append(ids, id)
	}
	return ids
}

// stored returns the IDs of a stream's entries.
func (b *bundle) stored(key string) []string {
	b.Helper()
	list, err := b.rdb.XRange(b.Context(), key, "-", "+").Result()
	if err != nil {
		b.Fatalf("XRANGE: %v", err)
	}
	var ids []string
	for _, m := range list {
		ids = append(ids, m.ID)
	}
	return ids
}

func (b *bundle) trimOnce(r *running) {
	b.Helper()
	if err := r.trim(b.Context()); err != nil {
		b.Fatalf("trim() = %v", err)
	}
}

func TestTrimmingRemovesWhatIsOldAndAnswered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.addDayOld(1, 250, "quick")
	r := b.start()
	b.waitPublished(ids)
	b.waitSettled()
	b.answer(tebra.DefaultLane, ids...)
	young := b.add(5, "quick")
	b.waitPublished(young)
	b.waitSettled()
	b.trimOnce(r)
	if got := b.stored(b.keys.Requests()); !slices.Equal(got, young) {
		t.Errorf("%d entries are left, want the %d young ones", len(got), len(young))
	}
}

func TestTrimmingNeverRemovesWhatIsStillNeeded(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(b *bundle) (needed []string){
		"unread": func(b *bundle) []string {
			return b.addDayOld(1, 50, "quick")
		},
		"unread, without a group": func(b *bundle) []string {
			ids := b.addDayOld(1, 50, "quick")
			if err := b.rdb.XGroupDestroy(b.Context(), b.keys.Requests(), tebra.GroupBridge).Err(); err != nil {
				b.Fatal(err)
			}
			return ids
		},
		"in hand": func(b *bundle) []string {
			ids := b.addDayOld(1, 50, "quick")
			if _, err := stream.New(b.rdb, b.keys).Read(b.Context(), "dead", 50, time.Second); err != nil {
				b.Fatal(err)
			}
			return ids
		},
		"parked": func(b *bundle) []string {
			ids := b.addDayOld(1, slowWindow+50, "slow")
			r := b.start()
			peertest.Eventually(b.T, wait, "the rest to be parked", func() bool { return b.waiting().Parked == 50 })
			b.waitPublished(ids[:slowWindow])
			peertest.Eventually(b.T, wait, "no more to be in hand", func() bool { return b.waiting().InHand == 0 })
			r.stop(b.T)
			b.answer("slow", ids[:slowWindow]...)
			return ids[slowWindow:]
		},
		"open": func(b *bundle) []string {
			ids := b.addDayOld(1, 50, "quick")
			r := b.start()
			b.waitPublished(ids)
			b.waitSettled()
			r.stop(b.T)
			b.answer(tebra.DefaultLane, ids[:20]...)
			return ids[20:]
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := b.assemble()
			if err := r.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
			needed := prepare(b)
			b.trimOnce(r)
			left := b.stored(b.keys.Requests())
			for _, id := range needed {
				if !slices.Contains(left, id) {
					t.Errorf("entry %s was removed", id)
				}
			}
		})
	}
}

func TestAnswersAndStatusesAreTrimmedByAge(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.assemble()
	if err := r.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	const aged, young = 300, 7
	for _, key := range []string{b.keys.Responses(), b.keys.Status()} {
		for i := range aged + young {
			id := "*"
			if i < aged {
				id = dayOld(i + 1)
			}
			if err := b.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: id, Values: []string{"a", "b"}}).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.trimOnce(r)
	for _, key := range []string{b.keys.Responses(), b.keys.Status()} {
		if got := len(b.stored(key)); got != young {
			t.Errorf("%s has %d entries, want the %d young ones", key, got, young)
		}
	}
}

func TestTrimmingOfNothingIsNoError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.assemble()
	if err := r.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.trimOnce(r)
}
