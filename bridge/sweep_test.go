package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// old is longer than twice the default ANSWER_DEADLINE.
const old = 5 * time.Hour

// addOld writes a request that came in long ago, and returns its entry's ID.
func (b *bundle) addOld(seq int, action string) string {
	b.Helper()
	id := fmt.Sprintf("%d-%d", time.Now().Add(-old).UnixMilli(), seq)
	if err := b.rdb.XAdd(b.Context(), &redis.XAddArgs{Stream: b.keys.Requests(), ID: id, Values: request(action)}).Err(); err != nil {
		b.Fatalf("XADD: %v", err)
	}
	return id
}

// publishOld has a bridge publish one old request of each action, and stops the
// bridge. It returns the entries' IDs.
func (b *bundle) publishOld(actions ...string) []string {
	b.Helper()
	var ids []string
	for i, action := range actions {
		ids = append(ids, b.addOld(i+1, action))
	}
	r := b.start()
	b.waitPublished(ids)
	b.waitSettled()
	r.stop(b.T)
	return ids
}

// sweepOnce runs one sweep of a bridge that does nothing else.
func (b *bundle) sweepOnce(r *running) {
	b.Helper()
	if err := r.sweep(b.Context()); err != nil {
		b.Fatalf("sweep() = %v", err)
	}
}

// notes returns what the sweep noted, by entry.
func (b *bundle) overdue() map[string]string {
	b.Helper()
	m, err := b.rdb.HGetAll(b.Context(), b.keys.Overdue()).Result()
	if err != nil {
		b.Fatalf("HGETALL: %v", err)
	}
	return m
}

// ageNotes makes every note as old as old.
func (b *bundle) ageNotes() {
	b.Helper()
	for name := range b.overdue() {
		if err := b.rdb.HSet(b.Context(), b.keys.Overdue(), name, time.Now().Add(-old).UnixMilli()).Err(); err != nil {
			b.Fatalf("HSET: %v", err)
		}
	}
}

// delivery is what a function makes of a message.
func (b *bundle) delivery(m *pubsubpb.PubsubMessage, write bool) ledger.Delivery {
	b.Helper()
	env, err := tebra.ParseEnvelope(m.Attributes)
	if err != nil {
		b.Fatal(err)
	}
	req, err := tebra.DecodeMessage(m.Data)
	if err != nil {
		b.Fatal(err)
	}
	return ledger.Delivery{Envelope: env, Write: write, Fingerprint: tebra.Fingerprint(req.Action, req.Params)}
}

func TestAnOldUnansweredRequestIsNotedThenAnsweredOnce(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"quick", "change", "slow"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			id := b.publishOld(action)[0]
			r := b.assemble()
			b.sweepOnce(r)
			b.sweepOnce(r)
			if got := b.overdue(); len(got) != 1 {
				t.Fatalf("notes = %v, want one", got)
			}
			if got := len(b.responses()); got != 0 {
				t.Fatalf("%d answers at the first look, want none: it may have been admitted only just now", got)
			}
			b.ageNotes()
			b.sweepOnce(r)
			b.sweepOnce(r)
			answers := b.responses()
			if len(answers) != 1 || answers[0]["errorCode"] != string(tebra.NoAnswer) {
				t.Fatalf("answers = %v, want one of %s", answers, tebra.NoAnswer)
			}
			if _, err := tebra.ParseResponse(answers[0]); err != nil {
				t.Errorf("ParseResponse() = %v", err)
			}
			letters := b.sink.deadLetters()
			if len(letters) != 1 || letters[0].Attributes[tebra.AttrReason] != string(tebra.NoAnswer) || letters[0].Attributes[tebra.AttrEntryID] != id {
				t.Errorf("dead letters = %v, want one of %s with reason %s", letters, id, tebra.NoAnswer)
			}
			if req, err := tebra.DecodeMessage(letters[0].Data); err != nil || req.Action != action {
				t.Errorf("DecodeMessage(dead letter) = %+v, %v, want the request", req, err)
			}
			if got := b.overdue(); len(got) != 0 {
				t.Errorf("notes = %v, want none: it is answered", got)
			}
			if got := b.open("slow") + b.open(tebra.DefaultLane); got != 0 {
				t.Errorf("%d are open, want none", got)
			}
		})
	}
}

func TestFiveBridgesThatSweepAnswerOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.publishOld(slices.Repeat([]string{"quick", "slow", "change"}, 10)...)
	bridges := make([]*running, 5)
	for i := range bridges {
		bridges[i] = b.assemble()
	}
	b.sweepOnce(bridges[0])
	b.ageNotes()
	var wg sync.WaitGroup
	for _, r := range bridges {
		wg.Go(func() {
			for range 3 {
				if err := r.sweep(t.Context()); err != nil {
					t.Errorf("sweep() = %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(b.byRequest(b.responses())); got != len(ids) {
		t.Errorf("%d requests were answered, want %d", got, len(ids))
	}
	if got := len(b.sink.deadLetters()); got != len(ids) {
		t.Errorf("%d dead letters, want %d", got, len(ids))
	}
}

func TestAStartedWriteIsAnsweredOutcomeUnknown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publishOld("change")
	// A function that dies after it has sent the call.
	book := ledger.New(b.rdb, b.keys, ledger.Config{Lease: 200 * time.Millisecond})
	claim, err := book.Claim(t.Context(), b.delivery(b.sink.requests()[0], true))
	if err != nil || claim.Verdict != ledger.Run {
		t.Fatalf("Claim() = %+v, %v, want %s", claim, err, ledger.Run)
	}
	if err := book.Start(t.Context(), claim, time.Millisecond); err != nil {
		t.Fatalf("Start() = %v", err)
	}
	r := b.assemble()
	b.sweepOnce(r)
	b.ageNotes()
	peertest.Eventually(t, wait, "the lease to run out and the sweep to answer", func() bool {
		b.sweepOnce(r)
		return len(b.responses()) > 0
	})
	b.sweepOnce(r)
	answers, letters := b.responses(), b.sink.deadLetters()
	if len(answers) != 1 || answers[0]["errorCode"] != string(tebra.OutcomeUnknown) {
		t.Errorf("answers = %v, want one of %s", answers, tebra.OutcomeUnknown)
	}
	if len(letters) != 1 || letters[0].Attributes[tebra.AttrReason] != string(tebra.OutcomeUnknown) {
		t.Errorf("dead letters = %v, want one of %s", letters, tebra.OutcomeUnknown)
	}
}

func TestALeasedRequestIsLeftToWhoHoldsIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publishOld("quick")
	book := ledger.New(b.rdb, b.keys, ledger.Config{})
	claim, err := book.Claim(t.Context(), b.delivery(b.sink.requests()[0], false))
	if err != nil {
		t.Fatal(err)
	}
	r := b.assemble()
	b.sweepOnce(r)
	b.ageNotes()
	b.sweepOnce(r)
	if got := len(b.responses()) + len(b.sink.deadLetters()); got != 0 {
		t.Errorf("%d answers and dead letters while leased, want none", got)
	}
	if err := book.Complete(t.Context(), claim, tebra.Response{Data: []byte(`{}`)}); err != nil {
		t.Fatalf("Complete() = %v", err)
	}
	b.sweepOnce(r)
	if answers := b.responses(); len(answers) != 1 || answers[0]["status"] != string(tebra.Success) {
		t.Errorf("answers = %v, want the success alone", answers)
	}
	if got := b.overdue(); len(got) != 0 {
		t.Errorf("notes = %v, want none: it is answered", got)
	}
}

func TestANoteIsDroppedOnceItsEntryIsNoLongerOpen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.publishOld("quick", "quick")
	r := b.assemble()
	b.sweepOnce(r)
	b.answer(tebra.DefaultLane, ids[0])
	b.sweepOnce(r)
	if got, want := b.overdue(), noteName(tebra.DefaultLane, ids[1]); len(got) != 1 || got[want] == "" {
		t.Errorf("notes = %v, want only %s", got, want)
	}
}

func TestNobodyIsAnsweredBeforeTheDeadLetterIsConfirmed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publishOld("quick")
	r := b.assemble()
	r.deps.Ledger = ledger.New(b.rdb, b.keys, ledger.Config{Lease: 100 * time.Millisecond})
	b.sweepOnce(r)
	b.ageNotes()
	b.sink.onPublish(refusing(deadLetterTopic, func(*pubsubpb.PubsubMessage) bool { return true }))
	if err := r.sweep(t.Context()); err == nil {
		t.Error("sweep() = nil, want the dead letter's error")
	}
	if got := len(b.responses()); got != 0 {
		t.Errorf("%d answers, want none", got)
	}
	b.sink.onPublish(nil)
	peertest.Eventually(t, wait, "the sweep's own lease to run out and it to answer", func() bool {
		b.sweepOnce(r)
		return len(b.responses()) == 1
	})
}

func TestWhatIsParkedOrUnreadOnlyWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.publishOld(slices.Repeat([]string{"slow"}, slowWindow)...)
	r := b.start()
	parked := b.addOld(1000, "slow")
	peertest.Eventually(t, wait, "one to be parked", func() bool { return b.waiting().Parked == 1 })
	r.stop(t)
	b.addOld(2000, "quick") // unread
	s := b.assemble()
	b.sweepOnce(s)
	if got := b.overdue(); len(got) != len(ids) || got[noteName("slow", parked)] != "" {
		t.Errorf("%d notes, one of the parked: %v; want %d, none of the parked", len(got), got[noteName("slow", parked)] != "", len(ids))
	}
	b.ageNotes()
	b.sweepOnce(s)
	if got := len(b.responses()); got != len(ids) {
		t.Errorf("%d answers, want %d: of those that were open", got, len(ids))
	}
}

