package pump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"tebraproxy/pkg/push"
)

// The tests of this file run on synctest's clock, without network: what takes
// hours of backoff takes no time, and happens to the millisecond.

const (
	requests    = "projects/proj/topics/requests"
	deadLetters = "projects/proj/topics/dead-letters"
	worker      = "projects/proj/subscriptions/worker"
	inspect     = "projects/proj/subscriptions/inspect"
)

// endpoint answers pushes: a status, or an error in its place.
type endpoint func(ctx context.Context, m push.Message) (int, error)

func (e endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	m, err := push.Read(r, push.MaxBody)
	if err != nil {
		return nil, err
	}
	code, err := e(r.Context(), m)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: code, Body: http.NoBody, Request: r}, nil
}

func always(code int) endpoint {
	return func(context.Context, push.Message) (int, error) { return code, nil }
}

// engine is a broker with its services, but without a network.
type engine struct {
	t *testing.T
	*broker
	publisher  publisher
	subscriber subscriber
}

// newEngine makes the topics and the inspection subscription, too.
func newEngine(t *testing.T, e endpoint, options ...func(*Config)) *engine {
	t.Helper()
	cfg := Config{Log: slog.New(slog.DiscardHandler), Transport: e, MaxPushes: DefaultMaxPushes, MaxBytes: DefaultMaxBytes}
	for _, option := range options {
		option(&cfg)
	}
	b := newBroker(cfg)
	t.Cleanup(func() { b.stop(); b.wait() })
	n := &engine{t: t, broker: b, publisher: publisher{broker: b}, subscriber: subscriber{broker: b}}
	n.makeTopic(requests)
	n.makeTopic(deadLetters)
	n.subscribe(&pubsubpb.Subscription{Name: inspect, Topic: deadLetters, MessageRetentionDuration: durationpb.New(maxRetention)})
	return n
}

func (n *engine) makeTopic(name string) {
	n.t.Helper()
	if _, err := n.publisher.CreateTopic(n.t.Context(), &pubsubpb.Topic{Name: name}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *engine) subscribe(s *pubsubpb.Subscription) {
	n.t.Helper()
	if _, err := n.subscriber.CreateSubscription(n.t.Context(), s); err != nil {
		n.t.Fatal(err)
	}
}

func (n *engine) publish(topic string, data ...string) {
	n.t.Helper()
	r := &pubsubpb.PublishRequest{Topic: topic}
	for _, d := range data {
		r.Messages = append(r.Messages, &pubsubpb.PubsubMessage{Data: []byte(d), Attributes: map[string]string{"requestId": d}})
	}
	if _, err := n.publisher.Publish(n.t.Context(), r); err != nil {
		n.t.Fatal(err)
	}
}

func (n *engine) pull(name string) []*pubsubpb.ReceivedMessage {
	n.t.Helper()
	answer, err := n.subscriber.Pull(n.t.Context(), &pubsubpb.PullRequest{Subscription: name, MaxMessages: 10})
	if err != nil {
		n.t.Fatal(err)
	}
	return answer.ReceivedMessages
}

// holds is how many messages a subscription has.
func (n *engine) holds(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.subscriptions[name].held)
}

func (n *engine) wantEmpty() {
	n.t.Helper()
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.heldBytes != 0 {
		n.t.Errorf("heldBytes = %d, want 0", n.heldBytes)
	}
	for name, s := range n.subscriptions {
		if len(s.held)+len(s.waiting.items)+len(s.leases.items) != 0 {
			n.t.Errorf("%s holds %d, %d waiting, %d leased, want nothing", name, len(s.held), len(s.waiting.items), len(s.leases.items))
		}
	}
}

// production is the push subscription of DESIGN section 6.
func production() *pubsubpb.Subscription {
	return &pubsubpb.Subscription{
		Name: worker, Topic: requests, AckDeadlineSeconds: 120,
		PushConfig:               &pubsubpb.PushConfig{PushEndpoint: "http://worker.test/process"},
		MessageRetentionDuration: durationpb.New(24 * time.Hour),
		RetryPolicy:              &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(10 * time.Second), MaximumBackoff: durationpb.New(600 * time.Second)},
		DeadLetterPolicy:         &pubsubpb.DeadLetterPolicy{DeadLetterTopic: deadLetters, MaxDeliveryAttempts: 10},
	}
}

