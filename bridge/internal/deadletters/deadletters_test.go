package deadletters

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/tebra"
)

func TestListLeavesEverythingWhereItWas(t *testing.T) {
	t.Parallel()
	onEveryPubSub(t, func(b *bundle) {
		const n = 120 // some pages
		var want []string
		for range n {
			r, _ := b.fail("getProviders", tebra.DeadLettered)
			want = append(want, r.ID)
		}
		before := b.dump()
		b.deps.Subscriber = b.sub // as in production
		first, second := b.list(), b.list()
		if len(first) != n || !slices.Equal(ids(first), ids(second)) {
			b.Fatalf("List() = %d letters and then %d, want the same %d both times", len(first), len(second), n)
		}
		if !maps.Equal(before, b.dump()) {
			b.Error("List() changed something in Redis")
		}
		var progress []int
		report, err := b.queue().Replay(b.Context(), Filter{}, ReplayOptions{Progress: func(done, total int) {
			progress = append(progress, done, total)
		}})
		if err != nil || report.Count(Replayed) != n || report.More {
			b.Fatalf("Replay() = %d of %d replayed, more %v, %v, want all", report.Count(Replayed), len(report.Results), report.More, err)
		}
		if want := []int{50, n, 100, n, n, n}; !slices.Equal(progress, want) {
			b.Errorf("progress = %v, want %v", progress, want)
		}
		got := b.entries()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			b.Errorf("the stream holds %v, want each request once", got)
		}
		if left := b.list(); len(left) > 0 {
			b.Errorf("%d letters are left, want none", len(left))
		}
	})
}

func TestALetterSaysEverythingButItsContents(t *testing.T) {
	t.Parallel()
	onEveryPubSub(t, func(b *bundle) {
		_, policy := b.fail("getPatient", tebra.DeadLettered)
		_, ours := b.fail("createAppointment", tebra.OutcomeUnknown)
		entry := b.reject()
		b.publish([]byte("\xff"+secret), tebra.Envelope{})
		want := map[string]Letter{
			policy.Envelope.EntryID: {Kind: Request, Reason: string(tebra.DeadLettered)},
			ours.Envelope.EntryID:   {Kind: Request, Reason: string(tebra.OutcomeUnknown)},
			entry:                   {Kind: Rejected, Reason: string(tebra.Malformed), Problem: "field userId: is missing", Bytes: 321},
			"":                      {Kind: Foreign, Reason: Unreadable},
		}
		letters := b.list()
		if len(letters) != len(want) {
			b.Fatalf("List() = %d letters, want %d", len(letters), len(want))
		}
		for _, l := range letters {
			w := want[l.Envelope.EntryID]
			if l.Kind != w.Kind || l.Reason != w.Reason || l.Problem != w.Problem || (w.Bytes > 0 && l.Bytes != w.Bytes) || l.Bytes == 0 {
				b.Errorf("letter %+v, want %+v", l, w)
			}
			if Meaning(l.Reason) == "" || !slices.Contains(Reasons(), l.Reason) {
				b.Errorf("reason %q has no meaning, or is not listed", l.Reason)
			}
			if strings.Contains(fmt.Sprintf("%+v", l), "Jane") {
				b.Errorf("a listed letter holds contents: %+v", l)
			}
		}
	})
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	b := onPump(t)
	b.fail("getPatient", tebra.DeadLettered)
	b.fail("getProviders", tebra.BadResponse)
	b.reject()
	start := b.list()[0].PublishedAt
	for _, test := range []struct {
		filter Filter
		want   int
	}{
		{Filter{}, 3},
		{Filter{Reason: string(tebra.BadResponse)}, 1},
		{Filter{Action: "getPatient"}, 1},
		{Filter{Action: "getPatient", Reason: string(tebra.BadResponse)}, 0},
		{Filter{Since: start}, 3},
		{Filter{Since: start.Add(time.Hour)}, 0},
	} {
		found, err := b.queue().List(b.Context(), test.filter)
		if err != nil || len(found.Letters) != test.want || found.Seen != 3 {
			b.Errorf("List(%+v) = %d of %d letters, %v, want %d of 3", test.filter, len(found.Letters), found.Seen, err, test.want)
		}
	}
}

