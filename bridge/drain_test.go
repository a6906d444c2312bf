package bridge

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

func TestADrainEmptiesTheStreamAndWaitsForEveryPublish(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	b.sink.onPublish(func(ctx context.Context, _ *pubsubpb.PublishRequest) error { return pass(ctx, 100*time.Millisecond) })
	ids := append(b.add(300, "quick"), b.add(60, "slow")...)
	bad := b.addFields("id", "bad", "nonsense", "x")
	b.answerPublished("slow", time.Millisecond)
	r := b.assemble("BATCH_SIZE=50")
	if err := r.Drain(t.Context(), wait); err != nil {
		t.Fatalf("Drain() = %v, want nil", err)
	}
	if missing := b.sink.missing(ids); len(missing) != 0 {
		t.Errorf("Drain() returned before %d entries were published", len(missing))
	}
	if w := b.waiting(); !w.Idle() {
		t.Errorf("waiting = %+v after a drain, want nothing", w)
	}
	if letters := b.sink.deadLetters(); len(letters) != 1 || letters[0].Attributes[tebra.AttrEntryID] != bad {
		t.Errorf("dead letters = %v, want one of %s", letters, bad)
	}
	if got := b.consumers(); len(got) != 0 {
		t.Errorf("consumers = %v, want none: it has left", got)
	}
	b.checkPromises(ids)
}

func TestADrainOfNothingEndsSoon(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := time.Now()
	if err := b.assemble().Drain(t.Context(), wait); err != nil {
		t.Fatalf("Drain() = %v, want nil", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Drain() of nothing took %v, want about a second", took)
	}
}

func TestADrainTakesOverWhatAnotherLeftInHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := stream.New(b.rdb, b.keys)
	if _, err := s.EnsureGroups(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids := b.add(20, "quick")
	if _, err := s.Read(t.Context(), "dead", 20, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := b.assemble("CLAIM_IDLE=1s").Drain(t.Context(), wait); err != nil {
		t.Fatalf("Drain() = %v, want nil", err)
	}
	b.checkPromises(ids)
}

func TestADrainThatCantPublishSaysWhatIsLeftAndWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.onPublish(func(context.Context, *pubsubpb.PublishRequest) error {
		return status.Error(codes.PermissionDenied, "the account may not publish")
	})
	ids := b.add(1000, "quick")
	err := b.assemble("BATCH_SIZE=50").Drain(t.Context(), 2*time.Second)
	var left *LeftError
	if !errors.As(err, &left) || left.Waiting == nil {
		t.Fatalf("Drain() = %v, want a LeftError with what waits", err)
	}
	if w := left.Waiting; int(w.Lag)+int(w.InHand) != len(ids) || w.Parked != 0 {
		t.Errorf("left = %+v, want all %d unread or in hand", w, len(ids))
	}
	for _, want := range []string{"unread", "in a bridge's hand", "may not publish"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Drain() = %q, want it to say %q", err, want)
		}
	}
	b.checkStopped(ids)
}

func TestADrainWithParkedRequestsThatNobodyAnswersSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(slowWindow+12, "slow")
	err := b.assemble().Drain(t.Context(), 2*time.Second)
	var left *LeftError
	if !errors.As(err, &left) || left.Waiting == nil || left.Waiting.Parked != 12 || left.Waiting.Unread {
		t.Fatalf("Drain() = %v, want 12 parked", err)
	}
	if want := "12 are parked"; !strings.Contains(err.Error(), want) {
		t.Errorf("Drain() = %q, want it to say %q", err, want)
	}
}

func TestADrainWithoutRedisSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.assemble("REDIS_URL=redis://user:secret@127.0.0.1:1")
	err := r.Drain(t.Context(), time.Second)
	var left *LeftError
	if !errors.As(err, &left) || left.Waiting != nil {
		t.Fatalf("Drain() = %v, want a LeftError that knows nothing", err)
	}
	for _, want := range []string{"Redis", "connection refused"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Drain() = %q, want it to say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("Drain() = %q, want no password in it", err)
	}
}

func TestADrainThatIsToldToStopStopsInTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hook, _, release := stuck()
	defer release()
	b.sink.onPublish(hook)
	ids := b.add(10, "quick")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	err := b.assemble().Drain(ctx, time.Hour)
	var left *LeftError
	if !errors.As(err, &left) {
		t.Errorf("Drain() = %v, want a LeftError", err)
	}
	if took := time.Since(began); took > inTime {
		t.Errorf("Drain() took %v, want at most %v", took, inTime)
	}
	b.checkStopped(ids)
}
