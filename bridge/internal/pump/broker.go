package pump

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The attributes that Pub/Sub adds to a dead letter, and the format of the time
// among them, as the service and its emulator send them.
const (
	attributeDeliveryCount = "CloudPubSubDeadLetterSourceDeliveryCount"
	attributeSubscription  = "CloudPubSubDeadLetterSourceSubscription"
	attributeProject       = "CloudPubSubDeadLetterSourceSubscriptionProject"
	attributePublishTime   = "CloudPubSubDeadLetterSourceTopicPublishTime"
	publishTimeFormat      = "2006-01-02T15:04:05.000-07:00"
)

// overhead is about what a held message takes in memory besides its own bytes.
const overhead = 512

// deletedTopic is the topic that a subscription shows after its own was deleted.
const deletedTopic = "_deleted-topic_"

// broker holds topics, subscriptions and messages. One lock guards all of it, so
// that a dead letter changes subscriptions in one step; nothing under it waits.
type broker struct {
	log       *slog.Logger
	transport http.RoundTripper
	maxPushes int
	maxBytes  int64
	life      lifetime       // ends when the broker stops
	running   sync.WaitGroup // what pushes, and what receives from streams

	mu            sync.Mutex
	topics        map[string]*topic
	subscriptions map[string]*subscription
	lastID        uint64
	heldBytes     int64
}

type topic struct {
	proto         *pubsubpb.Topic // as it is shown, never changed
	subscriptions map[string]*subscription
}

// newBroker expects a complete cfg. Its owner calls stop, then wait.
func newBroker(cfg Config) *broker {
	return &broker{
		log: cfg.Log, transport: cfg.Transport, maxPushes: cfg.MaxPushes, maxBytes: cfg.MaxBytes,
		life:   newLifetime(context.Background()),
		topics: map[string]*topic{}, subscriptions: map[string]*subscription{},
		// Message IDs go up from the start time, so that a server started again
		// gives none that is remembered from the one before.
		lastID: uint64(time.Now().UnixMicro()),
	}
}

func (b *broker) stop() { b.life.end() }

// wait returns when nothing runs any more. No call may come in after stop.
func (b *broker) wait() { b.running.Wait() }

// createTopic adds a topic that has been checked.
func (b *broker) createTopic(asked *pubsubpb.Topic) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topics[asked.Name] != nil {
		return status.Errorf(codes.AlreadyExists, "topic %s exists", asked.Name)
	}
	b.topics[asked.Name] = &topic{proto: asked, subscriptions: map[string]*subscription{}}
	return nil
}

// deleteTopic leaves its subscriptions with what they hold.
func (b *broker) deleteTopic(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[name]
	if t == nil {
		return noTopic(name)
	}
	for _, s := range t.subscriptions {
		s.proto = proto.CloneOf(s.proto) // the old one may be on its way to a client
		s.proto.Topic = deletedTopic
	}
	delete(b.topics, name)
	return nil
}

// createSubscription adds s, which gets what is published from now on.
func (b *broker) createSubscription(s *subscription) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subscriptions[s.name] != nil {
		return status.Errorf(codes.AlreadyExists, "subscription %s exists", s.name)
	}
	t := b.topics[s.proto.Topic]
	if t == nil {
		return noTopic(s.proto.Topic)
	}
	if s.policy.deadLetters != "" && b.topics[s.policy.deadLetters] == nil {
		return noTopic(s.policy.deadLetters)
	}
	t.subscriptions[s.name] = s
	b.subscriptions[s.name] = s
	if s.policy.endpoint != "" {
		b.running.Go(func() { b.pushAll(s) })
	}
	return nil
}

// deleteSubscription drops s with what it holds, and cuts its pushes off.
func (b *broker) deleteSubscription(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.subscriptions[name]
	if s == nil {
		return noSubscription(name)
	}
	delete(b.subscriptions, name)
	if t := b.topics[s.proto.Topic]; t != nil {
		delete(t.subscriptions, name)
	}
	for _, d := range s.held {
		b.remove(s, d)
	}
	s.life.end()
	return nil
}

func noTopic(name string) error {
	return status.Errorf(codes.NotFound, "there is no topic %q; create it first", name)
}

func noSubscription(name string) error {
	return status.Errorf(codes.NotFound, "there is no subscription %q; create it first", name)
}

