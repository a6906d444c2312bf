package bridge

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/alicebob/miniredis/v2"
	"github.com/googleapis/gax-go/v2"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/tebra"
)

// health is what /healthz and /readyz say.
type health struct {
	status    int
	OK        bool
	Consumer  string
	Gate      string
	Beat      string
	Stuck     []string
	Read      int64
	Published int64
}

// ask asks a bridge after its health.
func (r *running) ask(t *testing.T, path string) health {
	t.Helper()
	w := httptest.NewRecorder()
	r.Health().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	h := health{status: w.Code}
	if err := json.Unmarshal(w.Body.Bytes(), &h); err != nil {
		t.Fatalf("GET %s = %s, %v, want JSON", path, w.Body, err)
	}
	if h.OK != (h.status == http.StatusOK) {
		t.Errorf("GET %s = %d with ok %v, want them to agree", path, h.status, h.OK)
	}
	return h
}

// waitCounted waits until a bridge has published and acknowledged n requests.
func (r *running) waitCounted(t *testing.T, n int64) {
	t.Helper()
	peertest.Eventually(t, wait, "the bridge to have counted what it published", func() bool { return r.counts.published.Load() == n })
}

func TestABridgeThatPullsIsAliveAndReady(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.assemble()
	if got := r.ask(t, "/readyz"); got.OK {
		t.Errorf("GET /readyz before the start = %+v, want 503", got)
	}
	if got := r.ask(t, "/healthz"); !got.OK {
		t.Errorf("GET /healthz before the start = %+v, want 200", got)
	}
	r.begin(t)
	b.add(5, "quick")
	r.waitCounted(t, 5)
	peertest.Eventually(t, wait, "it to be ready", func() bool { return r.ask(t, "/readyz").OK })
	got := r.ask(t, "/healthz")
	if !got.OK || got.Consumer != r.Consumer() || got.Gate != "" || got.Published != 5 || got.Read != 5 || len(got.Stuck) != 0 {
		t.Errorf("GET /healthz = %+v, want 200 and 5 read and published", got)
	}
	r.stop(t)
	if got := r.ask(t, "/healthz"); !got.OK {
		t.Errorf("GET /healthz while it ends = %+v, want 200", got)
	}
}

func TestABridgeThatWaitsAtTheGateIsAlive(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.trip(b.fastBreaker(time.Hour))
	r := b.impatient(heartbeatEvery + 2*time.Second)
	r.begin(t)
	b.waitGate(r, false)
	b.aliveFor(r, r.stuckAfter+time.Second)
	if got := r.ask(t, "/healthz"); got.Gate != "breaker" {
		t.Errorf("GET /healthz = %+v, want the gate's reason", got)
	}
}

// impatient returns a bridge that takes its goroutines for stuck after d, which is
// longer than any of them then waits on purpose.
func (b *bundle) impatient(d time.Duration, more ...string) *running {
	b.Helper()
	r := b.assemble(append(more, "CLAIM_IDLE=2s")...)
	r.stuckAfter, r.tidyEvery = d, 500*time.Millisecond
	return r
}

// aliveFor fails the test if the bridge says within that time that it is stuck.
func (b *bundle) aliveFor(r *running, d time.Duration) {
	b.Helper()
	since := time.Now()
	peertest.Eventually(b.T, wait, "time to pass", func() bool {
		if got := r.ask(b.T, "/healthz"); !got.OK {
			b.Fatalf("GET /healthz after %v = %+v, want 200", time.Since(since), got)
		}
		return time.Since(since) > d
	})
}

func TestABridgeWhosePubSubIsAwayIsAlive(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.unreachable()
	b.add(100, "quick")
	r := b.impatient(8*time.Second, "BATCH_SIZE=10") // above the longest wait between two tries
	r.begin(t)
	peertest.Eventually(t, wait, "Pub/Sub to fail", func() bool { return r.tries("pubsub") > 0 })
	b.aliveFor(r, r.stuckAfter+time.Second)
	if got := r.ask(t, "/healthz"); got.Gate != "pubsub" {
		t.Errorf("GET /healthz = %+v, want the gate's reason", got)
	}
}

func TestABridgeWhoseRedisIsAwayIsAliveButNotReady(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*bundle, *running){
		"from the start": func(b *bundle, r *running) { b.server.Kill(); r.begin(b.T) },
		"later": func(b *bundle, r *running) {
			r.begin(b.T)
			b.waitPublished(b.add(5, "quick"))
			b.server.Kill()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := b.impatient(8 * time.Second) // above the longest wait between two tries
			away(b, r)
			peertest.Eventually(t, wait, "Redis to fail", func() bool { return r.tries("redis") > 0 })
			b.aliveFor(r, r.stuckAfter+time.Second)
			r.counts.beat.Store(time.Now().Add(-heartbeatTTL).UnixNano()) // as the time passes
			if got := r.ask(t, "/readyz"); got.OK {
				t.Errorf("GET /readyz without Redis = %+v, want 503", got)
			}
		})
	}
}

// hung is a Pub/Sub client that never returns, not even when its context ends.
type hung struct{ release chan struct{} }

func (h hung) Publish(context.Context, *pubsubpb.PublishRequest, ...gax.CallOption) (*pubsubpb.PublishResponse, error) {
	<-h.release
	return nil, context.Canceled
}

