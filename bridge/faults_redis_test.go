package bridge

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// durable makes a redis-server keep what it has acknowledged.
var durable = peertest.WithArgs("--appendonly", "yes", "--appendfsync", "always")

// outage is a way for Redis to be of no use for a while.
type outage struct {
	begin, end func(b *bundle, p *redisProxy)
	lasts      time.Duration
}

var outages = map[string]outage{
	// The pauses between tries have grown to more than a second by then.
	"unreachable": {
		begin: func(_ *bundle, p *redisProxy) { p.refuse() },
		end:   func(_ *bundle, p *redisProxy) { p.accept() },
		lasts: 5 * time.Second,
	},
	// Longer than a command may take.
	"standing still": {
		begin: func(b *bundle, _ *redisProxy) { b.server.Pause() },
		end:   func(b *bundle, _ *redisProxy) { b.server.Resume() },
		lasts: 6 * time.Second,
	},
	"stopped and started": {
		begin: func(b *bundle, _ *redisProxy) { b.server.Stop() },
		end:   func(b *bundle, _ *redisProxy) { b.server.Start() },
		lasts: 2 * time.Second,
	},
	"killed and started": {
		begin: func(b *bundle, _ *redisProxy) { b.server.Kill() },
		end:   func(b *bundle, _ *redisProxy) { b.server.Start() },
		lasts: 2 * time.Second,
	},
	"out of memory": {
		begin: func(b *bundle, _ *redisProxy) { b.configure("maxmemory", "1") },
		end:   func(b *bundle, _ *redisProxy) { b.configure("maxmemory", "0") },
		lasts: 6 * time.Second, // longer than between two heartbeats
	},
	"read only": {
		begin: func(b *bundle, _ *redisProxy) { b.replicaOf("127.0.0.1", "1") },
		end:   func(b *bundle, _ *redisProxy) { b.replicaOf("NO", "ONE") },
		lasts: 2 * time.Second,
	},
}

func (b *bundle) configure(name, value string) {
	b.Helper()
	if err := b.rdb.ConfigSet(b.Context(), name, value).Err(); err != nil {
		b.Fatalf("CONFIG SET %s %s: %v", name, value, err)
	}
}

func (b *bundle) replicaOf(host, port string) {
	b.Helper()
	if err := b.rdb.ReplicaOf(b.Context(), host, port).Err(); err != nil {
		b.Fatalf("REPLICAOF %s %s: %v", host, port, err)
	}
}

// mostPerSecond is how many commands or connections a bridge that has nothing to
// do, or no Redis to do it with, may send a second. It looks at the breaker five
// times, and at the parked twice.
const mostPerSecond = 30

// firstTries is how many commands, on top, the tries of all workers may take
// until the pauses between them have grown to seconds: seven each.
const firstTries = workers * 7 * 7

func TestAnOutageOfRedisIsSaidOnceAndWaitedOut(t *testing.T) {
	t.Parallel()
	for name, o := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, durable)
			b.sink.watch(b.rdb, b.keys)
			proxy := newRedisProxy(t, b.server.Addr())
			hook, came, release := stuck()
			b.sink.onPublish(hook)
			b.start(proxy.url(), unclaimed)
			ids := b.add(50, "quick")
			peertest.Eventually(t, wait, "the bridge to publish", func() bool { return came.Load() > 0 })
			ids = append(ids, b.add(50, "change")...) // while the first wait

			o.begin(b, proxy)
			release() // so that there is something to acknowledge
			b.checkQuiet(proxy, o.lasts)
			o.end(b, proxy)

			b.untilWritable()
			ids = append(ids, b.add(50, "quick")...)
			b.checkPromises(ids)
			b.checkNobodyToldTwice()
			b.wantLines(slog.LevelWarn, "Redis can't be used", 1)
			peertest.Eventually(t, wait, "the bridge to say that the trouble is over", func() bool {
				return b.logs.count(slog.LevelInfo, "trouble is over") == 1
			})
		})
	}
}

// checkQuiet waits for a while and fails the test if a bridge sent more commands,
// or logged more lines, than one that waits may.
func (b *bundle) checkQuiet(p *redisProxy, lasts time.Duration) {
	b.Helper()
	commands, _ := p.commands()
	dials, lines := p.dials.Load(), b.logs.written()
	over := time.NewTimer(lasts)
	defer over.Stop()
	<-over.C
	most := int64(mostPerSecond*lasts/time.Second) + firstTries
	if now, names := p.commands(); int64(now-commands) > most {
		b.Errorf("the bridge sent %d commands in %v, want at most %d; all so far: %v", now-commands, lasts, most, names)
	}
	if n := p.dials.Load() - dials; n > most {
		b.Errorf("the bridge dialled %d times in %v, want at most %d", n, lasts, most)
	}
	if n := b.logs.written() - lines; n > 5 {
		b.Errorf("the bridge logged %d lines in %v, want at most 5", n, lasts)
	}
}