func TestMoreOverdueThanAPageAreAllNoted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.assemble()
	if err := r.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	const all = 2*sweepPage + 7
	members := make([]redis.Z, all)
	for i := range members {
		at := time.Now().Add(-old).UnixMilli() + int64(i)
		members[i] = redis.Z{Score: float64(at), Member: strconv.FormatInt(at, 10) + "-0"}
	}
	if err := b.rdb.ZAdd(t.Context(), b.keys.Open("slow"), members...).Err(); err != nil {
		t.Fatal(err)
	}
	b.sweepOnce(r)
	if got := len(b.overdue()); got != all {
		t.Errorf("%d notes, want %d", got, all)
	}
}

func TestAnOverdueEntryWhoseContentsAreGoneIsDeadLetteredAndClosed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.publishOld("quick")[0]
	if err := b.rdb.XDel(t.Context(), b.keys.Requests(), id).Err(); err != nil {
		t.Fatal(err)
	}
	r := b.assemble()
	b.sweepOnce(r)
	b.ageNotes()
	b.sweepOnce(r)
	letters := b.sink.deadLetters()
	if len(letters) != 1 || letters[0].Attributes[tebra.AttrReason] != string(reasonTrimmed) {
		t.Errorf("dead letters = %v, want one with reason %s", letters, reasonTrimmed)
	}
	if err := b.rdb.ZScore(t.Context(), b.keys.Open(tebra.DefaultLane), id).Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("entry %s is still open (%v)", id, err)
	}
}

func TestALowerSizeLimitDoesNotKeepAnOldRequestFromItsAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := fmt.Sprintf("%d-1", time.Now().Add(-old).UnixMilli())
	fields := append(request("quick"), "unknown", string(make([]byte, 4000)))
	if err := b.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: b.keys.Requests(), ID: id, Values: fields}).Err(); err != nil {
		t.Fatal(err)
	}
	first := b.start()
	b.waitPublished([]string{id})
	b.waitSettled()
	first.stop(t)
	r := b.assemble("MAX_REQUEST_BYTES=1024")
	b.sweepOnce(r)
	b.ageNotes()
	b.sweepOnce(r)
	if answers := b.responses(); len(answers) != 1 || answers[0]["errorCode"] != string(tebra.NoAnswer) {
		t.Errorf("answers = %v, want one of %s", answers, tebra.NoAnswer)
	}
}

func TestTheSweepRunsByItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publishOld("quick")
	r := b.assemble()
	r.tidyEvery = 50 * time.Millisecond
	r.begin(t)
	peertest.Eventually(t, wait, "a note", func() bool { return len(b.overdue()) == 1 })
	b.ageNotes()
	peertest.Eventually(t, wait, "an answer", func() bool { return len(b.responses()) == 1 })
}

// TestADeadLetterThatCantBePublishedHidesNothingElse: that Redis is there again, or that
// it was cut short because the bridge stops.
func TestADeadLetterThatCantBePublishedHidesNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.assemble()
	duty := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	r.attempt(t.Context(), new(pulse), "sweeping", duty(io.ErrUnexpectedEOF))
	b.wantLines(slog.LevelWarn, "Redis can't be used", 1)
	stopping, stop := context.WithCancel(t.Context())
	stop()
	r.attempt(stopping, new(pulse), "sweeping", duty(undelivered{context.Canceled}))
	b.wantLines(slog.LevelWarn, "overdue requests can't be dead-lettered", 0)
	r.attempt(t.Context(), new(pulse), "sweeping", duty(undelivered{context.DeadlineExceeded}))
	b.wantLines(slog.LevelWarn, "overdue requests can't be dead-lettered", 1)
	b.wantLines(slog.LevelInfo, "trouble is over", 1)
}

func TestADeadLetterOfTheSweepThatCantBePublishedIsNoTroubleOfRedis(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publishOld("quick")
	b.sweepOnce(b.assemble())
	b.ageNotes()
	b.sink.onPublish(refusing(deadLetterTopic, func(*pubsubpb.PubsubMessage) bool { return true }))
	r := b.assemble()
	r.deps.Ledger = ledger.New(b.rdb, b.keys, ledger.Config{Lease: 100 * time.Millisecond})
	r.tidyEvery = 50 * time.Millisecond
	r.begin(t)
	b.waitLines(slog.LevelWarn, "overdue requests can't be dead-lettered", 1)
	b.sink.onPublish(nil)
	peertest.Eventually(t, wait, "an answer", func() bool { return len(b.responses()) == 1 })
	b.waitLines(slog.LevelInfo, "trouble is over", 1)
	b.wantLines(slog.LevelWarn, "Redis can't be used", 0)
	if r.shaken.Load() {
		t.Error("the bridge doubts that Redis has kept what it had, want it to know that it has")
	}
}