func without(change func(*pubsubpb.Subscription)) *pubsubpb.Subscription {
	s := production()
	change(s)
	return s
}

// pushLog records when what was pushed, in seconds since the log was made.
type pushLog struct {
	mu       sync.Mutex
	start    time.Time
	messages []push.Message
	at       []float64
}

func newPushLog() *pushLog { return &pushLog{start: time.Now()} }

// then records a push and hands it on.
func (l *pushLog) then(e endpoint) endpoint {
	return func(ctx context.Context, m push.Message) (int, error) {
		l.mu.Lock()
		l.messages, l.at = append(l.messages, m), append(l.at, time.Since(l.start).Seconds())
		l.mu.Unlock()
		return e(ctx, m)
	}
}

func (l *pushLog) wantAt(t *testing.T, want ...float64) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.at, want) {
		t.Errorf("pushed at %v seconds, want %v", l.at, want)
	}
}

func TestAMessageIsPushedAsItWasPublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pushed := newPushLog()
		n := newEngine(t, pushed.then(always(204)))
		n.subscribe(production())
		n.publish(requests, "hello")
		pushed.wantAt(t, 0)
		got := pushed.messages[0]
		want := push.Message{
			ID: got.ID, Data: []byte("hello"), Attributes: map[string]string{"requestId": "hello"},
			PublishTime: time.Now().UTC(), Subscription: worker, DeliveryAttempt: 1,
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("pushed %+v, want %+v", got, want)
		}
		n.wantEmpty()
	})
}

func TestAFailingPushIsRepeatedWithBackoffAndThenDeadLettered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pushed := newPushLog()
		n := newEngine(t, pushed.then(always(503)))
		n.subscribe(production())
		published := time.Now()
		n.publish(requests, "hello")

		time.Sleep(2430*time.Second - 1)
		if got := n.holds(inspect); got != 0 {
			t.Errorf("%d dead letters before the last attempt, want 0", got)
		}
		time.Sleep(time.Hour)
		pushed.wantAt(t, 0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430)
		for i, m := range pushed.messages {
			if m.DeliveryAttempt != i+1 || m.ID != pushed.messages[0].ID {
				t.Errorf("push %d has attempt %d of message %s, want %d of %s", i, m.DeliveryAttempt, m.ID, i+1, pushed.messages[0].ID)
			}
		}
		n.wantDeadLetter("hello", published)
		n.wantEmpty()
	})
}

// wantDeadLetter pulls the one dead letter and acknowledges it.
func (n *engine) wantDeadLetter(data string, published time.Time) {
	n.t.Helper()
	got := n.pull(inspect)
	if len(got) != 1 || string(got[0].Message.Data) != data {
		n.t.Fatalf("pulled %v, want one dead letter with data %q", got, data)
	}
	want := map[string]string{
		"requestId": data,
		"CloudPubSubDeadLetterSourceDeliveryCount":       "10",
		"CloudPubSubDeadLetterSourceSubscription":        "worker",
		"CloudPubSubDeadLetterSourceSubscriptionProject": "proj",
		"CloudPubSubDeadLetterSourceTopicPublishTime":    published.UTC().Format("2006-01-02T15:04:05.000") + "+00:00",
	}
	if !maps.Equal(got[0].Message.Attributes, want) {
		n.t.Errorf("attributes = %v, want %v", got[0].Message.Attributes, want)
	}
	if got[0].DeliveryAttempt != 0 {
		n.t.Errorf("DeliveryAttempt = %d, want none without a dead-letter policy", got[0].DeliveryAttempt)
	}
	n.acknowledge(n.subscriptions[inspect], got[0].AckId)
}

func TestTheAckDeadlineIsThePushTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pushed := newPushLog()
		n := newEngine(t, pushed.then(func(ctx context.Context, _ push.Message) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}))
		n.subscribe(production())
		n.publish(requests, "hello")
		time.Sleep(271 * time.Second)
		pushed.wantAt(t, 0, 120+10, 130+120+20)
	})
}