func TestListIsBoundedAndSaysSo(t *testing.T) {
	t.Parallel()
	b := onPump(t)
	for range 5 {
		b.fail("getProviders", tebra.DeadLettered)
	}
	few := b.cfg
	few.MaxLetters = 3
	found, err := New(few, b.deps).List(b.Context(), Filter{})
	if err != nil || len(found.Letters) != 3 || !found.More {
		b.Errorf("List() = %d letters, more %v, %v, want 3 and more", len(found.Letters), found.More, err)
	}
	small := b.cfg
	small.MaxBytes = 1
	report, err := New(small, b.deps).Replay(b.Context(), Filter{}, ReplayOptions{DryRun: true})
	if err != nil || len(report.Results) != 1 || !report.More {
		b.Errorf("Replay() = %d letters, more %v, %v, want 1 and more", len(report.Results), report.More, err)
	}
	if got := len(b.list()); got != 5 {
		b.Errorf("%d letters afterwards, want 5", got)
	}
}

func TestInterruptedListGivesEverythingBackAtOnce(t *testing.T) {
	t.Parallel()
	onEveryPubSub(t, func(b *bundle) {
		for range 60 {
			b.fail("getProviders", tebra.DeadLettered)
		}
		ctx, cancel := context.WithCancel(b.Context())
		interrupted := *b
		interrupted.deps.Subscriber = &fault{Subscriber: prompt{b.sub}, beforePull: func(n int) {
			if n == 2 {
				cancel()
			}
		}}
		found, err := interrupted.queue().List(ctx, Filter{})
		if !errors.Is(err, context.Canceled) || len(found.Letters) == 0 {
			b.Errorf("List() = %d letters, %v, want some and context.Canceled", len(found.Letters), err)
		}
		if got := len(b.list()); got != 60 {
			b.Errorf("%d letters afterwards, want 60", got)
		}
	})
}

func TestNoSubscriptionIsToldAsSuch(t *testing.T) {
	t.Parallel()
	onEveryPubSub(t, func(b *bundle) {
		b.cfg.Subscription += "-elsewhere"
		if _, err := b.queue().List(b.Context(), Filter{}); !errors.Is(err, ErrNoSubscription) {
			b.Errorf("List() = %v, want ErrNoSubscription", err)
		}
	})
}

func TestAReplayInterruptedBeforeItsAcknowledgementMakesNoWriteTwice(t *testing.T) {
	t.Parallel()
	onEveryPubSub(t, func(b *bundle) {
		r, d := b.fail("createAppointment", tebra.DeadLettered)
		failing := *b
		lost := errors.New("the machine is gone")
		failing.deps.Subscriber = &fault{Subscriber: prompt{b.sub}, acknowledge: lost}
		report, err := failing.queue().Replay(b.Context(), Filter{}, ReplayOptions{})
		if !errors.Is(err, lost) || report.Count(Replayed) != 1 {
			b.Fatalf("Replay() = %+v, %v, want one replayed and the error of its acknowledgement", report.Results, err)
		}
		entry := report.Results[0].EntryID
		made := d
		made.Envelope.EntryID, made.Envelope.Reason = entry, ""
		claim, err := b.ledger.Claim(b.Context(), made)
		b.must(err)
		if claim.Verdict != ledger.Run {
			b.Fatalf("the replayed entry's claim = %s, want run", claim.Verdict)
		}
		b.must(b.ledger.Start(b.Context(), claim, time.Second))
		b.must(b.ledger.Complete(b.Context(), claim, tebra.Response{Data: []byte(`{"id":1}`)}))

		dry, err := b.queue().Replay(b.Context(), Filter{}, ReplayOptions{DryRun: true})
		if err != nil || dry.Count(WouldAcknowledge) != 1 {
			b.Errorf("dry run = %+v, %v, want the letter to be found as replayed", dry.Results, err)
		}
		again, err := b.queue().Replay(b.Context(), Filter{}, ReplayOptions{Force: true})
		if err != nil || again.Count(Acknowledged) != 1 || again.Results[0].EntryID != entry {
			b.Errorf("second Replay() = %+v, %v, want it only acknowledged, as %s", again.Results, err, entry)
		}
		if got := b.entries(); !slices.Equal(got, []string{r.ID}) {
			b.Errorf("the stream holds %v, want %s once", got, r.ID)
		}
		if left := b.list(); len(left) > 0 {
			b.Errorf("%d letters are left, want none", len(left))
		}
	})
}

