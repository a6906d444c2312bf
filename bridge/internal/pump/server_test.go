package pump

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"go.uber.org/goleak"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/push"
)

// The tests of this file go through Google's client and real HTTP.

// TestMain checks that nothing of the server outlives its Close. Two goroutines of
// Google's client are let pass: one that a package of its starts for the life of
// the process, and one that looks only every 10 s whether its stream has ended.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
		goleak.IgnoreTopFunction("cloud.google.com/go/pubsub/v2.(*messageIterator).streamKeepAliveHandler"))
}

// patience is when a test takes something for stuck, not what it may take.
const patience = time.Minute

func startServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// connect returns Google's client for s, with the topics and the inspection
// subscription made.
func connect(t testing.TB, s *Server) *pubsub.Client {
	t.Helper()
	client, err := pubsub.NewClient(t.Context(), "proj", option.WithEndpoint(s.Addr()), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	for _, name := range []string{requests, deadLetters} {
		if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	create(t, client, &pubsubpb.Subscription{Name: inspect, Topic: deadLetters, MessageRetentionDuration: durationpb.New(maxRetention)})
	return client
}

func create(t testing.TB, client *pubsub.Client, s *pubsubpb.Subscription) *pubsubpb.Subscription {
	t.Helper()
	created, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func pushTo(url string) *pubsubpb.Subscription {
	s := production()
	s.PushConfig.PushEndpoint = url
	s.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(0), MaximumBackoff: durationpb.New(0)}
	return s
}

func serve(t testing.TB, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

func publishAll(t testing.TB, client *pubsub.Client, n int) {
	t.Helper()
	publisher := client.Publisher(requests)
	defer publisher.Stop()
	results := make([]*pubsub.PublishResult, n)
	for i := range results {
		results[i] = publisher.Publish(t.Context(), &pubsub.Message{Data: fmt.Appendf(nil, `{"n":%d}`, i), Attributes: map[string]string{"lane": "default"}})
	}
	for _, r := range results {
		if _, err := r.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *Server) held() int64 {
	s.broker.mu.Lock()
	defer s.broker.mu.Unlock()
	return s.broker.heldBytes
}

func TestFiveThousandMessagesAreEachPushedOnceAndForgotten(t *testing.T) {
	t.Parallel()
	const n = 5000
	var mu sync.Mutex
	pushes := map[string]int{}
	sink := serve(t, func(w http.ResponseWriter, r *http.Request) {
		m, err := push.Read(r, push.MaxBody)
		if err != nil {
			t.Errorf("Read() = %v", err)
		}
		mu.Lock()
		pushes[string(m.Data)]++
		mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	})
	s := startServer(t, Config{})
	client := connect(t, s)
	create(t, client, pushTo(sink.URL))

	start := time.Now()
	publishAll(t, client, n)
	peertest.Eventually(t, patience, "all messages to be acknowledged", func() bool { return s.held() == 0 })
	t.Logf("%d messages published and pushed in %v: %.0f/s", n, time.Since(start), n/time.Since(start).Seconds())

	mu.Lock()
	defer mu.Unlock()
	if len(pushes) != n {
		t.Errorf("%d different messages were pushed, want %d", len(pushes), n)
	}
	for data, times := range pushes {
		if times != 1 {
			t.Errorf("%s was pushed %d times, want once", data, times)
		}
	}
}

func TestDeadLettersReachTheInspectionSubscription(t *testing.T) {
	t.Parallel()
	var attempts atomic.Int64
	sink := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if m, err := push.Read(r, push.MaxBody); err != nil || m.DeliveryAttempt != int(attempts.Add(1)) {
			t.Errorf("Read() = attempt %d, %v, want attempt %d", m.DeliveryAttempt, err, attempts.Load())
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	s := startServer(t, Config{})
	client := connect(t, s)
	create(t, client, pushTo(sink.URL))
	publishAll(t, client, 1)

	// The first delivery is put back, the second is acknowledged.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	deliveries := 0
	err := client.Subscriber(inspect).Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		if deliveries++; deliveries == 1 {
			m.Nack()
			return
		}
		if got := m.Attributes[attributeDeliveryCount]; got != "10" || string(m.Data) != `{"n":0}` || m.Attributes["lane"] != "default" {
			t.Errorf("dead letter %s with %v, want the message after 10 attempts", m.Data, m.Attributes)
		}
		m.Ack()
		cancel()
	})
	if err != nil || deliveries != 2 || attempts.Load() != 10 {
		t.Errorf("Receive() = %v after %d deliveries and %d pushes, want 2 and 10", err, deliveries, attempts.Load())
	}
	peertest.Eventually(t, patience, "the acknowledgement", func() bool { return s.held() == 0 })
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	redirected := make(chan struct{}, 100)
	sink := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			followed.Store(true)
			return
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		redirected <- struct{}{}
	})
	s := startServer(t, Config{})
	client := connect(t, s)
	create(t, client, pushTo(sink.URL))
	publishAll(t, client, 1)
	peertest.Eventually(t, patience, "the dead letter", func() bool { return len(redirected) == 10 })
	if followed.Load() {
		t.Error("a redirect was followed")
	}
}

func TestCloseCutsOffWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	pushed := make(chan struct{}, 1)
	sink := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if _, err := push.Read(r, push.MaxBody); err != nil { // also lets the server notice that the client is gone
			t.Errorf("Read() = %v", err)
		}
		pushed <- struct{}{}
		<-r.Context().Done()
	})
	s, err := Start(Config{})
	if err != nil {
		t.Fatal(err)
	}
	client := connect(t, s)
	create(t, client, pushTo(sink.URL))
	stream := openStream(t, s, inspect)
	publishAll(t, client, 1)
	<-pushed

	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
		s.Close()
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Close() does not return while a push and a stream are open")
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on after Close()")
	}
	if _, err := net.DialTimeout("tcp", s.Addr(), time.Second); err == nil {
		t.Error("the server listens after Close()")
	}
}