func TestAWorkerThatHangsShows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	h := hung{make(chan struct{})}
	r := b.impatient(heartbeatEvery + 2*time.Second)
	r.deps.Requests = publish.New(h, requestsTopic)
	r.begin(t)
	t.Cleanup(func() { close(h.release) }) // runs before the bridge is waited for
	b.add(1, "quick")
	var got health
	peertest.Eventually(t, wait, "the worker to be found stuck", func() bool { got = r.ask(t, "/healthz"); return !got.OK })
	if len(got.Stuck) != 1 || !strings.HasPrefix(got.Stuck[0], "worker") {
		t.Errorf("GET /healthz = %+v, want one worker that is stuck", got)
	}
	if ready := r.ask(t, "/readyz"); !ready.OK {
		t.Errorf("GET /readyz = %+v, want 200: the rest goes on", ready)
	}
}

// checkHeartbeat holds the fields of a heartbeat against what they may be.
func checkHeartbeat(t *testing.T, r *running, fields map[string]string) {
	t.Helper()
	if fields["consumer"] != r.Consumer() || fields["version"] != "test" || fields["gate"] != "" {
		t.Errorf("heartbeat = %v, want consumer %s, version test, an open gate", fields, r.Consumer())
	}
	for name, bounds := range map[string][2]int64{
		"started": {time.Now().Add(-time.Minute).UnixMilli(), time.Now().UnixMilli()},
		"at":      {time.Now().Add(-time.Minute).UnixMilli(), time.Now().Add(time.Second).UnixMilli()},
		"read":    {5, 5}, "published": {5, 5}, "rejected": {0, 0}, "claimed": {0, 0},
		"lag": {0, 0}, "inHand": {0, 0}, "parked": {0, 0}, "open": {5, 5},
		"memory": {1 << 20, 4 << 30}, "cpuMillis": {1, 24 * 3600 * 1000},
	} {
		n, err := strconv.ParseInt(fields[name], 10, 64)
		if err != nil || n < bounds[0] || n > bounds[1] {
			t.Errorf("heartbeat field %s = %q, want %d to %d", name, fields[name], bounds[0], bounds[1])
		}
	}
}

func TestTheHeartbeatIsInRedisWithATTL(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.assemble()
	r.begin(t)
	b.add(5, "quick")
	r.waitCounted(t, 5)
	if err := r.heartbeat(t.Context()); err != nil {
		t.Fatalf("heartbeat() = %v", err)
	}
	key := b.keys.Heartbeat(r.Consumer())
	checkHeartbeat(t, r, b.rdb.HGetAll(t.Context(), key).Val())
	if ttl := b.rdb.PTTL(t.Context(), key).Val(); ttl <= heartbeatEvery || ttl > heartbeatTTL {
		t.Errorf("the heartbeat's TTL is %v, want above %v and at most %v", ttl, heartbeatEvery, heartbeatTTL)
	}
}

func TestABridgeWorksOnTheEmbeddedRedisToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	mini := miniredis.RunT(t)
	b.rdb = redis.NewClient(&redis.Options{Addr: mini.Addr()})
	t.Cleanup(func() { b.rdb.Close() })
	r := b.assemble("REDIS_URL=redis://" + mini.Addr())
	r.begin(t)
	ids := b.add(5, "quick")
	b.waitPublished(ids)
	r.waitCounted(t, 5)
	if err := r.heartbeat(t.Context()); err != nil {
		t.Fatalf("heartbeat() = %v", err)
	}
	checkHeartbeat(t, r, b.rdb.HGetAll(t.Context(), b.keys.Heartbeat(r.Consumer())).Val())
	if !r.ask(t, "/readyz").OK {
		t.Error("GET /readyz on the embedded Redis, want 200")
	}
	for _, duty := range []func(context.Context) error{r.trim, r.sweep, r.forgetDead} {
		if err := duty(t.Context()); err != nil {
			t.Errorf("a duty of the keeper on the embedded Redis = %v, want nil", err)
		}
	}
	// What a bridge held that died there is claimed there too.
	r.stop(t)
	more := b.add(3, "quick")
	if err := b.rdb.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: tebra.GroupBridge, Consumer: "dead", Streams: []string{b.keys.Requests(), ">"}, Block: -1}).Err(); err != nil {
		t.Fatalf("XREADGROUP: %v", err)
	}
	if err := b.rdb.XDel(t.Context(), b.keys.Requests(), more[2]).Err(); err != nil {
		t.Fatalf("XDEL: %v", err)
	}
	other := b.assemble("REDIS_URL=redis://"+mini.Addr(), "CLAIM_IDLE=1s")
	other.begin(t)
	b.waitPublished(more[:2])
	peertest.Eventually(t, wait, "nothing to be in hand", func() bool { return b.waiting().InHand == 0 })
}

func TestVitalsNameWhoIsStuck(t *testing.T) {
	t.Parallel()
	var v vitals
	v.begin("quick").beat()
	v.begin("late").at.Store(time.Now().Add(-time.Hour).UnixNano())
	v.begin("ended").at.Store(0)
	v.end("ended")
	if got := v.stuck(time.Now().Add(-time.Minute)); !slices.Equal(got, []string{"late"}) {
		t.Errorf("stuck() = %v, want late", got)
	}
	var nobody *pulse
	nobody.beat() // must not panic
}