// counting is a ledger that fails after some replays.
type counting struct {
	Ledger
	left int
	then func()
}

func (c *counting) Replay(ctx context.Context, r ledger.Replay) (ledger.Replayed, error) {
	if c.left--; c.left == 0 {
		c.then()
	}
	return c.Ledger.Replay(ctx, r)
}

func TestAReplayInterruptedInTheMiddleIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	onEveryPubSub(t, func(b *bundle) {
		const n = 60
		for range n {
			b.fail("getProviders", tebra.DeadLettered)
		}
		ctx, cancel := context.WithCancel(b.Context())
		interrupted := *b
		interrupted.deps.Ledger = &counting{b.ledger, 20, cancel}
		report, err := interrupted.queue().Replay(ctx, Filter{}, ReplayOptions{})
		if !errors.Is(err, context.Canceled) || report.Count(Replayed) != 19 || report.Count(Undone) != n-19 {
			b.Fatalf("Replay() = %d replayed, %d not, %v, want 19, %d and context.Canceled", report.Count(Replayed), report.Count(Undone), err, n-19)
		}
		if got := len(b.list()); got != n-19 {
			b.Errorf("%d letters are left, want those that were not replayed, %d", got, n-19)
		}
		report, err = b.queue().Replay(b.Context(), Filter{}, ReplayOptions{})
		if err != nil || report.Count(Replayed, Acknowledged) != n-19 {
			b.Errorf("second Replay() = %d done, %v, want %d", report.Count(Replayed, Acknowledged), err, n-19)
		}
		got := b.entries()
		slices.Sort(got)
		if len(slices.Compact(got)) != n {
			b.Errorf("the stream holds %d different requests, want %d", len(got), n)
		}
	})
}

func TestAWriteOfUnknownOutcomeIsReplayedByForceOnly(t *testing.T) {
	t.Parallel()
	onEveryPubSub(t, func(b *bundle) {
		r, _ := b.fail("updateAppointment", tebra.OutcomeUnknown)
		b.fail("getProviders", tebra.BadResponse)
		report, err := b.queue().Replay(b.Context(), Filter{Reason: string(tebra.OutcomeUnknown)}, ReplayOptions{})
		if err != nil || len(report.Results) != 1 || report.Results[0].Refusal != ledger.NeedsForce || report.Results[0].Why == "" {
			b.Fatalf("Replay() = %+v, %v, want it refused for want of force", report.Results, err)
		}
		if len(b.entries()) > 0 || len(b.audit()) > 0 || len(b.list()) != 2 {
			b.Errorf("a refused replay left %v on the stream, %v on record and %d letters, want none, none and 2", b.entries(), b.audit(), len(b.list()))
		}
		report, err = b.queue().Replay(b.Context(), Filter{}, ReplayOptions{Force: true})
		if err != nil || report.Count(Replayed) != 2 {
			b.Fatalf("Replay() by force = %+v, %v, want both replayed", report.Results, err)
		}
		for _, a := range b.audit() {
			want := tebra.Allowed
			if a.RequestID == r.ID {
				want = tebra.Forced
			}
			if a.Decision != want || a.Operation != tebra.DeadLetterReplayed || a.Operator != "ada@desk" || a.Action == "" || a.CorrelationID == "" ||
				a.LetterID == "" || a.EntryID == "" {
				b.Errorf("on record is %+v, want decision %s and who did what", a, want)
			}
		}
	})
}

