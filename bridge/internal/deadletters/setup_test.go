package deadletters

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/pump"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

func TestMain(m *testing.M) { peertest.Main(m) }

const secret = "Jane Doe, 1961" // in every payload, and nowhere else

// bundle is one test's dead letters, in a Redis and a Pub/Sub of its own.
type bundle struct {
	*testing.T
	rdb     *redis.Client
	keys    tebra.Keys
	ledger  *ledger.Ledger
	sub     *pubsub.SubscriptionAdminClient
	letters *publish.Publisher
	cfg     Config
	deps    Deps
	n       int
}

// onEveryPubSub runs a test against Google's emulator and the local run's Pub/Sub.
func onEveryPubSub(t *testing.T, test func(b *bundle)) {
	t.Helper()
	t.Run("emulator", func(t *testing.T) {
		t.Parallel()
		server := peertest.Emulator(t)
		test(setup(t, server.Addr(), server.Project(t)))
	})
	t.Run("pump", func(t *testing.T) {
		t.Parallel()
		test(onPump(t))
	})
}

func onPump(t *testing.T) *bundle {
	t.Helper()
	server, err := pump.Start(pump.Config{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return setup(t, server.Addr(), "demo-pump")
}

func setup(t *testing.T, address, project string) *bundle {
	t.Helper()
	rdb := peertest.Redis(t).Client()
	keys, err := tebra.NewKeys("test")
	if err != nil {
		t.Fatal(err)
	}
	topic := "projects/" + project + "/topics/dead-letters"
	topics, err := pubsub.NewTopicAdminClient(t.Context(), publish.ClientOptions(address)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { topics.Close() })
	subs, err := pubsub.NewSubscriptionAdminClient(t.Context(), publish.ClientOptions(address)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { subs.Close() })
	b := &bundle{
		T: t, rdb: rdb, keys: keys, ledger: ledger.New(rdb, keys, ledger.Config{}), sub: subs,
		letters: publish.New(topics, topic),
		cfg: Config{
			Subscription: "projects/" + project + "/subscriptions/inspect", Operator: "ada@desk", Quiet: time.Millisecond,
		},
	}
	b.deps = Deps{
		Subscriber: prompt{subs}, Ledger: b.ledger, Auditor: stream.New(rdb, keys), IsWrite: policy.Default().IsWrite, Now: time.Now,
	}
	if _, err := topics.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	if _, err := subs.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: b.cfg.Subscription, Topic: topic, AckDeadlineSeconds: 10}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bundle) queue() *Queue { return New(b.cfg, b.deps) }

func (b *bundle) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// delivery is a request of that action as a bridge would have published it, with
// an entry on the stream.
func (b *bundle) delivery(action string) (tebra.Request, ledger.Delivery) {
	b.Helper()
	b.n++
	r := tebra.Request{
		ID: fmt.Sprintf("request-%d", b.n), CorrelationID: fmt.Sprintf("corr-%d", b.n), Action: action, UserID: "user-1",
		Params: []byte(`{"note":"` + secret + `"}`), Timestamp: "2026-11-23T00:00:00.000Z",
	}
	entry, err := b.rdb.XAdd(b.Context(), &redis.XAddArgs{Stream: "elsewhere", Values: []string{"n", r.ID}}).Result()
	b.must(err)
	epoch, err := b.ledger.Epoch(b.Context())
	b.must(err)
	return r, ledger.Delivery{
		Envelope: tebra.Envelope{
			RequestID: r.ID, CorrelationID: r.CorrelationID, Action: action, UserID: r.UserID, EntryID: entry,
			Lane: policy.Default().LaneOf(action), Ledger: tebra.LedgerHash(r.UserID, r.ID), Epoch: epoch, AdmittedAt: time.Now(),
		},
		Fingerprint: tebra.Fingerprint(action, r.Params), Write: policy.Default().IsWrite(action),
	}
}

// fail adds a dead letter of a request that ended with code.
func (b *bundle) fail(action string, code tebra.ErrorCode) (tebra.Request, ledger.Delivery) {
	b.Helper()
	r, d := b.delivery(action)
	if d.Write {
		_, _, err := b.ledger.Admit(b.Context(), []ledger.Admission{{Hash: d.Envelope.Ledger, EntryID: d.Envelope.EntryID, Fingerprint: d.Fingerprint}})
		b.must(err)
	}
	b.answer(d, tebra.Response{ErrorCode: code, Error: code.Meaning()})
	d.Envelope.Reason = code
	if code == tebra.DeadLettered { // then it was Pub/Sub that gave up
		d.Envelope.Reason = ""
	}
	b.publish(r.AppendJSON(nil), d.Envelope)
	return r, d
}

// answer ends a delivery's request.
func (b *bundle) answer(d ledger.Delivery, with tebra.Response) {
	b.Helper()
	claim, err := b.ledger.Settle(b.Context(), d)
	b.must(err)
	b.must(b.ledger.Complete(b.Context(), claim, with))
}

func (b *bundle) publish(data []byte, e tebra.Envelope) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	b.must(b.letters.One(ctx, data, e))
}