// openStream opens a streaming pull as Google's client does.
func openStream(t *testing.T, s *Server, subscription string) pubsubpb.Subscriber_StreamingPullClient {
	t.Helper()
	conn, err := grpc.NewClient(s.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	stream, err := pubsubpb.NewSubscriberClient(conn).StreamingPull(ctx)
	if err != nil {
		t.Fatal(err)
	}
	opening := &pubsubpb.StreamingPullRequest{Subscription: subscription, StreamAckDeadlineSeconds: 60, ProtocolVersion: 1}
	if err := stream.Send(opening); err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestAStreamAnswersPingsAndSettlesDeliveries(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	client := connect(t, s)
	create(t, client, &pubsubpb.Subscription{Name: worker, Topic: requests})
	stream := openStream(t, s, worker)
	if err := stream.Send(&pubsubpb.StreamingPullRequest{}); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || len(r.ReceivedMessages) != 0 {
		t.Fatalf("Recv() = %v, %v, want an empty answer to a ping", r, err)
	}

	publishAll(t, client, 1)
	first := recvMessage(t, stream)
	if err := stream.Send(&pubsubpb.StreamingPullRequest{ModifyDeadlineAckIds: []string{first}, ModifyDeadlineSeconds: []int32{0}}); err != nil {
		t.Fatal(err)
	}
	second := recvMessage(t, stream)
	if err := stream.Send(&pubsubpb.StreamingPullRequest{AckIds: []string{second}}); err != nil {
		t.Fatal(err)
	}
	peertest.Eventually(t, patience, "the acknowledgement", func() bool { return s.held() == 0 })
	if err := stream.Send(&pubsubpb.StreamingPullRequest{ModifyDeadlineAckIds: []string{second}}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := stream.Recv(); err != nil {
			wantCode(t, "a deadline without seconds", err, codes.InvalidArgument)
			return
		}
	}
}

// recvMessage returns the ack ID of the next message, past answers to pings.
func recvMessage(t *testing.T, stream pubsubpb.Subscriber_StreamingPullClient) string {
	t.Helper()
	for {
		r, err := stream.Recv()
		if err != nil {
			t.Fatalf("Recv() = %v", err)
		}
		if len(r.ReceivedMessages) > 0 {
			return r.ReceivedMessages[0].AckId
		}
	}
}

func TestAStreamEndsWithItsSubscription(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	client := connect(t, s)
	stream := openStream(t, s, inspect)
	if err := client.SubscriptionAdminClient.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: inspect}); err != nil {
		t.Fatal(err)
	}
	_, err := stream.Recv()
	wantCode(t, "Recv() after the deletion", err, codes.NotFound)
}