func TestWhatCannotBeReplayedStaysWhereItWas(t *testing.T) {
	t.Parallel()
	b := onPump(t)
	b.reject()
	b.publish([]byte("?"), tebra.Envelope{})
	_, d := b.fail("createAppointment", tebra.DeadLettered)
	succeeded := d
	b.must(b.rdb.HSet(b.Context(), b.keys.Ledger(succeeded.Envelope.Ledger), "outcome", "").Err())
	_, unknownAction := b.delivery("deleteEverything") // no policy here says that it only reads
	_, _ = unknownAction, succeeded
	b.publish(tebra.Request{
		ID: "request-x", CorrelationID: "c", Action: "deleteEverything", UserID: "u", Params: []byte(`{}`),
	}.AppendJSON(nil), tebra.Envelope{
		RequestID: "request-x", CorrelationID: "c", Action: "deleteEverything", UserID: "u", EntryID: "7-1", Lane: "default",
		Ledger: tebra.LedgerHash("u", "request-x"), Epoch: "e", AdmittedAt: time.Now(), Reason: tebra.NoAnswer,
	})
	b.deps.IsWrite = func(action string) bool { return action == "createAppointment" || action == "deleteEverything" }
	report, err := b.queue().Replay(b.Context(), Filter{}, ReplayOptions{})
	want := map[string]ledger.Refusal{
		"5-1": NotARequest, "": NotARequest, d.Envelope.EntryID: ledger.Succeeded, "7-1": ledger.NeedsForce,
	}
	if err != nil || report.Count(Refused) != len(want) {
		b.Fatalf("Replay() = %+v, %v, want %d refused", report.Results, err, len(want))
	}
	for _, r := range report.Results {
		if r.Refusal != want[r.Letter.Envelope.EntryID] || r.Why == "" {
			b.Errorf("letter of %q: refused as %q (%s), want %q", r.Letter.Envelope.EntryID, r.Refusal, r.Why, want[r.Letter.Envelope.EntryID])
		}
	}
	if got := len(b.list()); got != len(want) || len(b.entries()) > 0 {
		b.Errorf("%d letters are left and %v is on the stream, want %d and nothing", got, b.entries(), len(want))
	}
}

func TestADryRunChangesNothing(t *testing.T) {
	t.Parallel()
	onEveryPubSub(t, func(b *bundle) {
		b.fail("createAppointment", tebra.DeadLettered)
		b.fail("updateAppointment", tebra.OutcomeUnknown)
		b.fail("getProviders", tebra.NoAnswer)
		b.reject()
		letters, before := ids(b.list()), b.dump()
		for _, force := range []bool{false, true} {
			report, err := b.queue().Replay(b.Context(), Filter{}, ReplayOptions{DryRun: true, Force: force})
			want := 2
			if force {
				want = 3
			}
			if err != nil || report.Count(WouldReplay) != want || report.Count(Refused) != 4-want {
				b.Errorf("dry run (force %v) = %+v, %v, want %d that would be replayed", force, report.Results, err, want)
			}
		}
		if !maps.Equal(before, b.dump()) {
			b.Error("a dry run changed something in Redis")
		}
		if got := ids(b.list()); !slices.Equal(got, letters) {
			b.Errorf("letters = %v, want %v", got, letters)
		}
	})
}

