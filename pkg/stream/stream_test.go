package stream_test

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

func TestMain(m *testing.M) { peertest.Main(m) }

const (
	lane     = "slow"
	consumer = "b1"
)

type bundle struct {
	*testing.T
	rdb  *redis.Client
	keys tebra.Keys
	s    *stream.Stream
}

func setup(t *testing.T) bundle {
	t.Helper()
	rdb := peertest.Redis(t).Client()
	keys, err := tebra.NewKeys("test")
	if err != nil {
		t.Fatal(err)
	}
	b := bundle{t, rdb, keys, stream.New(rdb, keys)}
	if _, err := b.s.EnsureGroups(t.Context()); err != nil {
		t.Fatalf("EnsureGroups() = %v", err)
	}
	return b
}

// add writes n entries with IDs 1-0, 2-0, ….
func (b bundle) add(n int) []string {
	b.Helper()
	var ids []string
	for i := 1; i <= n; i++ {
		id := fmt.Sprintf("%d-0", i)
		if err := b.rdb.XAdd(b.Context(), &redis.XAddArgs{Stream: b.keys.Requests(), ID: id, Values: []string{"n", id}}).Err(); err != nil {
			b.Fatalf("XADD: %v", err)
		}
		ids = append(ids, id)
	}
	return ids
}

// read gives n entries to the consumer.
func (b bundle) read(n int) []stream.Entry {
	b.Helper()
	entries, err := b.s.Read(b.Context(), consumer, n, time.Second)
	if err != nil || len(entries) != n {
		b.Fatalf("Read() = %d entries, %v, want %d", len(entries), err, n)
	}
	return entries
}

// pending returns the IDs that a consumer of a group has pending.
func (b bundle) pending(group, consumer string) []string {
	b.Helper()
	list, err := b.rdb.XPendingExt(b.Context(), &redis.XPendingExtArgs{
		Stream: b.keys.Requests(), Group: group, Start: "-", End: "+", Count: 1000, Consumer: consumer}).Result()
	if err != nil && err != redis.Nil {
		b.Fatalf("XPENDING: %v", err)
	}
	var ids []string
	for _, p := range list {
		ids = append(ids, p.ID)
	}
	return ids
}

func (b bundle) open() []string {
	b.Helper()
	ids, err := b.rdb.ZRange(b.Context(), b.keys.Open(lane), 0, -1).Result()
	if err != nil {
		b.Fatalf("ZRANGE: %v", err)
	}
	return ids
}

func (b bundle) wantIDs(what string, got, want []string) {
	b.Helper()
	if !slices.Equal(got, want) {
		b.Errorf("%s = %v, want %v", what, got, want)
	}
}

func seatsOf(ids []string) []stream.Seat {
	var seats []stream.Seat
	for i, id := range ids {
		seats = append(seats, stream.Seat{EntryID: id, Arrival: time.UnixMilli(int64(i)),
			Notice: stream.Notice{CorrelationID: id, RequestID: "request " + id, UserID: "user " + id, Action: "action " + id}})
	}
	return seats
}

func TestEntriesFromBeforeTheFirstStartAreRead(t *testing.T) {
	t.Parallel()
	rdb := peertest.Redis(t).Client()
	keys, _ := tebra.NewKeys("{early}")
	if err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: keys.Requests(), Values: []string{"a", "b"}}).Err(); err != nil {
		t.Fatal(err)
	}
	s := stream.New(rdb, keys)
	made, err := s.EnsureGroups(t.Context())
	if err != nil || !made {
		t.Fatalf("EnsureGroups() = %v, %v, want true", made, err)
	}
	if made, err = s.EnsureGroups(t.Context()); err != nil || made {
		t.Errorf("second EnsureGroups() = %v, %v, want false", made, err)
	}
	entries, err := s.Read(t.Context(), consumer, 10, time.Second)
	if err != nil || len(entries) != 1 {
		t.Errorf("Read() = %v, %v, want the entry", entries, err)
	}
}