func TestAnAnswerAfterTheAckDeadlineDoesNotCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pushed := newPushLog()
		n := newEngine(t, pushed.then(func(context.Context, push.Message) (int, error) {
			time.Sleep(121 * time.Second)
			return 200, nil
		}))
		n.subscribe(production())
		n.publish(requests, "hello")
		time.Sleep(131 * time.Second)
		pushed.wantAt(t, 0, 130)
	})
}

func TestOnlySomeStatusesAcknowledge(t *testing.T) {
	t.Parallel()
	for code := 100; code < 600; code++ {
		want := slices.Contains([]int{102, 200, 201, 202, 204}, code)
		if got := acknowledges(code); got != want {
			t.Errorf("acknowledges(%d) = %v, want %v", code, got, want)
		}
	}
	for _, tt := range []struct {
		answer endpoint
		want   int
	}{{always(200), 0}, {always(102), 0}, {always(203), 1}, {always(429), 1}, {always(302), 1}, {failing, 1}} {
		synctest.Test(t, func(t *testing.T) {
			n := newEngine(t, tt.answer)
			n.subscribe(production())
			n.publish(requests, "hello")
			synctest.Wait()
			if got := n.holds(worker); got != tt.want {
				t.Errorf("after the push %d messages are held, want %d", got, tt.want)
			}
		})
	}
}

func failing(context.Context, push.Message) (int, error) { return 0, errors.New("connection refused") }

func TestWithoutPoliciesAPushIsRepeatedForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pushed := newPushLog()
		n := newEngine(t, pushed.then(always(500)))
		n.subscribe(without(func(s *pubsubpb.Subscription) { s.RetryPolicy, s.DeadLetterPolicy = nil, nil }))
		n.publish(requests, "hello")
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := pushed.at[:4]; fmt.Sprintf("%.1f", got) != "[0.0 0.1 0.3 0.7]" {
			t.Errorf("first pushes at %v, want 100 ms apart and doubling", got)
		}
		if last := pushed.at[len(pushed.at)-2:]; last[1]-last[0] < 59.9 || last[1]-last[0] > 60.1 {
			t.Errorf("last pushes at %v, want 60 s apart", last)
		}
		if m := pushed.messages[0]; m.DeliveryAttempt != 0 {
			t.Errorf("DeliveryAttempt = %d, want none without a dead-letter policy", m.DeliveryAttempt)
		}
	})
}

func TestASlowEndpointDelaysNoOtherSubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fast := newPushLog()
		n := newEngine(t, func(ctx context.Context, m push.Message) (int, error) {
			if m.Subscription != worker {
				return fast.then(always(200))(ctx, m)
			}
			<-ctx.Done()
			return 0, ctx.Err()
		}, func(c *Config) { c.MaxPushes = 2 })
		n.subscribe(production())
		n.subscribe(without(func(s *pubsubpb.Subscription) { s.Name += "-other" }))
		n.publish(requests, "1", "2", "3", "4", "5")
		fast.wantAt(t, 0, 0, 0, 0, 0)
	})
}

func TestPushesUnderWayAreBoundedAndInOrderOfPublishing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pushed := newPushLog()
		n := newEngine(t, pushed.then(func(context.Context, push.Message) (int, error) {
			time.Sleep(time.Second)
			return 200, nil
		}), func(c *Config) { c.MaxPushes = 3 })
		n.subscribe(production())
		n.publish(requests, "1", "2", "3", "4", "5", "6", "7", "8")
		time.Sleep(time.Minute)
		pushed.wantAt(t, 0, 0, 0, 1, 1, 1, 2, 2)
		first := []string{string(pushed.messages[0].Data), string(pushed.messages[1].Data), string(pushed.messages[2].Data)}
		slices.Sort(first)
		if !slices.Equal(first, []string{"1", "2", "3"}) {
			t.Errorf("pushed %v first, want 1, 2 and 3", first)
		}
		n.wantEmpty()
	})
}

