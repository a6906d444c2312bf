package bridge

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tebraproxy/pkg/tebra"
)

// The project of the sink, and its topics by the names of the default
// configuration.
const (
	sinkProject     = "project"
	requestsTopic   = "projects/project/topics/tebra-requests"
	deadLetterTopic = "projects/project/topics/tebra-dead-letters"
)

// mostMessages bounds what a sink keeps for each topic; it counts the others.
const mostMessages = 200_000

// sink is a Pub/Sub of which a test decides how it behaves. It confirms every
// publish, and keeps the messages, unless told otherwise. It is safe for
// concurrent use.
type sink struct {
	pubsubpb.UnimplementedPublisherServer
	addr string
	ln   *flakyListener

	mu        sync.Mutex
	before    publishHook
	after     publishHook
	messages  map[string][]*pubsubpb.PubsubMessage // by topic
	confirmed map[string]bool                      // entries of requests that were confirmed
	early     map[string]bool                      // entries that were acknowledged before
	absent    map[string]bool                      // topics that do not exist
	watched   func(ctx context.Context, entryIDs []string) (notPending []string)

	calls    atomic.Int64 // Publish calls, whatever became of them
	received atomic.Int64 // messages kept or only counted
}

// A publishHook decides on a publish request: nil lets it go on. It may block
// until ctx ends.
type publishHook func(ctx context.Context, req *pubsubpb.PublishRequest) error

// newSink starts a sink that ends with t.
func newSink(t testing.TB) *sink {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{
		addr: ln.Addr().String(), ln: &flakyListener{Listener: ln},
		messages: map[string][]*pubsubpb.PubsubMessage{}, confirmed: map[string]bool{}, early: map[string]bool{},
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(10_000_000)) // Pub/Sub's own limit on a request
	pubsubpb.RegisterPublisherServer(server, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(s.ln) }() // it ends with Stop
	t.Cleanup(func() { server.Stop(); <-done })
	return s
}

// onPublish sets what is asked about every publish request before it is taken:
// an error refuses it, and nothing is kept. nil takes everything.
func (s *sink) onPublish(hook publishHook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = hook
}

// onConfirm sets what is asked once the messages are kept, before the caller is
// told: an error is a confirmation that got lost.
func (s *sink) onConfirm(hook publishHook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = hook
}

// unreachable cuts all connections, and those made from now on, until reachable.
func (s *sink) unreachable() { s.ln.cut(true) }

// reachable ends what unreachable began.
func (s *sink) reachable() { s.ln.cut(false) }

