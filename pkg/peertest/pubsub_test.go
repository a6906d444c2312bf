package peertest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// newTopic returns a client of p with a topic "requests" in a project of its own.
func newTopic(t *testing.T, p *PubSub, project string) *pubsub.Client {
	t.Helper()
	client, err := pubsub.NewClient(t.Context(), project, p.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	topic := &pubsubpb.Topic{Name: "projects/" + project + "/topics/requests"}
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), topic); err != nil {
		t.Fatalf("CreateTopic() = %v, want nil", err)
	}
	return client
}

func subscribe(t *testing.T, client *pubsub.Client, push *pubsubpb.PushConfig) string {
	t.Helper()
	project := "projects/" + client.Project()
	subscription, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name:       project + "/subscriptions/requests",
		Topic:      project + "/topics/requests",
		PushConfig: push,
	})
	if err != nil {
		t.Fatalf("CreateSubscription() = %v, want nil", err)
	}
	return subscription.GetName()
}

func publish(t *testing.T, client *pubsub.Client) {
	t.Helper()
	publisher := client.Publisher("requests")
	defer publisher.Stop()
	if _, err := publisher.Publish(t.Context(), &pubsub.Message{Data: []byte("hello")}).Get(t.Context()); err != nil {
		t.Fatalf("Publish() = %v, want nil", err)
	}
}

func TestEmulatorCarriesAMessage(t *testing.T) {
	t.Parallel()
	p := Emulator(t)
	client := newTopic(t, p, p.Project(t))
	subscription := subscribe(t, client, nil)
	publish(t, client)

	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	got := make(chan string, 1)
	err := client.Subscriber(subscription).Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		m.Ack()
		select {
		case got <- string(m.Data):
			cancel()
		default: // a redelivery
		}
	})
	if err != nil {
		t.Fatalf("Receive() = %v, want nil", err)
	}
	select {
	case data := <-got:
		if data != "hello" {
			t.Errorf("received %q, want %q", data, "hello")
		}
	default:
		t.Errorf("received nothing within %v", testTimeout)
	}
}

func TestRealEmulatorPushes(t *testing.T) {
	t.Parallel()
	p := RealEmulator(t)
	pushed := make(chan string, 1)
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case pushed <- r.Method + " " + r.URL.Path:
		default: // a redelivery
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(endpoint.Close)
	client := newTopic(t, p, p.Project(t))
	subscribe(t, client, &pubsubpb.PushConfig{PushEndpoint: endpoint.URL + "/push"})
	publish(t, client)
	Eventually(t, testTimeout, "the push", func() bool { return len(pushed) == 1 })
	if got, want := <-pushed, "POST /push"; got != want {
		t.Errorf("pushed %q, want %q", got, want)
	}
}

func TestAProjectsSubscriptionsEndWithItsTest(t *testing.T) {
	t.Parallel()
	p := Emulator(t)
	var project string
	t.Run("its test", func(t *testing.T) {
		project = p.Project(t)
		subscribe(t, newTopic(t, p, project), nil)
	})
	client, err := pubsub.NewClient(t.Context(), project, p.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	list := client.SubscriptionAdminClient.ListSubscriptions(t.Context(),
		&pubsubpb.ListSubscriptionsRequest{Project: "projects/" + project})
	if got, err := list.Next(); err == nil {
		t.Errorf("subscription %s is still there, want none", got.GetName())
	}
}

func TestEmulatorIsSharedAndProjectsAreNot(t *testing.T) {
	t.Parallel()
	one, two := Emulator(t), Emulator(t)
	if one.Addr() != two.Addr() {
		t.Errorf("Addr() = %s and %s, want one emulator", one.Addr(), two.Addr())
	}
	if a, b := one.Project(t), two.Project(t); a == b || !strings.HasPrefix(a, "demo-") {
		t.Errorf("Project() = %s and %s, want two that begin with demo-", a, b)
	}
}