func TestAMessageIsKeptUntilTheDeadLettersHaveIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pushed := newPushLog()
		n := newEngine(t, pushed.then(always(500)))
		n.subscribe(without(func(s *pubsubpb.Subscription) {
			s.RetryPolicy.MaximumBackoff = s.RetryPolicy.MinimumBackoff
			s.DeadLetterPolicy.MaxDeliveryAttempts = 5
		}))
		if err := n.deleteTopic(deadLetters); err != nil {
			t.Fatal(err)
		}
		n.publish(requests, "hello")
		time.Sleep(61 * time.Second)
		pushed.wantAt(t, 0, 10, 20, 30, 40, 50, 60)
		if got := pushed.messages[6].DeliveryAttempt; got != 7 {
			t.Errorf("DeliveryAttempt = %d, want it to go on to 7", got)
		}

		n.makeTopic(deadLetters)
		n.subscribe(&pubsubpb.Subscription{Name: inspect + "-2", Topic: deadLetters})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if worker, dead := n.holds(worker), n.holds(inspect+"-2"); worker != 0 || dead != 1 {
			t.Errorf("%d messages and %d dead letters, want 0 and 1", worker, dead)
		}
	})
}

func TestMessagesEndWithTheRetention(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := newEngine(t, always(500), func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		n.subscribe(without(func(s *pubsubpb.Subscription) {
			s.MessageRetentionDuration, s.DeadLetterPolicy = durationpb.New(10*time.Minute), nil
		}))
		n.subscribe(&pubsubpb.Subscription{Name: worker + "-unread", Topic: requests, MessageRetentionDuration: durationpb.New(10 * time.Minute)})
		for range 60 {
			n.publish(requests, "hello")
			time.Sleep(time.Minute)
		}
		if got := n.holds(worker + "-unread"); got != 10 {
			t.Errorf("a subscription that nobody reads holds %d messages, want those of the last 10 minutes", got)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if got := n.holds(worker); got != 0 {
			t.Errorf("%d messages older than the retention, want none", got)
		}
		if got := n.pull(worker + "-unread"); len(got) != 0 {
			t.Errorf("pulled %v, want nothing older than the retention", got)
		}
		n.wantEmpty()
		if !strings.Contains(log.String(), "older than the retention") {
			t.Errorf("log = %s, want a word about dropped messages", &log)
		}
	})
}

func TestWhatIsHeldIsBoundedAndGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		n := newEngine(t, func(context.Context, push.Message) (int, error) {
			<-open
			return 200, nil
		}, func(c *Config) { c.MaxBytes = 10 << 10 })
		n.subscribe(production())
		r := &pubsubpb.PublishRequest{Topic: requests, Messages: []*pubsubpb.PubsubMessage{{Data: make([]byte, 4<<10)}}}
		for i, want := range []codes.Code{codes.OK, codes.OK, codes.ResourceExhausted} {
			if _, err := n.publisher.Publish(t.Context(), r); status.Code(err) != want {
				t.Errorf("publish %d = %v, want %v", i, err, want)
			}
			r.Messages = []*pubsubpb.PubsubMessage{{Data: make([]byte, 4<<10)}}
		}
		close(open)
		n.wantEmpty()
		if _, err := n.publisher.Publish(t.Context(), r); err != nil {
			t.Errorf("publish after the acknowledgements = %v, want success", err)
		}
		n.wantEmpty()
	})
}

func TestMemoryDoesNotGrowWithWhatWasPublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newEngine(t, always(200))
		n.subscribe(production())
		for range 500 {
			n.publish(requests, "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
			synctest.Wait()
		}
		n.wantEmpty()
		if got := cap(n.subscriptions[worker].waiting.items); got > 100 {
			t.Errorf("the queue has room for %d messages after 5,000 went through one by one, want no growth", got)
		}
	})
}

func TestWhatWasPublishedBeforeTheSubscriptionIsNotDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pushed := newPushLog()
		n := newEngine(t, pushed.then(always(200)))
		n.publish(requests, "before")
		n.subscribe(production())
		n.publish(requests, "after")
		pushed.wantAt(t, 0)
		if got := string(pushed.messages[0].Data); got != "after" {
			t.Errorf("pushed %q, want only what came after", got)
		}
	})
}

func TestADeletedSubscriptionEndsItsPushesAndForgetsItsMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pushed := newPushLog()
		n := newEngine(t, pushed.then(func(ctx context.Context, _ push.Message) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}))
		n.subscribe(production())
		n.publish(requests, "1", "2")
		synctest.Wait()
		if _, err := n.subscriber.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: worker}); err != nil {
			t.Fatal(err)
		}
		n.publish(requests, "3")
		time.Sleep(time.Hour)
		pushed.wantAt(t, 0, 0)
		n.wantEmpty()
	})
}