// waitQuiet waits until a bridge sends no more commands in a second than one that
// waits: what it had read before the trouble takes more.
func (b *bundle) waitQuiet(p *redisProxy) {
	b.Helper()
	peertest.Eventually(b.T, wait, "the bridge to come to rest", func() bool {
		before, _ := p.commands()
		second := time.NewTimer(time.Second)
		defer second.Stop()
		<-second.C
		now, _ := p.commands()
		return int64(now-before) <= mostPerSecond
	})
}

// untilWritable waits until Redis takes writes.
func (b *bundle) untilWritable() {
	b.Helper()
	peertest.Eventually(b.T, wait, "Redis to take writes", func() bool {
		return b.rdb.Set(b.Context(), "written-by-the-test", 1, 0).Err() == nil
	})
}

// waitLines is wantLines for what is logged after it shows elsewhere.
func (b *bundle) waitLines(level slog.Level, text string, want int) {
	b.Helper()
	peertest.Eventually(b.T, wait, fmt.Sprintf("%d lines that hold %q", want, text), func() bool { return b.logs.count(level, text) >= want })
	b.wantLines(level, text, want)
}

func (b *bundle) wantLines(level slog.Level, text string, want int) {
	b.Helper()
	if got := b.logs.count(level, text); got != want {
		b.Errorf("%d lines of at least %v hold %q, want %d", got, level, text, want)
	}
}

func TestWhatIsReadWhileRedisIsOutOfMemoryIsServedAfterwards(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	proxy := newRedisProxy(t, b.server.Addr())
	b.start(proxy.url(), unclaimed)
	ids := b.add(1, "quick")
	b.waitPublished(ids)
	// In one transaction, so that the bridge can read them but not admit them.
	var added []*redis.StringCmd
	if _, err := b.rdb.TxPipelined(t.Context(), func(tx redis.Pipeliner) error {
		// Of the slow ones only a window's worth and some: a lane is refilled once a second.
		for action, n := range map[string]int{"quick": 600, "change": 600, "slow": 50} {
			for range n {
				added = append(added, tx.XAdd(t.Context(), &redis.XAddArgs{Stream: b.keys.Requests(), Values: request(action)}))
			}
		}
		return tx.ConfigSet(t.Context(), "maxmemory", "1").Err()
	}); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range added {
		ids = append(ids, cmd.Val())
	}
	b.waitQuiet(proxy)
	b.checkQuiet(proxy, 2*time.Second)
	b.configure("maxmemory", "0")
	b.answerAll()
	b.checkPromises(ids)
	b.checkNobodyToldTwice()
	b.wantLines(slog.LevelWarn, "Redis can't be used", 1)
}

func TestAFlushLosesNothingThatComesAfterIt(t *testing.T) {
	t.Parallel()
	for name, flush := range map[string]func(*bundle){
		"FLUSHALL": func(b *bundle) {
			if err := b.rdb.FlushAll(b.Context()).Err(); err != nil {
				b.Fatal(err)
			}
		},
		"a restart without persistence": func(b *bundle) { b.server.Kill(); b.server.Start() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			proxy := newRedisProxy(t, b.server.Addr())
			hook, came, release := stuck()
			b.sink.onPublish(hook)
			b.start(proxy.url(), unclaimed)
			b.start(unclaimed)
			held := b.add(50, "quick")
			peertest.Eventually(t, wait, "everything to be in hand and admitted", func() bool {
				return came.Load() == int64(len(held))
			})
			flush(b)
			ids := b.add(50, "quick")
			ids = append(ids, b.add(50, "change")...)
			ids = append(ids, b.add(5, "slow")...)
			release()
			b.waitPublished(held) // they were in hand
			b.checkPromises(ids)
			b.checkQuiet(proxy, 2*time.Second)
			if n := b.logs.count(slog.LevelWarn, "trouble"); n > 2 {
				t.Errorf("two bridges logged %d lines about trouble, want at most one each", n)
			}
		})
	}
}