// watch makes the sink look, before it confirms an entry for the first time,
// whether the entry is still pending for a bridge: if it isn't, it was
// acknowledged too early.
func (s *sink) watch(rdb redis.Cmdable, keys tebra.Keys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched = func(ctx context.Context, entryIDs []string) (notPending []string) {
		pipe := rdb.Pipeline()
		found := make([]*redis.XPendingExtCmd, len(entryIDs))
		for i, id := range entryIDs {
			found[i] = pipe.XPendingExt(ctx, &redis.XPendingExtArgs{
				Stream: keys.Requests(), Group: tebra.GroupBridge, Start: id, End: id, Count: 1})
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
		for i, id := range entryIDs {
			if found[i].Err() == nil && len(found[i].Val()) == 0 {
				notPending = append(notPending, id)
			}
		}
		return notPending
	}
}

// removeTopic makes the sink know nothing of a topic.
func (s *sink) removeTopic(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.absent == nil {
		s.absent = map[string]bool{}
	}
	s.absent[name] = true
}

// GetTopic implements what a bridge asks at start, as an emulator does.
func (s *sink) GetTopic(_ context.Context, req *pubsubpb.GetTopicRequest) (*pubsubpb.Topic, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.absent[req.GetTopic()] {
		return nil, status.Error(codes.NotFound, "Resource not found")
	}
	return &pubsubpb.Topic{Name: req.GetTopic()}, nil
}

// Publish implements Pub/Sub's one method that a bridge calls all the time.
func (s *sink) Publish(ctx context.Context, req *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	s.calls.Add(1)
	s.mu.Lock()
	before, after := s.before, s.after
	s.mu.Unlock()
	if len(req.GetMessages()) > 1000 {
		return nil, status.Error(codes.InvalidArgument, "more than 1000 messages in a request")
	}
	if before != nil {
		if err := before(ctx, req); err != nil {
			return nil, err
		}
	}
	s.keep(ctx, req)
	if after != nil {
		if err := after(ctx, req); err != nil {
			return nil, err
		}
	}
	s.confirm(req)
	return &pubsubpb.PublishResponse{MessageIds: make([]string, len(req.GetMessages()))}, nil
}

func (s *sink) keep(ctx context.Context, req *pubsubpb.PublishRequest) {
	s.received.Add(int64(len(req.GetMessages())))
	s.checkPending(ctx, req)
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.messages[req.GetTopic()]
	room := mostMessages - len(kept)
	s.messages[req.GetTopic()] = append(kept, req.GetMessages()[:min(room, len(req.GetMessages()))]...)
}

// checkPending notes which entries of req are not pending although they were
// never confirmed.
func (s *sink) checkPending(ctx context.Context, req *pubsubpb.PublishRequest) {
	s.mu.Lock()
	watched := s.watched
	var fresh []string
	for _, id := range entryIDs(req.GetMessages()) {
		if !s.confirmed[id] {
			fresh = append(fresh, id)
		}
	}
	s.mu.Unlock()
	if watched == nil || req.GetTopic() != requestsTopic || len(fresh) == 0 {
		return
	}
	early := watched(ctx, fresh)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range early {
		if !s.confirmed[id] { // not meanwhile, by another publish
			s.early[id] = true
		}
	}
}

func (s *sink) confirm(req *pubsubpb.PublishRequest) {
	if req.GetTopic() != requestsTopic {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range entryIDs(req.GetMessages()) {
		s.confirmed[id] = true
	}
}

// requests returns the messages that were published for requests, probes left
// out.
func (s *sink) requests() []*pubsubpb.PubsubMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.messages[requestsTopic]), func(m *pubsubpb.PubsubMessage) bool {
		return m.Attributes[tebra.AttrProbe] != ""
	})
}

// probes returns how many probes were published.
func (s *sink) probes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, m := range s.messages[requestsTopic] {
		if m.Attributes[tebra.AttrProbe] != "" {
			n++
		}
	}
	return n
}

// deadLetters returns the dead letters.
func (s *sink) deadLetters() []*pubsubpb.PubsubMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages[deadLetterTopic])
}

// missing returns those of the entries whose publish was never confirmed.
func (s *sink) missing(ids []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []string
	for _, id := range ids {
		if !s.confirmed[id] {
			missing = append(missing, id)
		}
	}
	return missing
}

// times returns how often each entry was published.
func (s *sink) times() map[string]int {
	n := map[string]int{}
	for _, id := range entryIDs(s.requests()) {
		n[id]++
	}
	return n
}

// acknowledgedEarly returns what watch found.
func (s *sink) acknowledgedEarly() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for id := range s.early {
		ids = append(ids, id)
	}
	return ids
}

func entryIDs(messages []*pubsubpb.PubsubMessage) []string {
	ids := make([]string, 0, len(messages))
	for _, m := range messages {
		if id := m.Attributes[tebra.AttrEntryID]; id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

// flakyListener can cut all its connections and refuse new ones.
type flakyListener struct {
	net.Listener
	accepted func() // called for each connection, if set

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

func (l *flakyListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.accepted != nil {
			l.accepted()
		}
		if l.admit(conn) {
			return &listedConn{Conn: conn, list: l}, nil
		}
		reset(conn)
	}
}

func (l *flakyListener) admit(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return false
	}
	if l.conns == nil {
		l.conns = map[net.Conn]bool{}
	}
	l.conns[conn] = true
	return true
}

// cut takes the listener down, with all its connections, or up again.
func (l *flakyListener) cut(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	if !down {
		return
	}
	for conn := range l.conns {
		reset(conn)
		delete(l.conns, conn)
	}
}

func (l *flakyListener) forget(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

// listedConn leaves its listener's list when it is closed.
type listedConn struct {
	net.Conn
	list *flakyListener
}

func (c *listedConn) Close() error {
	c.list.forget(c.Conn)
	return c.Conn.Close()
}

// reset ends a connection the hard way.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it may be closed already
	}
	_ = conn.Close()
}