// publish gives every subscription of the topic the messages, which it keeps and
// which must not be changed afterwards, and returns their IDs. All or none are
// published.
func (b *broker) publish(topicName string, messages []*pubsubpb.PubsubMessage) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.publishLocked(topicName, messages)
}

func (b *broker) publishLocked(topicName string, messages []*pubsubpb.PubsubMessage) ([]string, error) {
	t := b.topics[topicName]
	if t == nil {
		return nil, noTopic(topicName)
	}
	if size := totalSize(messages) * int64(len(t.subscriptions)); b.heldBytes+size > b.maxBytes {
		return nil, status.Errorf(codes.ResourceExhausted, "%d bytes wait to be acknowledged, and the limit is %d: publish again later", b.heldBytes, b.maxBytes)
	}
	now := time.Now()
	ids := make([]string, 0, len(messages))
	for _, m := range messages {
		b.lastID++
		m.MessageId = strconv.FormatUint(b.lastID, 10)
		m.PublishTime = timestamppb.New(now)
		ids = append(ids, m.MessageId)
		for _, s := range t.subscriptions {
			b.hold(s, m, now)
		}
	}
	for _, s := range t.subscriptions {
		b.dropExpired(s, now)
		s.signal()
	}
	return ids, nil
}

func totalSize(messages []*pubsubpb.PubsubMessage) int64 {
	var total int64
	for _, m := range messages {
		total += size(m)
	}
	return total
}

func size(m *pubsubpb.PubsubMessage) int64 {
	n := len(m.Data) + len(m.OrderingKey) + overhead
	for name, value := range m.Attributes {
		n += len(name) + len(value)
	}
	return int64(n)
}

func (b *broker) hold(s *subscription, m *pubsubpb.PubsubMessage, now time.Time) {
	d := &delivery{message: m, published: now, size: size(m), order: b.lastID}
	s.waiting.add(d, now)
	s.held[m.MessageId] = d
	b.heldBytes += d.size
}

func (b *broker) remove(s *subscription, d *delivery) {
	d.letGo()
	s.queueOf(d).remove(d)
	delete(s.held, d.message.MessageId)
	b.heldBytes -= d.size
}

// dropExpired drops from the front of the queue what is older than the retention.
// With each publish, that is enough to bound a subscription that nobody reads.
func (b *broker) dropExpired(s *subscription, now time.Time) {
	dropped := 0
	for d := s.waiting.first(); d != nil && now.Sub(d.published) >= s.policy.retention; d = s.waiting.first() {
		b.remove(s, d)
		dropped++
	}
	if dropped > 0 {
		b.log.Warn("messages dropped: older than the retention", "subscription", s.name, "messages", dropped)
	}
}

// batch is what take found.
type batch struct {
	messages []*pubsubpb.ReceivedMessage
	// changed is closed when there may be more, and wait is when to look in any
	// case. Both are for an empty batch.
	changed <-chan struct{}
	wait    time.Duration
}

// take leases up to limit due messages of s, and no more than w has room for.
func (b *broker) take(s *subscription, limit int, lease time.Duration, w *window) batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.endLeases(s, now)
	var taken []*pubsubpb.ReceivedMessage
	for len(taken) < limit && !w.full() {
		b.dropExpired(s, now)
		if s.waiting.until(now) > 0 {
			break
		}
		taken = append(taken, s.lease(s.waiting.first(), now.Add(lease), w))
	}
	if len(taken) > 0 {
		return batch{messages: taken}
	}
	wait := s.leases.until(now)
	if !w.full() {
		wait = min(wait, s.waiting.until(now))
	}
	return batch{changed: s.change(), wait: wait}
}

// endLeases fails the deliveries whose lease ran out.
func (b *broker) endLeases(s *subscription, now time.Time) {
	for s.leases.until(now) <= 0 {
		b.failed(s, s.leases.first(), now)
	}
}

// lease hands d out until then. The broker's lock is held.
func (s *subscription) lease(d *delivery, until time.Time, w *window) *pubsubpb.ReceivedMessage {
	s.waiting.remove(d)
	s.leases.add(d, until)
	d.attempt++
	d.leased = true
	w.hold(d)
	received := &pubsubpb.ReceivedMessage{AckId: ackID(d), Message: d.message}
	if s.policy.maxAttempts > 0 {
		received.DeliveryAttempt = int32(d.attempt)
	}
	return received
}