func TestReadKeepsDuplicateFieldsAndTheirOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := []string{"x", "1", "a", "2", "x", "3", "", ""}
	if err := b.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: b.keys.Requests(), Values: want}).Err(); err != nil {
		t.Fatal(err)
	}
	b.wantIDs("fields", b.read(1)[0].Fields, want)
}

func TestALaneNeverHoldsMoreThanItsWindowAndTheRestWaitsInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.add(10)
	b.read(10)
	b.wantSeatings(3, ids[:6], stream.Seated, stream.Seated, stream.Seated, stream.Waits, stream.Waits, stream.Waits)
	b.wantSeatings(100, ids[6:], stream.Waits, stream.Waits, stream.Waits, stream.Waits) // behind parked ones
	b.wantIDs("open", b.open(), ids[:3])
	b.wantIDs("parked", b.pending(tebra.GroupParked, lane), ids[3:])
	b.wantIDs("in hand", b.pending(tebra.GroupBridge, consumer), ids[:3])

	if err := b.rdb.ZRem(t.Context(), b.keys.Open(lane), ids[0], ids[1]).Err(); err != nil {
		t.Fatal(err)
	}
	entries, gone, err := b.s.Fill(t.Context(), lane, 3, "b2", 100)
	if err != nil || len(gone) != 0 || len(entries) != 2 || entries[0].ID != ids[3] || entries[1].ID != ids[4] || len(entries[0].Fields) != 2 {
		t.Fatalf("Fill() = %v, %v, %v, want entries %v", entries, gone, err, ids[3:5])
	}
	b.wantIDs("in the filler's hand", b.pending(tebra.GroupBridge, "b2"), ids[3:5])
	b.wantIDs("still parked", b.pending(tebra.GroupParked, lane), ids[5:])
}

func TestWhoWaitsOutABackoffLeavesItsRoomToOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.add(4)
	b.read(4)
	b.wantSeatings(2, ids[:2], stream.Seated, stream.Seated)
	if err := b.rdb.ZAdd(t.Context(), b.keys.Retrying(lane), redis.Z{Member: ids[0]}).Err(); err != nil {
		t.Fatal(err)
	}
	b.wantSeatings(2, ids[2:], stream.Seated, stream.Waits)
}

func TestOnlyWhoHasAnEntryInHandGivesItRoom(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"in another's hand", "acknowledged", "parked"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			ids := b.add(4)
			b.read(4)
			taken := []string{ids[0], ids[2]}
			claimed := &redis.XClaimArgs{Stream: b.keys.Requests(), Group: tebra.GroupBridge, Consumer: "b2", Messages: taken}
			if err := b.rdb.XClaimJustID(t.Context(), claimed).Err(); err != nil {
				t.Fatal(err)
			}
			var err error
			switch end {
			case "acknowledged":
				err = b.s.Ack(t.Context(), taken)
			case "parked":
				err = b.s.Admit(t.Context(), "b2", time.Now(), []*stream.Admission{{Lane: "another", Seats: seatsOf(taken)}})
			}
			if err != nil {
				t.Fatal(err)
			}
			b.wantSeatings(1, ids, stream.Lost, stream.Seated, stream.Lost, stream.Waits)
			b.wantIDs("open", b.open(), ids[1:2])

			b.wantIDs("lost", b.opens(0, ids[:3]), taken)
			b.wantIDs("open", b.open(), ids[1:2])
			// It is not for any time that nobody has claimed the first.
			b.wantIDs("lost", b.opens(time.Hour, ids[:3]), taken)
			b.wantIDs("open", b.open(), ids[1:2])
		})
	}
}