// reject adds the letter of an entry that was no request, as the bridge writes it.
func (b *bundle) reject() string {
	b.publish([]byte(`{"entry":"5-1","reason":"field userId: is missing","bytes":321,"fields":[["action","health"],["note","`+secret+`"]]}`),
		tebra.Envelope{EntryID: "5-1", RequestID: "rejected-1", Reason: tebra.Malformed, AdmittedAt: time.Now()})
	return "5-1"
}

// list lists all letters, and fails the test where it can't.
func (b *bundle) list() []Letter {
	b.Helper()
	found, err := b.queue().List(b.Context(), Filter{})
	if err != nil || found.More || found.Seen != len(found.Letters) {
		b.Fatalf("List() = %d of %d letters, more %v, %v, want all", len(found.Letters), found.Seen, found.More, err)
	}
	return found.Letters
}

// letterOf returns the ID of the letter of an entry.
func (b *bundle) letterOf(entryID string) string {
	b.Helper()
	for _, l := range b.list() {
		if l.Envelope.EntryID == entryID {
			return l.ID
		}
	}
	b.Fatalf("there is no dead letter of entry %s", entryID)
	return ""
}

func ids(letters []Letter) []string {
	var all []string
	for _, l := range letters {
		all = append(all, l.ID)
	}
	return slices.Sorted(slices.Values(all))
}

// entries returns the request IDs on the requests stream, in order.
func (b *bundle) entries() []string {
	b.Helper()
	messages, err := b.rdb.XRange(b.Context(), b.keys.Requests(), "-", "+").Result()
	b.must(err)
	var all []string
	for _, m := range messages {
		all = append(all, m.Values["id"].(string))
	}
	return all
}

// audit returns what is on record.
func (b *bundle) audit() []tebra.AuditRecord {
	b.Helper()
	messages, err := b.rdb.XRange(b.Context(), b.keys.Audit(), "-", "+").Result()
	b.must(err)
	var all []tebra.AuditRecord
	for _, m := range messages {
		fields := map[string]string{}
		for k, v := range m.Values {
			fields[k] = v.(string)
		}
		r, err := tebra.ParseAudit(fields)
		b.must(err)
		all = append(all, r)
	}
	return all
}

// dump returns everything in Redis.
func (b *bundle) dump() map[string]string {
	b.Helper()
	keys, err := b.rdb.Keys(b.Context(), "*").Result()
	b.must(err)
	all := map[string]string{}
	for _, key := range keys {
		value, err := b.rdb.Dump(b.Context(), key).Result()
		b.must(err)
		all[key] = value
	}
	return all
}

// prompt is a subscriber whose pulls don't wait for a first letter, so that tests
// don't either.
type prompt struct{ Subscriber }

func (p prompt) Pull(ctx context.Context, r *pubsubpb.PullRequest, o ...gax.CallOption) (*pubsubpb.PullResponse, error) {
	//lint:ignore SA1019 deprecated, but honoured by both servers
	r.ReturnImmediately = true
	return p.Subscriber.Pull(ctx, r, o...)
}

// fault is a subscriber that fails, or does something first.
type fault struct {
	Subscriber
	mu          sync.Mutex
	pulls       int
	beforePull  func(n int)
	acknowledge error
	failFrom    int // the acknowledgement that is the first to fail, counted from 1; 0 means all
	acks        int
}

func (f *fault) Pull(ctx context.Context, r *pubsubpb.PullRequest, o ...gax.CallOption) (*pubsubpb.PullResponse, error) {
	f.mu.Lock()
	f.pulls++
	n := f.pulls
	f.mu.Unlock()
	if f.beforePull != nil {
		f.beforePull(n)
	}
	return f.Subscriber.Pull(ctx, r, o...)
}

func (f *fault) Acknowledge(ctx context.Context, r *pubsubpb.AcknowledgeRequest, o ...gax.CallOption) error {
	f.mu.Lock()
	f.acks++
	fails := f.acknowledge != nil && f.acks >= f.failFrom
	f.mu.Unlock()
	if fails {
		return f.acknowledge
	}
	return f.Subscriber.Acknowledge(ctx, r, o...)
}

// brokenAuditor can write nothing down.
type brokenAuditor struct{ error }

func (a brokenAuditor) Audit(context.Context, ...tebra.AuditRecord) error { return a.error }