// failed ends a lease without an acknowledgement: the message goes to the dead
// letters, or waits. Where those can't take it, it is delivered further on.
func (b *broker) failed(s *subscription, d *delivery, now time.Time) {
	s.signal()
	if s.policy.maxAttempts > 0 && d.attempt >= s.policy.maxAttempts {
		err := b.deadLetter(s, d)
		if err == nil {
			b.remove(s, d)
			return
		}
		b.log.Error("dead letter not published: its message will be delivered again", "subscription", s.name,
			"topic", s.policy.deadLetters, "message", d.message.MessageId, "attempts", d.attempt, "error", err)
	}
	d.letGo()
	s.leases.remove(d)
	d.leased = false
	s.waiting.add(d, now.Add(s.policy.backoff(d.attempt)))
}

func (b *broker) deadLetter(s *subscription, d *delivery) error {
	attributes := maps.Clone(d.message.Attributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	attributes[attributeDeliveryCount] = strconv.Itoa(d.attempt)
	attributes[attributeSubscription] = s.id
	attributes[attributeProject] = s.project
	attributes[attributePublishTime] = d.published.UTC().Format(publishTimeFormat)
	dead := &pubsubpb.PubsubMessage{Data: d.message.Data, Attributes: attributes, OrderingKey: d.message.OrderingKey}
	ids, err := b.publishLocked(s.policy.deadLetters, []*pubsubpb.PubsubMessage{dead})
	if err != nil {
		return err
	}
	b.log.Warn("message published to the dead letters", "subscription", s.name,
		"topic", s.policy.deadLetters, "message", d.message.MessageId, "as", ids[0], "attempts", d.attempt)
	return nil
}

// ackID names one delivery of one message.
func ackID(d *delivery) string { return fmt.Sprintf("%s:%d", d.message.MessageId, d.attempt) }

// leasedAs returns the delivery that id names, or nil where its lease is over.
func (s *subscription) leasedAs(id string) *delivery {
	messageID, _, _ := strings.Cut(id, ":")
	d := s.held[messageID]
	if d == nil || !d.leased || ackID(d) != id {
		return nil
	}
	return d
}

// acknowledge ends the leases that ids name, and their messages with them. IDs
// whose lease is over are ignored, as by the service.
func (b *broker) acknowledge(s *subscription, ids ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if d := s.leasedAs(id); d != nil {
			b.remove(s, d)
			s.signal()
		}
	}
}

// extend gives the leases that ids name a new length from now; 0 is a nack. IDs
// whose lease is over are ignored, as by the service.
func (b *broker) extend(s *subscription, lease time.Duration, ids ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, id := range ids {
		d := s.leasedAs(id)
		if d == nil {
			continue
		}
		if lease == 0 {
			b.failed(s, d, now)
			continue
		}
		s.leases.move(d, now.Add(lease))
		s.signal()
	}
}

// find returns the subscription of that name.
func (b *broker) find(name string) (*subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.subscriptions[name]
	if s == nil {
		return nil, noSubscription(name)
	}
	return s, nil
}

// topicProto returns what is shown of a topic.
func (b *broker) topicProto(name string) (*pubsubpb.Topic, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[name]
	if t == nil {
		return nil, noTopic(name)
	}
	return t.proto, nil
}

// subscriptionProto returns what is shown of a subscription.
func (b *broker) subscriptionProto(name string) (*pubsubpb.Subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.subscriptions[name]
	if s == nil {
		return nil, noSubscription(name)
	}
	return s.proto, nil
}

// topicProtos returns what is shown of the topics in a project, sorted by name.
func (b *broker) topicProtos(project string) []*pubsubpb.Topic {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []*pubsubpb.Topic
	for _, name := range slices.Sorted(maps.Keys(b.topics)) {
		if strings.HasPrefix(name, project+"/") {
			found = append(found, b.topics[name].proto)
		}
	}
	return found
}

// subscriptionProtos returns what is shown of the subscriptions in a project,
// sorted by name.
func (b *broker) subscriptionProtos(project string) []*pubsubpb.Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []*pubsubpb.Subscription
	for _, name := range slices.Sorted(maps.Keys(b.subscriptions)) {
		if strings.HasPrefix(name, project+"/") {
			found = append(found, b.subscriptions[name].proto)
		}
	}
	return found
}

// subscriptionNames returns a topic's subscriptions, sorted.
func (b *broker) subscriptionNames(topicName string) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[topicName]
	if t == nil {
		return nil, noTopic(topicName)
	}
	return slices.Sorted(maps.Keys(t.subscriptions)), nil
}