func TestPulledMessagesAreLeased(t *testing.T) {
	t.Parallel()
	pullSubscription := func(n *engine) *subscription {
		n.subscribe(&pubsubpb.Subscription{Name: worker, Topic: requests, AckDeadlineSeconds: 30})
		n.publish(requests, "hello")
		return n.subscriptions[worker]
	}
	tests := []struct {
		name string
		do   func(n *engine, s *subscription, id string)
		want time.Duration // after which it can be pulled again; 0 for at once, -1 for never
	}{
		{"nothing", func(*engine, *subscription, string) {}, 30 * time.Second},
		{"ack", func(n *engine, s *subscription, id string) { n.acknowledge(s, id) }, -1},
		{"nack", func(n *engine, s *subscription, id string) { n.extend(s, 0, id) }, 0},
		{"ack after nack", func(n *engine, s *subscription, id string) { n.extend(s, 0, id); n.acknowledge(s, id) }, 0},
		{"extension", func(n *engine, s *subscription, id string) { n.extend(s, 100*time.Second, id) }, 100 * time.Second},
		{"another's ack", func(n *engine, s *subscription, id string) { n.acknowledge(s, id+"0", "", "x:1") }, 30 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newEngine(t, always(200))
				s := pullSubscription(n)
				first := n.pull(worker)
				if len(first) != 1 {
					t.Fatalf("pulled %v, want one message", first)
				}
				tt.do(n, s, first[0].AckId)
				if tt.want < 0 {
					n.wantEmpty()
					return
				}
				if tt.want > 0 {
					time.Sleep(tt.want - 1)
					n.takeCount(s, nil, 0)
				}
				again := n.pull(worker)
				if len(again) != 1 || again[0].Message.MessageId != first[0].Message.MessageId || again[0].AckId == first[0].AckId {
					t.Errorf("pulled %v, want the message again, as another delivery than %s", again, first[0].AckId)
				}
			})
		})
	}
}

func TestALeasedMessageIsNotPulledTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newEngine(t, always(200))
		n.subscribe(&pubsubpb.Subscription{Name: worker, Topic: requests})
		n.publish(requests, "hello")
		if first, second := n.pull(worker), n.pull(worker); len(first) != 1 || len(second) != 0 {
			t.Errorf("pulled %d, then %d, want 1, then 0", len(first), len(second))
		}
	})
}

func TestPulledMessagesAreCountedAndDeadLetteredToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newEngine(t, always(200))
		n.subscribe(without(func(s *pubsubpb.Subscription) { s.PushConfig, s.RetryPolicy = nil, nil }))
		published := time.Now()
		n.publish(requests, "hello")
		for attempt := range int32(10) {
			got := n.pull(worker)
			if len(got) != 1 || got[0].DeliveryAttempt != attempt+1 {
				t.Fatalf("pulled %v, want attempt %d", got, attempt+1)
			}
			n.extend(n.subscriptions[worker], 0, got[0].AckId)
		}
		n.wantDeadLetter("hello", published)
		n.wantEmpty()
	})
}

func TestAStreamGetsNoMoreThanItAskedFor(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		w    window
		want int
	}{
		{"no limit", window{}, 5},
		{"two messages", window{maxMessages: 2}, 2},
		{"bytes for three", window{maxBytes: 2*(overhead+20) + 1}, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newEngine(t, always(200))
				n.subscribe(&pubsubpb.Subscription{Name: worker, Topic: requests})
				s := n.subscriptions[worker]
				n.publish(requests, "12345", "12345", "12345", "12345", "12345")
				n.takeCount(s, &tt.w, tt.want)
				n.takeCount(s, &tt.w, 0)
				time.Sleep(time.Minute) // the leases run out, and with them what the window holds
				n.takeCount(s, &tt.w, tt.want)
			})
		})
	}
}

func (n *engine) takeCount(s *subscription, w *window, want int) {
	n.t.Helper()
	if got := len(n.take(s, 100, time.Minute, w).messages); got != want {
		n.t.Errorf("took %d messages, want %d", got, want)
	}
}
