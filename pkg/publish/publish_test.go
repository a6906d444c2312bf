package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"tebraproxy/pkg/tebra"
)

const topic = "projects/p/topics/t"

// broker is a topic of which a test decides what it takes. It sees each request
// as it would come over the wire.
type broker struct {
	mu       sync.Mutex
	requests []*pubsubpb.PublishRequest
	sizes    []int // of the requests, encoded
	took     []string
	decide   func(*pubsubpb.PublishRequest) (ids int, err error) // nil takes everything
}

func (b *broker) Publish(ctx context.Context, req *pubsubpb.PublishRequest, _ ...gax.CallOption) (*pubsubpb.PublishResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	wire, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	var seen pubsubpb.PublishRequest
	if err := proto.Unmarshal(wire, &seen); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests, b.sizes = append(b.requests, &seen), append(b.sizes, len(wire))
	ids := len(seen.Messages)
	if b.decide != nil {
		if ids, err = b.decide(&seen); err != nil {
			return nil, err
		}
	}
	for _, m := range seen.Messages[:min(ids, len(seen.Messages))] {
		b.took = append(b.took, string(m.Data))
	}
	return &pubsubpb.PublishResponse{MessageIds: make([]string, ids)}, nil
}

// refusing returns a rule under which a request with any of these messages in it
// is refused as a whole, as Pub/Sub does.
func refusing(bad ...string) func(*pubsubpb.PublishRequest) (int, error) {
	return func(req *pubsubpb.PublishRequest) (int, error) {
		for _, m := range req.Messages {
			if slices.Contains(bad, string(m.Data)) {
				return 0, status.Error(codes.InvalidArgument, "a message is not valid")
			}
		}
		return len(req.Messages), nil
	}
}

// batchOf returns a batch of messages m0, m1, ….
func batchOf(n int) (b Batch, names []string) {
	for i := range n {
		name := fmt.Sprintf("m%d", i)
		names = append(names, name)
		b.Add([]byte(name), &tebra.Envelope{EntryID: fmt.Sprintf("%d-0", i)})
	}
	return b, names
}

func TestABatchGoesOutInRequestsOfAThousandMessages(t *testing.T) {
	t.Parallel()
	for n, want := range map[int][]int{
		0: nil, 1: {1}, 999: {999}, 1000: {1000}, 1001: {1000, 1}, 2500: {1000, 1000, 500},
	} {
		b := &broker{}
		p := New(b, topic)
		batch, names := batchOf(n)
		for i, err := range p.Publish(t.Context(), &batch) {
			if err != nil {
				t.Errorf("Publish() of %d: message %d = %v, want nil", n, i, err)
			}
		}
		var got []int
		for _, r := range b.requests {
			got = append(got, len(r.Messages))
			if r.Topic != topic {
				t.Errorf("Publish() of %d: topic = %q, want %q", n, r.Topic, topic)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("Publish() of %d: messages a request = %v, want %v", n, got, want)
		}
		if !slices.Equal(b.took, names) {
			t.Errorf("Publish() of %d: the broker took %d messages, want all, in order", n, len(b.took))
		}
	}
}

func TestNoRequestIsLargerThanPubSubTakes(t *testing.T) {
	t.Parallel()
	const limit = 10_000_000 // Pub/Sub, "Quotas and limits": 10 MB a request
	for name, sizes := range map[string][]int{
		"many of a megabyte":        slices.Repeat([]int{1 << 20}, 25),
		"large after small":         {10, 8 << 20, 10, 8 << 20, 10},
		"each as large as may be":   {8 << 20, 8 << 20, 8 << 20},
		"just at the edge together": {4<<20 + 500_000, 4<<20 + 500_000, 4<<20 + 500_000, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &broker{}
			var batch Batch
			for _, size := range sizes {
				batch.Add(make([]byte, size), &tebra.Envelope{EntryID: "1-0", UserID: strings.Repeat("u", 256)})
			}
			for i, err := range New(b, topic).Publish(t.Context(), &batch) {
				if err != nil {
					t.Errorf("message %d = %v, want nil", i, err)
				}
			}
			if len(b.took) != len(sizes) {
				t.Errorf("the broker took %d messages, want %d", len(b.took), len(sizes))
			}
			if most := slices.Max(b.sizes); most > limit {
				t.Errorf("the largest request has %d bytes, want at most %d", most, limit)
			}
		})
	}
}

func TestOnlyWhatPubSubRefusesIsRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range [][]string{{"m0"}, {"m7"}, {"m3"}, {"m0", "m1"}, {"m1", "m6"}, {"m0", "m2", "m3", "m4", "m7"}} {
		b := &broker{decide: refusing(bad...)}
		p := New(b, topic)
		batch, names := batchOf(8)
		var refused, good []string
		var first []int64
		for i, err := range p.Publish(t.Context(), &batch) {
			var alone *RefusedError
			switch {
			case err == nil:
				good = append(good, names[i])
			case errors.As(err, &alone):
				refused = append(refused, names[i])
				first = append(first, alone.First)
			default:
				t.Errorf("refusing %v: message %d = %v, want nil or a RefusedError", bad, i, err)
			}
		}
		if !slices.Equal(refused, bad) {
			t.Errorf("refused = %v, want %v", refused, bad)
		}
		if !slices.Equal(b.took, good) {
			t.Errorf("refusing %v: the broker took %v, Publish() confirmed %v", bad, b.took, good)
		}
		for i, name := range refused {
			var again *RefusedError
			if err := p.One(t.Context(), []byte(name), tebra.Envelope{EntryID: "1-0"}); !errors.As(err, &again) || again.Last <= first[i] {
				t.Errorf("refusing %v: One(%s) = %+v, want a RefusedError with more taken than %d", bad, name, err, first[i])
			}
		}
	}
}