func TestAFailoverThatUndoesAcknowledgementsOnlyPublishesAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		snapshot string // what the replica still has of the entries: "unread" or "in hand"
	}{
		"reading and acknowledging undone": {"unread"},
		"acknowledging undone":             {"in hand"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			replica := peertest.RealRedis(t, peertest.WithReplicaOf(b.server))
			proxy := newRedisProxy(t, b.server.Addr())
			hook, came, release := stuck()
			var r *running
			if tt.snapshot == "in hand" {
				b.sink.onPublish(hook)
				r = b.start(proxy.url(), unclaimed)
				b.waitForEpoch()
			}
			ids := append(b.add(50, "quick"), b.add(50, "change")...)
			if tt.snapshot == "in hand" {
				peertest.Eventually(t, wait, "everything to be in hand and admitted", func() bool {
					return came.Load() == int64(len(ids))
				})
			}
			b.detach(replica)
			release()
			if tt.snapshot == "unread" {
				r = b.start(proxy.url(), unclaimed)
			}
			b.waitPublished(ids)
			b.waitSettled()
			// Else it acknowledges again what it knows to be published.
			peertest.Eventually(t, wait, "the bridge to know that all is acknowledged", r.hand.empty)
			before := len(b.sink.requests())

			proxy.refuse()
			b.server.Kill()
			b.rdb = replica.Client()
			proxy.switchTo(replica.Addr())
			ids = append(ids, b.add(20, "quick")...)
			peertest.Eventually(t, wait, "the undone to be published again", func() bool {
				return len(b.sink.requests()) >= before+len(ids)
			})
			b.checkPromises(ids)
			if n := len(b.sink.requests()); n > before+len(ids) {
				t.Errorf("%d messages were published after the failover, want %d", n-before, len(ids))
			}
			b.wantLines(slog.LevelWarn, "Redis can't be used", 1)
		})
	}
}

// waitForEpoch waits until a bridge has joined.
func (b *bundle) waitForEpoch() {
	b.Helper()
	peertest.Eventually(b.T, wait, "a bridge to join", func() bool {
		return b.rdb.Exists(b.Context(), b.keys.Epoch()).Val() == 1
	})
}

// detach waits until the replica has everything, and makes it a master of its
// own that gets nothing of what is written from now on.
func (b *bundle) detach(replica *peertest.RedisServer) {
	b.Helper()
	client := replica.Client()
	if err := b.rdb.Wait(b.Context(), 1, wait).Err(); err != nil {
		b.Fatalf("WAIT: %v", err)
	}
	peertest.Eventually(b.T, wait, "the replica to have everything", func() bool {
		return client.XLen(b.Context(), b.keys.Requests()).Val() == b.rdb.XLen(b.Context(), b.keys.Requests()).Val()
	})
	if err := client.ReplicaOf(b.Context(), "NO", "ONE").Err(); err != nil {
		b.Fatalf("REPLICAOF NO ONE: %v", err)
	}
}

func TestAGroupThatSomebodyDestroyedIsMadeAgainWithCare(t *testing.T) {
	t.Parallel()
	b := setup(t)
	proxy := newRedisProxy(t, b.server.Addr())
	b.start(proxy.url(), unclaimed)
	ids := append(b.add(20, "quick"), b.add(20, "change")...)
	b.checkPromises(ids)
	answered := b.complete(ids[:10])
	answered = append(answered, b.complete(ids[20:30])...)
	statuses := len(b.entries(b.keys.Status()))
	for _, group := range []string{tebra.GroupBridge, tebra.GroupParked} {
		if err := b.rdb.XGroupDestroy(t.Context(), b.keys.Requests(), group).Err(); err != nil {
			t.Fatal(err)
		}
	}
	peertest.Eventually(t, wait, "the unanswered to be published again", func() bool {
		return len(b.sink.requests()) >= 2*len(ids)-len(answered)
	})
	b.checkPromises(append(ids, b.add(10, "quick")...))
	for _, id := range answered {
		if n := b.sink.times()[id]; n != 1 {
			t.Errorf("entry %s, which was answered, was published %d times, want once", id, n)
		}
	}
	if got, want := len(b.entries(b.keys.Status())), statuses+10; got != want {
		t.Errorf("%d statuses were written, want %d: nobody is told pending twice", got, want)
	}
	b.wantLines(slog.LevelWarn, "the consumer group is gone", 1)
	b.checkQuiet(proxy, time.Second)
}

// complete gives entries that were published their terminal answer, as the
// functions do, and returns them.
func (b *bundle) complete(ids []string) []string {
	b.Helper()
	l := ledger.New(b.rdb, b.keys, ledger.Config{})
	for _, m := range b.sink.requests() {
		e, err := tebra.ParseEnvelope(m.Attributes)
		if err != nil {
			b.Fatal(err)
		}
		if !slices.Contains(ids, e.EntryID) {
			continue
		}
		req, err := tebra.DecodeMessage(m.Data)
		if err != nil {
			b.Fatal(err)
		}
		claim, err := l.Claim(b.Context(), ledger.Delivery{
			Envelope: e, Fingerprint: tebra.Fingerprint(req.Action, req.Params), Write: req.Action == "change",
		})
		if err != nil || claim.Verdict != ledger.Run {
			b.Fatalf("Claim(%s) = %v, %v, want run", e.EntryID, claim, err)
		}
		if err := l.Complete(b.Context(), claim, tebra.Response{Data: []byte("null")}); err != nil {
			b.Fatal(err)
		}
	}
	return ids
}