func TestWhatCameIntoHandAtOnceIsLookedAtOnceWhileNobodyCanHaveClaimedIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.add(3)
	b.read(3)
	// No bridge claims what is in hand for so short a time. The test does.
	if err := b.s.Ack(t.Context(), ids[1:2]); err != nil {
		t.Fatal(err)
	}
	b.wantIDs("lost within the time", b.opens(time.Hour, ids), nil)
	b.wantIDs("open", b.open(), ids)
	if err := b.s.GiveBack(t.Context(), consumer, ids); err != nil { // makes them idle for a day
		t.Fatal(err)
	}
	b.wantIDs("lost after that time", b.opens(time.Hour, ids), ids[1:2])
}

// admits admits entries in the consumer's hand, and returns what became of them. Who
// asked for them is called as they are.
func (b bundle) admits(a stream.Admission, ids []string) []stream.Seating {
	b.Helper()
	a.Lane, a.Seats = lane, seatsOf(ids)
	if err := b.s.Admit(b.Context(), consumer, time.UnixMilli(0), []*stream.Admission{&a}); err != nil {
		b.Fatalf("Admit() = %v", err)
	}
	if used := len(b.open()); a.Used != used && b.rdb.ZCard(b.Context(), b.keys.Retrying(lane)).Val() == 0 {
		b.Errorf("used = %d, want %d", a.Used, used)
	}
	return a.Seatings
}

// opens makes entries open, and returns those that were lost.
func (b bundle) opens(unclaimed time.Duration, ids []string) (lost []string) {
	b.Helper()
	for i, seating := range b.admits(stream.Admission{Window: stream.AllSeated, Unclaimed: unclaimed}, ids) {
		if seating == stream.Lost {
			lost = append(lost, ids[i])
		}
	}
	return lost
}

// wantSeatings asks for room for entries in the consumer's hand.
func (b bundle) wantSeatings(window int, ids []string, want ...stream.Seating) {
	b.Helper()
	if got := b.admits(stream.Admission{Window: window}, ids); !slices.Equal(got, want) {
		b.Fatalf("Admit() in a window of %d = %v, want %v", window, got, want)
	}
}

// park parks entries that are in the consumer's hand.
func (b bundle) park(ids ...string) {
	b.Helper()
	for i, seating := range b.admits(stream.Admission{}, ids) {
		if seating != stream.Waits {
			b.Fatalf("entry %s: %v, want it parked", ids[i], seating)
		}
	}
}

// told returns who was told that entries are pending, in order.
func (b bundle) told() (ids []string) {
	b.Helper()
	list, err := b.rdb.XRange(b.Context(), b.keys.Status(), "-", "+").Result()
	if err != nil {
		b.Fatalf("XRANGE: %v", err)
	}
	for _, m := range list {
		fields := map[string]string{}
		for name, value := range m.Values {
			fields[name] = fmt.Sprint(value)
		}
		got, err := tebra.ParseStatus(fields)
		id := got.CorrelationID
		want := tebra.StatusUpdate{CorrelationID: id, RequestID: "request " + id, UserID: "user " + id, Action: "action " + id,
			State: tebra.Pending, Timestamp: time.UnixMilli(0).UTC()}
		if err != nil || got != want || len(fields) != len(want.Fields())/2 {
			b.Errorf("status = %v, %v, want %v", fields, err, want)
		}
		ids = append(ids, id)
	}
	return ids
}

func TestWhoAskedIsToldOnceInTheOrderOfTheEntriesAndOnlyByWhoHasThemInHand(t *testing.T) {
	t.Parallel()
	for name, window := range map[string]int{"all find room": stream.AllSeated, "some find room": 2, "all are parked": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			ids := b.add(5)
			b.read(5)
			if err := b.s.Ack(t.Context(), ids[1:2]); err != nil {
				t.Fatal(err)
			}
			a := stream.Admission{Lane: lane, Window: window, Seats: seatsOf(ids)}
			a.Seats[3].Notice = stream.Notice{} // was told before
			for range 2 {
				if err := b.s.Admit(t.Context(), consumer, time.UnixMilli(0), []*stream.Admission{&a}); err != nil {
					t.Fatal(err)
				}
				for i := range a.Seats { // whoever was given room is known to be told by that
					if a.Seatings[i] == stream.Seated {
						a.Seats[i].Notice = stream.Notice{}
					}
				}
			}
			b.wantIDs("told", b.told(), []string{ids[0], ids[2], ids[4]})
		})
	}
}