func TestATopicThatRefusesEverythingBlamesNoMessage(t *testing.T) {
	t.Parallel()
	for name, heals := range map[string]int{"for good": 1000, "for a while": 4} { // the fourth request is of one message
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			b := &broker{decide: func(req *pubsubpb.PublishRequest) (int, error) {
				if calls++; calls <= heals {
					return 0, status.Error(codes.InvalidArgument, "the resource name is not valid")
				}
				return len(req.Messages), nil
			}}
			batch, _ := batchOf(8)
			refused := 0
			for i, err := range New(b, topic).Publish(t.Context(), &batch) {
				var alone *RefusedError
				if !errors.As(err, &alone) {
					continue
				}
				refused++
				if alone.Last != alone.First {
					t.Errorf("message %d was refused at %d and at %d accepted ones, want the same", i, alone.First, alone.Last)
				}
			}
			if refused == 0 {
				t.Error("no message was refused, want some")
			}
		})
	}
}

func TestEveryOtherErrorMayBeTriedAgain(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.Unavailable, codes.NotFound, codes.PermissionDenied, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Internal} {
		b := &broker{decide: func(*pubsubpb.PublishRequest) (int, error) { return 0, status.Error(code, "no") }}
		batch, _ := batchOf(3)
		for i, err := range New(b, topic).Publish(t.Context(), &batch) {
			var alone *RefusedError
			if status.Code(err) != code || errors.As(err, &alone) {
				t.Errorf("%v: message %d = %v, want that code, not refused", code, i, err)
			}
		}
		if n := len(b.requests); n != 1 {
			t.Errorf("%v: %d requests, want 1: the caller decides when to try again", code, n)
		}
	}
}

func TestWhatABrokerDoesNotConfirmIsNotConfirmed(t *testing.T) {
	t.Parallel()
	for _, ids := range []int{0, 2, 4} {
		b := &broker{decide: func(*pubsubpb.PublishRequest) (int, error) { return ids, nil }}
		p := New(b, topic)
		batch, _ := batchOf(3)
		for i, err := range p.Publish(t.Context(), &batch) {
			if !errors.Is(err, errUnconfirmed) {
				t.Errorf("%d IDs for 3 messages: message %d = %v, want %v", ids, i, err, errUnconfirmed)
			}
		}
		if got := p.accepted.Load(); got != 0 {
			t.Errorf("%d IDs for 3 messages: %d accepted, want 0", ids, got)
		}
	}
}

func TestOneChunkThatFailsLeavesTheOthersConfirmed(t *testing.T) {
	t.Parallel()
	calls := 0
	b := &broker{decide: func(req *pubsubpb.PublishRequest) (int, error) {
		if calls++; calls == 2 {
			return 0, status.Error(codes.Unavailable, "no")
		}
		return len(req.Messages), nil
	}}
	batch, _ := batchOf(3 * MaxMessages)
	for i, err := range New(b, topic).Publish(t.Context(), &batch) {
		if failed := i/MaxMessages == 1; failed != (err != nil) {
			t.Fatalf("message %d = %v, want an error: %v", i, err, failed)
		}
	}
}

func TestNothingIsSentOnceTheContextHasEnded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := &broker{}
	if err := New(b, topic).One(ctx, []byte("m"), tebra.Envelope{EntryID: "1-0"}); status.Code(err) != codes.Canceled {
		t.Errorf("One() = %v, want code %v", err, codes.Canceled)
	}
}

// FuzzBatch holds the hand-made wire form against protobuf's own reading of it.
func FuzzBatch(f *testing.F) {
	f.Add([]byte(`{"id":"1"}`), "request", "user", "1-0", "default", int64(1))
	f.Add([]byte{}, "", "", "", "", int64(0))
	f.Add([]byte{0xff, 0}, strings.Repeat("é", 600), "\xff", "18446744073709551615-1", "a", int64(-5))
	f.Fuzz(func(t *testing.T, data []byte, request, user, entry, lane string, epoch int64) {
		env := tebra.Envelope{RequestID: request, UserID: user, EntryID: entry, Lane: lane, Epoch: fmt.Sprint(epoch)}
		b := &broker{}
		var batch Batch
		batch.Add(data, &env)
		batch.Add(nil, &tebra.Envelope{})
		for i, err := range New(b, topic).Publish(t.Context(), &batch) {
			if err != nil {
				t.Fatalf("message %d = %v, want nil", i, err)
			}
		}
		got := b.requests[0]
		want := &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{{Data: data, Attributes: env.Attributes()}, {}}}
		if len(got.ProtoReflect().GetUnknown()) > 0 || !proto.Equal(normal(got), normal(want)) {
			t.Errorf("the broker saw %v, want %v", got, want)
		}
	})
}

// normal leaves out the difference between an empty and no data.
func normal(r *pubsubpb.PublishRequest) *pubsubpb.PublishRequest {
	r = proto.CloneOf(r)
	for _, m := range r.Messages {
		if len(m.Data) == 0 {
			m.Data = nil
		}
	}
	return r
}