func TestDropRecordsAndTakesOffOnlyWhatIsNamed(t *testing.T) {
	t.Parallel()
	onEveryPubSub(t, func(b *bundle) {
		_, keep := b.fail("getProviders", tebra.DeadLettered)
		r, give := b.fail("createAppointment", tebra.OutcomeUnknown)
		id := b.letterOf(give.Envelope.EntryID)
		report, err := b.queue().Drop(b.Context(), []string{id, "12345", id})
		if err != nil || report.Count(Dropped) != 1 || report.Count(Missing) != 1 || len(report.Results) != 2 {
			b.Fatalf("Drop() = %+v, %v, want one dropped and one not found", report.Results, err)
		}
		left := b.list()
		if len(left) != 1 || left[0].Envelope.EntryID != keep.Envelope.EntryID {
			b.Errorf("letters = %+v, want that of %s alone", left, keep.Envelope.EntryID)
		}
		a := b.audit()
		if len(a) != 1 || a[0].RequestID != r.ID || a[0].Operation != tebra.DeadLetterDropped || a[0].Reason != string(tebra.OutcomeUnknown) {
			b.Errorf("on record is %+v, want the drop of %s", a, r.ID)
		}
		if len(b.entries()) > 0 {
			b.Errorf("the stream holds %v, want nothing", b.entries())
		}
	})
}

func TestContentsAreShownOnRequestAndOnRecordOnly(t *testing.T) {
	t.Parallel()
	b := onPump(t)
	r, d := b.fail("getPatient", tebra.DeadLettered)
	entry := b.reject()
	id, rejected := b.letterOf(d.Envelope.EntryID), b.letterOf(entry)
	detail, err := b.queue().Show(b.Context(), id, false)
	if err != nil || detail.Payload != nil || detail.Forecast.Outcome != WouldReplay || strings.Contains(fmt.Sprintf("%+v", detail), "Jane") {
		b.Errorf("Show() = %+v, %v, want the letter without contents, and that it would be replayed", detail, err)
	}
	if len(b.audit()) > 0 {
		b.Errorf("on record is %+v, want nothing yet", b.audit())
	}
	detail, err = b.queue().Show(b.Context(), id, true)
	if err != nil || detail.Payload == nil || string(detail.Payload.Params) != string(r.Params) {
		b.Errorf("Show() with contents = %+v, %v, want the params", detail, err)
	}
	detail, err = b.queue().Show(b.Context(), rejected, true)
	if err != nil || detail.Payload == nil || len(detail.Payload.Fields) != 2 || detail.Forecast.Refusal != NotARequest {
		b.Errorf("Show() of a rejected entry = %+v, %v, want its fields", detail, err)
	}
	a := b.audit()
	if len(a) != 2 || a[0].Operation != tebra.PayloadsShown || a[0].RequestID != r.ID || a[1].RequestID != "rejected-1" {
		b.Errorf("on record is %+v, want who saw what", a)
	}
	if _, err := b.queue().Show(b.Context(), "12345", true); !errors.Is(err, ErrNotFound) {
		b.Errorf("Show() of no letter = %v, want ErrNotFound", err)
	}
	if got := len(b.list()); got != 2 {
		b.Errorf("%d letters afterwards, want 2", got)
	}
}

func TestNothingIsDoneThatCannotBePutOnRecord(t *testing.T) {
	t.Parallel()
	b := onPump(t)
	_, d := b.fail("getPatient", tebra.DeadLettered)
	id := b.letterOf(d.Envelope.EntryID)
	full := errors.New("Redis is full")
	blind := *b
	blind.deps.Auditor = brokenAuditor{full}
	if detail, err := blind.queue().Show(b.Context(), id, true); !errors.Is(err, full) || detail.Payload != nil {
		b.Errorf("Show() = %+v, %v, want no contents and the error", detail, err)
	}
	if report, err := blind.queue().Drop(b.Context(), []string{id}); !errors.Is(err, full) || report.Count(Undone) != 1 {
		b.Errorf("Drop() = %+v, %v, want it not done and the error", report.Results, err)
	}
	if report, err := blind.queue().Replay(b.Context(), Filter{}, ReplayOptions{}); !errors.Is(err, full) || report.Count(Undone) != 1 {
		b.Errorf("Replay() = %+v, %v, want it not done and the error", report.Results, err)
	}
	if len(b.list()) != 1 || len(b.entries()) > 0 {
		b.Errorf("%d letters are left and %v is on the stream, want 1 and nothing", len(b.list()), b.entries())
	}
}

