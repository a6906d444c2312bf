package stream_test

import (
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

func TestWhereAnEntryStandsFollowsItsWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.rdb.SAdd(t.Context(), b.keys.Lanes(), lane).Err(); err != nil {
		t.Fatal(err)
	}
	where := func() stream.Place {
		t.Helper()
		place, err := b.s.Where(t.Context(), "1-0")
		if err != nil {
			t.Fatalf("Where() = %v", err)
		}
		return place
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(want stream.Place) {
		t.Helper()
		if got := where(); got != want {
			t.Errorf("Where() = %+v, want %+v", got, want)
		}
	}
	b.add(1)
	check(stream.Place{Stage: stream.Unread})
	b.read(1)
	check(stream.Place{Stage: stream.InHand, By: consumer})
	b.park("1-0")
	check(stream.Place{Stage: stream.Parked, Lane: lane})
	if _, _, err := b.s.Fill(t.Context(), lane, 1, consumer, 1); err != nil {
		t.Fatal(err)
	}
	check(stream.Place{Stage: stream.Open, Lane: lane})
	do(b.s.Ack(t.Context(), []string{"1-0"}))
	check(stream.Place{Stage: stream.Open, Lane: lane})
	do(b.rdb.ZAdd(t.Context(), b.keys.Retrying(lane), redis.Z{Score: 1, Member: "1-0"}).Err())
	check(stream.Place{Stage: stream.Retrying, Lane: lane})
	do(b.rdb.Del(t.Context(), b.keys.Retrying(lane), b.keys.Open(lane)).Err())
	check(stream.Place{Stage: stream.Gone})
}

func TestWhereWithoutAnyGroupIsUnread(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	b.add(1)
	place, err := b.s.Where(t.Context(), "1-0")
	if want := (stream.Place{Stage: stream.Unread}); err != nil || place != want {
		t.Errorf("Where() = %+v, %v, want %+v", place, err, want)
	}
}

func TestLanesCountWhatIsOpenRetryingAndParked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, err := range []error{
		b.rdb.SAdd(t.Context(), b.keys.Lanes(), lane).Err(),
		b.rdb.ZAdd(t.Context(), b.keys.Open(lane), redis.Z{Score: 5000, Member: "1-0"}, redis.Z{Score: 7000, Member: "2-0"}).Err(),
		b.rdb.ZAdd(t.Context(), b.keys.Retrying(lane), redis.Z{Score: 8000, Member: "2-0"}).Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b.add(3)
	b.read(3)
	b.park("3-0")
	got, err := b.s.Lanes(t.Context())
	want := []stream.Lane{
		{Name: tebra.DefaultLane},
		{Name: lane, Open: 2, Retrying: 1, Parked: 1, Oldest: time.UnixMilli(5000)},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Lanes() = %+v, %v, want %+v", got, err, want)
	}
}

func TestAnEmptyRedisHasTheDefaultLaneOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	got, err := b.s.Lanes(t.Context())
	if want := []stream.Lane{{Name: tebra.DefaultLane}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("Lanes() = %+v, %v, want %+v", got, err, want)
	}
}