func TestEntriesOfSeveralLanesAreAdmittedTogether(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.s.Admit(t.Context(), consumer, time.Now(), nil); err != nil {
		t.Errorf("Admit() of nothing = %v, want nil", err)
	}
	ids := b.add(3)
	b.read(3)
	all := []*stream.Admission{
		{Lane: "a", Window: stream.AllSeated, Seats: seatsOf(ids[:1])},
		{Lane: "b", Window: 5, Seats: seatsOf(ids[1:2])},
		{Lane: "c", Window: 0, Seats: seatsOf(ids[2:])},
	}
	if err := b.s.Admit(t.Context(), consumer, time.Now(), all); err != nil {
		t.Fatal(err)
	}
	for i, want := range []stream.Seating{stream.Seated, stream.Seated, stream.Waits} {
		if got := all[i].Seatings; !slices.Equal(got, []stream.Seating{want}) {
			t.Errorf("lane %s: %v, want %v", all[i].Lane, got, want)
		}
	}
	b.wantIDs("parked", b.pending(tebra.GroupParked, "c"), ids[2:])
}

func TestAnEntryTrimmedWhileParkedStaysSoUntilItIsDiscarded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.add(2)
	b.read(2)
	b.park(ids...)
	if err := b.rdb.XDel(t.Context(), b.keys.Requests(), ids[0]).Err(); err != nil {
		t.Fatal(err)
	}
	entries, gone, err := b.s.Fill(t.Context(), lane, 10, consumer, 10)
	if err != nil || len(entries) != 1 || entries[0].ID != ids[1] {
		t.Errorf("Fill() = %v, %v, want entry %s", entries, err, ids[1])
	}
	b.wantIDs("gone", gone, ids[:1])
	b.wantIDs("parked", b.pending(tebra.GroupParked, lane), ids[:1])
	b.discardOnce(ids[0])
	b.wantIDs("parked", b.pending(tebra.GroupParked, lane), nil)
}

// discardOnce fails the test unless the first of two calls is the one that counts.
func (b bundle) discardOnce(id string) {
	b.Helper()
	for i, want := range []bool{true, false} {
		if got, err := b.s.Discard(b.Context(), id, lane); err != nil || got != want {
			b.Errorf("Discard() no. %d = %v, %v, want %v", i+1, got, err, want)
		}
	}
}

func TestAnEntryTrimmedWhilePendingStaysSoUntilItIsDiscarded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.add(3)
	b.read(3)
	if err := b.rdb.XDel(t.Context(), b.keys.Requests(), ids[1]).Err(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, gone, next, err := b.s.AutoClaim(t.Context(), "b2", 0, "0-0", 10)
		if err != nil || next != "0-0" {
			t.Errorf("AutoClaim() = next %s, %v, want 0-0", next, err)
		}
		b.wantIDs("gone", gone, ids[1:2])
	}
	b.wantIDs("still pending", b.pending(tebra.GroupBridge, consumer), ids[1:2])
	b.wantIDs("claimed", b.pending(tebra.GroupBridge, "b2"), []string{ids[0], ids[2]})
	b.discardOnce(ids[1])
	b.wantIDs("still pending", b.pending(tebra.GroupBridge, consumer), nil)
}

func TestClaimingGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.add(5)
	b.read(5)
	var claimed []string
	for next, first := "0-0", true; first || next != "0-0"; first = false {
		entries, _, n, err := b.s.AutoClaim(t.Context(), "b2", 0, next, 2)
		if err != nil {
			t.Fatalf("AutoClaim() = %v", err)
		}
		for _, e := range entries {
			claimed = append(claimed, e.ID)
		}
		next = n
	}
	b.wantIDs("claimed", claimed, ids)
}