func TestAReplayThatABridgeWouldRejectForItsSizeIsRefused(t *testing.T) {
	t.Parallel()
	b := onPump(t)
	_, d := b.fail("getPatient", tebra.DeadLettered)
	id := b.letterOf(d.Envelope.EntryID)
	held := b.queue()
	h := held.hold(b.Context())
	letters, _, err := held.collect(b.Context(), h, Filter{IDs: []string{id}})
	h.release(b.Context(), &err)
	if err != nil || len(letters) != 1 {
		b.Fatalf("collect() = %d letters, %v, want the one", len(letters), err)
	}
	size := held.wish(letters[0], false).Bytes()
	b.cfg.MaxRequestBytes = size + spare - 1
	for range 2 {
		report, err := b.queue().Replay(b.Context(), Filter{}, ReplayOptions{})
		if err != nil || report.Count(Refused) != 1 || report.Results[0].Refusal != TooLarge || report.Results[0].Why == "" {
			b.Fatalf("Replay() = %+v, %v, want it refused as too large", report.Results, err)
		}
	}
	if len(b.entries()) > 0 || len(b.audit()) > 0 {
		b.Errorf("a refused replay left %v on the stream and %v on record, want nothing", b.entries(), b.audit())
	}
	report, err := b.queue().Replay(b.Context(), Filter{}, ReplayOptions{DryRun: true, Force: true})
	if err != nil || report.Count(WouldReplay) != 1 || !report.Results[0].Forced {
		b.Errorf("Replay() by force would be %+v, %v, want it replayed", report.Results, err)
	}
	b.cfg.MaxRequestBytes++
	report, err = b.queue().Replay(b.Context(), Filter{}, ReplayOptions{})
	if err != nil || report.Count(Replayed) != 1 || report.Results[0].Forced {
		b.Fatalf("Replay() of one that fits = %+v, %v, want it replayed", report.Results, err)
	}
	messages, err := b.rdb.XRange(b.Context(), b.keys.Requests(), "-", "+").Result()
	b.must(err)
	got := 0
	for name, value := range messages[0].Values {
		got += len(name) + len(value.(string))
	}
	if got != size {
		b.Errorf("the new entry has %d bytes, want the %d that were counted", got, size)
	}
}

func TestADropThatFailsMidwayTellsWhatIsGone(t *testing.T) {
	t.Parallel()
	b := onPump(t)
	for range 2*batch + 5 {
		b.fail("getProviders", tebra.DeadLettered)
	}
	all := ids(b.list())
	failing, lost := *b, errors.New("the machine is gone")
	failing.deps.Subscriber = &fault{Subscriber: prompt{b.sub}, acknowledge: lost, failFrom: 2}
	report, err := failing.queue().Drop(b.Context(), all)
	if !errors.Is(err, lost) || report.Count(Dropped) != batch || report.Count(Unsure) != batch || report.Count(Undone) != 5 {
		b.Fatalf("Drop() = %d dropped, %d unknown, %d not done, %v, want %d, %d, 5 and the error", report.Count(Dropped),
			report.Count(Unsure), report.Count(Undone), err, batch, batch)
	}
	left := ids(b.list())
	for _, r := range report.Results {
		if slices.Contains(left, r.Letter.ID) == (r.Outcome == Dropped) {
			b.Errorf("letter %s is said to be %s, and is left: %v", r.Letter.ID, r.Outcome, r.Outcome != Dropped)
		}
	}
	if got := len(b.audit()); got != 2*batch {
		b.Errorf("%d drops are on record, want those that were tried, %d", got, 2*batch)
	}
}