func TestStartRefusesWhatIsNotLoopbackOrNotFree(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{Addr: "localhost:0"})
	for _, cfg := range []Config{
		{Addr: "0.0.0.0:0"}, {Addr: ":0"}, {Addr: "192.0.2.1:0"}, {Addr: "example.com:0"}, {Addr: "127.0.0.1"},
		{Addr: s.Addr()}, {MaxPushes: -1}, {MaxBytes: -1},
	} {
		if s, err := Start(cfg); err == nil {
			s.Close()
			t.Errorf("Start(%+v) succeeded, want an error", cfg)
		}
	}
}

func TestSubscriptionsShowWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	client := connect(t, startServer(t, Config{}))
	asked := production()
	asked.PushConfig.AuthenticationMethod = &pubsubpb.PushConfig_OidcToken_{OidcToken: &pubsubpb.PushConfig_OidcToken{ServiceAccountEmail: "push@proj.iam.gserviceaccount.com"}}
	asked.ExpirationPolicy = &pubsubpb.ExpirationPolicy{}
	want := proto.CloneOf(asked)
	want.State = pubsubpb.Subscription_ACTIVE
	if got := create(t, client, asked); !proto.Equal(got, want) {
		t.Errorf("CreateSubscription() = %v, want %v", got, want)
	}
	got, err := client.SubscriptionAdminClient.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: worker})
	if err != nil || !proto.Equal(got, want) {
		t.Errorf("GetSubscription() = %v, %v, want %v", got, err, want)
	}

	listed := client.SubscriptionAdminClient.ListSubscriptions(t.Context(), &pubsubpb.ListSubscriptionsRequest{Project: "projects/proj"})
	wantNames(t, "subscriptions", []string{inspect, worker}, func() (string, error) { s, err := listed.Next(); return s.GetName(), err })
	none := client.SubscriptionAdminClient.ListSubscriptions(t.Context(), &pubsubpb.ListSubscriptionsRequest{Project: "projects/pro"})
	wantNames(t, "subscriptions of another project", nil, func() (string, error) { s, err := none.Next(); return s.GetName(), err })
	topics := client.TopicAdminClient.ListTopics(t.Context(), &pubsubpb.ListTopicsRequest{Project: "projects/proj"})
	wantNames(t, "topics", []string{deadLetters, requests}, func() (string, error) { s, err := topics.Next(); return s.GetName(), err })
	attached := client.TopicAdminClient.ListTopicSubscriptions(t.Context(), &pubsubpb.ListTopicSubscriptionsRequest{Topic: requests})
	wantNames(t, "subscriptions of the topic", []string{worker}, attached.Next)

	if err := client.TopicAdminClient.DeleteTopic(t.Context(), &pubsubpb.DeleteTopicRequest{Topic: requests}); err != nil {
		t.Fatal(err)
	}
	got, err = client.SubscriptionAdminClient.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: worker})
	if err != nil || got.GetTopic() != deletedTopic {
		t.Errorf("GetSubscription() = %v, %v, want topic %s after the topic's deletion", got, err, deletedTopic)
	}
}

func wantNames(t *testing.T, what string, want []string, next func() (string, error)) {
	t.Helper()
	var got []string
	for {
		name, err := next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got = append(got, name)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func TestSubscriptionsGetTheServicesDefaults(t *testing.T) {
	t.Parallel()
	client := connect(t, startServer(t, Config{}))
	got := create(t, client, &pubsubpb.Subscription{
		Name: worker, Topic: requests, RetryPolicy: &pubsubpb.RetryPolicy{}, DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: deadLetters},
	})
	want := &pubsubpb.Subscription{
		Name: worker, Topic: requests, AckDeadlineSeconds: 10, MessageRetentionDuration: durationpb.New(7 * 24 * time.Hour),
		PushConfig: &pubsubpb.PushConfig{}, State: pubsubpb.Subscription_ACTIVE,
		RetryPolicy:      &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(10 * time.Second), MaximumBackoff: durationpb.New(10 * time.Minute)},
		DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: deadLetters, MaxDeliveryAttempts: 5},
	}
	if !proto.Equal(got, want) {
		t.Errorf("CreateSubscription() = %v, want %v", got, want)
	}
}