func TestAConsumerWithPendingEntriesCannotLeave(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.add(1)
	b.read(1)
	if left, err := b.s.Leave(t.Context(), consumer); err != nil || left {
		t.Errorf("Leave() with an entry in hand = %v, %v, want false", left, err)
	}
	if err := b.s.Ack(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	if left, err := b.s.Leave(t.Context(), consumer); err != nil || !left {
		t.Errorf("Leave() = %v, %v, want true", left, err)
	}
}

func TestWhatIsGivenBackIsClaimedAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.add(2)
	b.read(2)
	entries, _, _, err := b.s.AutoClaim(t.Context(), "b2", time.Minute, "0-0", 10)
	if err != nil || len(entries) != 0 {
		t.Fatalf("AutoClaim() of what is not idle = %v, %v, want nothing", entries, err)
	}
	if err := b.s.GiveBack(t.Context(), consumer, ids); err != nil {
		t.Fatal(err)
	}
	entries, _, _, err = b.s.AutoClaim(t.Context(), "b2", time.Minute, "0-0", 10)
	if err != nil || len(entries) != 2 {
		t.Errorf("AutoClaim() = %v, %v, want both", entries, err)
	}
	own, err := b.s.Own(t.Context(), "b2", "0-0", 10)
	if err != nil || len(own) != 2 {
		t.Errorf("Own() = %v, %v, want both", own, err)
	}
}

func TestTrimmingSparesWhatIsUnreadInHandParkedOrOpen(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(bundle, []string){
		"unread":  func(bundle, []string) {},
		"in hand": func(b bundle, _ []string) { b.read(10) },
		"parked": func(b bundle, ids []string) {
			b.read(10)
			b.park(ids[4])
		},
		"open": func(b bundle, ids []string) {
			b.read(10)
			if err := b.rdb.ZAdd(b.Context(), b.keys.Open(lane), redis.Z{Score: 5, Member: ids[4]}).Err(); err != nil {
				b.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			ids := b.add(10)
			prepare(b, ids)
			kept, settled := ids, ids
			if name == "parked" || name == "open" {
				kept = ids[4:]
			}
			if name == "unread" || name == "in hand" {
				settled = nil
			}
			if err := b.s.Ack(t.Context(), settled); err != nil {
				t.Fatal(err)
			}
			if err := b.s.TrimRequests(t.Context(), time.Now(), []string{lane}); err != nil {
				t.Fatalf("TrimRequests() = %v", err)
			}
			left, err := b.rdb.XRange(t.Context(), b.keys.Requests(), "-", "+").Result()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range left {
				got = append(got, m.ID)
			}
			b.wantIDs("left", got, kept)
		})
	}
}

func TestTrimmingByAgeTakesOnlyWhatIsOld(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.add(10)
	b.read(10)
	if err := b.s.Ack(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	if err := b.s.TrimRequests(t.Context(), time.UnixMilli(4), []string{lane}); err != nil {
		t.Fatal(err)
	}
	if n := b.rdb.XLen(t.Context(), b.keys.Requests()).Val(); n != 7 {
		t.Errorf("%d entries are left, want 7: those from 4-0 on", n)
	}
}

func TestWaitingTellsWhereEntriesWait(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if w, err := b.s.Waiting(t.Context()); err != nil || !w.Idle() {
		t.Errorf("Waiting() of nothing = %+v, %v, want idle", w, err)
	}
	ids := b.add(3)
	b.read(2)
	b.park(ids[0])
	w, err := b.s.Waiting(t.Context())
	if err != nil || !w.Unread || w.InHand != 1 || w.Parked != 1 || w.Idle() {
		t.Errorf("Waiting() = %+v, %v, want one unread, one in hand, one parked", w, err)
	}
}