func TestSubscriptionsBeyondTheBoundsAreRefused(t *testing.T) {
	t.Parallel()
	client := connect(t, startServer(t, Config{}))
	tests := []struct {
		name string
		ask  func(*pubsubpb.Subscription)
		want codes.Code
	}{
		{"no name", func(s *pubsubpb.Subscription) { s.Name = "" }, codes.InvalidArgument},
		{"a short name", func(s *pubsubpb.Subscription) { s.Name = "projects/proj/subscriptions/ab" }, codes.InvalidArgument},
		{"a taken name", func(s *pubsubpb.Subscription) { s.Name = inspect }, codes.AlreadyExists},
		{"no topic", func(s *pubsubpb.Subscription) { s.Topic = "" }, codes.NotFound},
		{"an unknown topic", func(s *pubsubpb.Subscription) { s.Topic += "-2" }, codes.NotFound},
		{"an unknown dead-letter topic", func(s *pubsubpb.Subscription) { s.DeadLetterPolicy.DeadLetterTopic += "-2" }, codes.NotFound},
		{"no dead-letter topic", func(s *pubsubpb.Subscription) { s.DeadLetterPolicy.DeadLetterTopic = "" }, codes.InvalidArgument},
		{"an ack deadline of 9 s", func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = 9 }, codes.InvalidArgument},
		{"an ack deadline of 601 s", func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = 601 }, codes.InvalidArgument},
		{"a retention of 9 minutes", func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(9 * time.Minute) }, codes.InvalidArgument},
		{"a retention of 32 days", func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(maxRetention + time.Hour) }, codes.InvalidArgument},
		{"a backoff of 601 s", func(s *pubsubpb.Subscription) { s.RetryPolicy.MaximumBackoff = durationpb.New(601 * time.Second) }, codes.InvalidArgument},
		{"a minimum over the maximum", func(s *pubsubpb.Subscription) { s.RetryPolicy.MaximumBackoff = durationpb.New(time.Second) }, codes.InvalidArgument},
		{"a negative backoff", func(s *pubsubpb.Subscription) { s.RetryPolicy.MinimumBackoff = durationpb.New(-time.Second) }, codes.InvalidArgument},
		{"4 attempts", func(s *pubsubpb.Subscription) { s.DeadLetterPolicy.MaxDeliveryAttempts = 4 }, codes.InvalidArgument},
		{"101 attempts", func(s *pubsubpb.Subscription) { s.DeadLetterPolicy.MaxDeliveryAttempts = 101 }, codes.InvalidArgument},
		{"an endpoint that is no URL", func(s *pubsubpb.Subscription) { s.PushConfig.PushEndpoint = "worker.test" }, codes.InvalidArgument},
		{"a filter", func(s *pubsubpb.Subscription) { s.Filter = `attributes.lane = "x"` }, codes.Unimplemented},
		{"ordering", func(s *pubsubpb.Subscription) { s.EnableMessageOrdering = true }, codes.Unimplemented},
		{"exactly-once", func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true }, codes.Unimplemented},
		{"acknowledged messages kept", func(s *pubsubpb.Subscription) { s.RetainAckedMessages = true }, codes.Unimplemented},
		{"BigQuery", func(s *pubsubpb.Subscription) { s.BigqueryConfig = &pubsubpb.BigQueryConfig{} }, codes.Unimplemented},
		{"Cloud Storage", func(s *pubsubpb.Subscription) { s.CloudStorageConfig = &pubsubpb.CloudStorageConfig{} }, codes.Unimplemented},
		{"transforms", func(s *pubsubpb.Subscription) { s.MessageTransforms = []*pubsubpb.MessageTransform{{}} }, codes.Unimplemented},
		{"no wrapper", func(s *pubsubpb.Subscription) {
			s.PushConfig.Wrapper = &pubsubpb.PushConfig_NoWrapper_{NoWrapper: &pubsubpb.PushConfig_NoWrapper{}}
		}, codes.Unimplemented},
	}
	for _, tt := range tests {
		_, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), without(tt.ask))
		wantCode(t, tt.name, err, tt.want)
	}
	// At the bounds, all is well.
	create(t, client, without(func(s *pubsubpb.Subscription) {
		s.AckDeadlineSeconds, s.MessageRetentionDuration = 600, durationpb.New(maxRetention)
		s.RetryPolicy.MinimumBackoff, s.DeadLetterPolicy.MaxDeliveryAttempts = durationpb.New(600*time.Second), 100
	}))
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: code %v (%v), want %v", what, got, err, want)
	}
}

func TestCallsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	client := connect(t, s)
	create(t, client, production())
	topics, subscriptions, ctx := client.TopicAdminClient, client.SubscriptionAdminClient, t.Context()
	const missing = "projects/proj/subscriptions/missing"
	tests := []struct {
		name string
		call func() error
		want codes.Code
	}{
		{"a topic name that is none", func() error { _, err := topics.CreateTopic(ctx, &pubsubpb.Topic{Name: "requests"}); return err }, codes.InvalidArgument},
		{"a topic twice", func() error { _, err := topics.CreateTopic(ctx, &pubsubpb.Topic{Name: requests}); return err }, codes.AlreadyExists},
		{"a topic that is not there", func() error { _, err := topics.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: missing}); return err }, codes.NotFound},
		{"a topic that is there", func() error { _, err := topics.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: requests}); return err }, codes.OK},
		{"deleting no topic", func() error { return topics.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: missing}) }, codes.NotFound},
		{"the subscriptions of no topic", func() error {
			_, err := topics.ListTopicSubscriptions(ctx, &pubsubpb.ListTopicSubscriptionsRequest{Topic: missing}).Next()
			return err
		}, codes.NotFound},
		{"publishing to no topic", func() error {
			_, err := topics.Publish(ctx, &pubsubpb.PublishRequest{Topic: missing, Messages: []*pubsubpb.PubsubMessage{{Data: []byte("x")}}})
			return err
		}, codes.NotFound},
		{"showing no subscription", func() error {
			_, err := subscriptions.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: missing})
			return err
		}, codes.NotFound},
		{"deleting no subscription", func() error {
			return subscriptions.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: missing})
		}, codes.NotFound},
		{"pulling from no subscription", func() error {
			_, err := subscriptions.Pull(ctx, &pubsubpb.PullRequest{Subscription: missing, MaxMessages: 1})
			return err
		}, codes.NotFound},
		{"pulling what is pushed", func() error {
			_, err := subscriptions.Pull(ctx, &pubsubpb.PullRequest{Subscription: worker, MaxMessages: 1})
			return err
		}, codes.FailedPrecondition},
		{"pulling no messages", func() error {
			_, err := subscriptions.Pull(ctx, &pubsubpb.PullRequest{Subscription: inspect})
			return err
		}, codes.InvalidArgument},
		{"acknowledging for no subscription", func() error {
			return subscriptions.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: missing, AckIds: []string{"1:1"}})
		}, codes.NotFound},
		{"extending for no subscription", func() error {
			return subscriptions.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{Subscription: missing, AckIds: []string{"1:1"}})
		}, codes.NotFound},
		{"extending by 601 s", func() error {
			return subscriptions.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{Subscription: inspect, AckIds: []string{"1:1"}, AckDeadlineSeconds: 601})
		}, codes.InvalidArgument},
		{"streaming what is pushed", func() error { _, err := openStream(t, s, worker).Recv(); return err }, codes.FailedPrecondition},
	}
	for _, tt := range tests {
		wantCode(t, tt.name, tt.call(), tt.want)
	}
}

func TestPublishHoldsToTheLimitsOfPubSub(t *testing.T) {
	t.Parallel()
	client := connect(t, startServer(t, Config{}))
	attributes := func(n int) map[string]string {
		made := map[string]string{}
		for i := range n {
			made[fmt.Sprint("a", i)] = "x"
		}
		return made
	}
	text := func(n int) string { return strings.Repeat("x", n) }
	one := func(m *pubsubpb.PubsubMessage) []*pubsubpb.PubsubMessage { return []*pubsubpb.PubsubMessage{m} }
	many := func(n int) []*pubsubpb.PubsubMessage {
		made := make([]*pubsubpb.PubsubMessage, n)
		for i := range made {
			made[i] = &pubsubpb.PubsubMessage{Data: []byte("x")}
		}
		return made
	}
	tests := []struct {
		name     string
		messages []*pubsubpb.PubsubMessage
		want     codes.Code
	}{
		{"no messages", nil, codes.InvalidArgument},
		{"1,000 messages", many(1000), codes.OK},
		{"1,001 messages", many(1001), codes.InvalidArgument},
		{"an empty message", one(&pubsubpb.PubsubMessage{}), codes.InvalidArgument},
		{"only attributes", one(&pubsubpb.PubsubMessage{Attributes: attributes(1)}), codes.OK},
		{"10,000,000 bytes", one(&pubsubpb.PubsubMessage{Data: make([]byte, 10_000_000)}), codes.OK},
		{"10,000,001 bytes", one(&pubsubpb.PubsubMessage{Data: make([]byte, 10_000_001)}), codes.InvalidArgument},
		{"over 10 MiB in two", append(one(&pubsubpb.PubsubMessage{Data: make([]byte, 9_000_000)}), &pubsubpb.PubsubMessage{Data: make([]byte, 2_000_000)}), codes.InvalidArgument},
		{"100 attributes", one(&pubsubpb.PubsubMessage{Attributes: attributes(100)}), codes.OK},
		{"101 attributes", one(&pubsubpb.PubsubMessage{Attributes: attributes(101)}), codes.InvalidArgument},
		{"a value of 1,024 bytes", one(&pubsubpb.PubsubMessage{Attributes: map[string]string{"a": text(1024)}}), codes.OK},
		{"a value of 1,025 bytes", one(&pubsubpb.PubsubMessage{Attributes: map[string]string{"a": text(1025)}}), codes.InvalidArgument},
		{"a name of 256 bytes", one(&pubsubpb.PubsubMessage{Attributes: map[string]string{text(256): "x"}}), codes.OK},
		{"a name of 257 bytes", one(&pubsubpb.PubsubMessage{Attributes: map[string]string{text(257): "x"}}), codes.InvalidArgument},
		{"an empty name", one(&pubsubpb.PubsubMessage{Attributes: map[string]string{"": "x"}}), codes.InvalidArgument},
		{"a name as Google's clients add them", one(&pubsubpb.PubsubMessage{Attributes: map[string]string{"googclient_traceparent": "x"}}), codes.OK},
		{"a reserved name", one(&pubsubpb.PubsubMessage{Attributes: map[string]string{"google": "x"}}), codes.InvalidArgument},
		{"an ordering key of 1,025 bytes", one(&pubsubpb.PubsubMessage{Data: []byte("x"), OrderingKey: text(1025)}), codes.InvalidArgument},
	}
	for _, tt := range tests {
		answer, err := client.TopicAdminClient.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: requests, Messages: tt.messages})
		wantCode(t, tt.name, err, tt.want)
		if got := len(answer.GetMessageIds()); err == nil && got != len(tt.messages) {
			t.Errorf("%s: %d message IDs, want %d", tt.name, got, len(tt.messages))
		}
	}
}

// BenchmarkPush measures messages from publishing to acknowledgement, through
// Google's publisher and an endpoint that answers at once, all in one process.
func BenchmarkPush(b *testing.B) {
	sink := serve(b, func(w http.ResponseWriter, r *http.Request) {
		if _, err := push.Read(r, push.MaxBody); err != nil {
			b.Errorf("Read() = %v", err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s := startServer(b, Config{})
	client := connect(b, s)
	create(b, client, pushTo(sink.URL))
	b.ResetTimer()
	publishAll(b, client, b.N)
	peertest.Eventually(b, time.Minute, "all messages to be acknowledged", func() bool { return s.held() == 0 })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
}
