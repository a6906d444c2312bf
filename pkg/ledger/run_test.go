package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// wantError checks that err is target, or nil where that is.
func wantError(t testing.TB, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s = %v, want %v", what, err, target)
	}
}

func TestARequestsWayIsToldInItsStatuses(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aWrite)
		f.must(f.l.Return(t.Context(), f.claim(d), tebra.Unavailable))
		f.must(f.l.Release(t.Context(), f.run(d), tebra.RateLimited))
		c := f.run(d)
		if c.Attempt != 2 || c.LastCode != tebra.RateLimited {
			t.Errorf("Claim() = attempt %d, last code %q, want 2, %q", c.Attempt, c.LastCode, tebra.RateLimited)
		}
		f.must(f.l.Complete(t.Context(), c, succeed()))
		want := []string{
			"processing 1", "pending 0 unavailable",
			"processing 1", "pending 1 rate_limited",
			"processing 2", "success 2",
		}
		if got := f.said(d); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("statuses = %q, want %q", got, want)
		}
		f.wantAnswers(d, "ok")
		f.wantSets(d, false, false)
	})
}

func TestStartIsFenced(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		before  func(f *fixture, c *Claim)
		want    error
		started bool
	}{
		{"held", func(*fixture, *Claim) {}, nil, true},
		{"held just long enough", func(f *fixture, _ *Claim) { f.advance(testLease - testNeed) }, nil, true},
		{"too short", func(f *fixture, _ *Claim) { f.advance(testLease - testNeed + time.Millisecond) }, ErrLeaseTooShort, false},
		{"run out", func(f *fixture, _ *Claim) { f.expire() }, ErrLeaseLost, false},
		{"taken over", func(f *fixture, c *Claim) {
			f.expire()
			f.claim(c.Delivery)
		}, ErrLeaseLost, false},
		{"released", func(f *fixture, c *Claim) { f.must(f.l.Release(f.t.Context(), c, tebra.Unavailable)) }, ErrLeaseLost, false},
		{"answered", func(f *fixture, c *Claim) { f.must(f.l.Complete(f.t.Context(), c, succeed())) }, ErrLeaseLost, false},
		{"lost with all of Redis", func(f *fixture, _ *Claim) { f.flush() }, ErrLeaseLost, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			onEveryRedis(t, func(t *testing.T, f *fixture) {
				claim := f.claim(f.send(aWrite))
				c.before(f, claim)
				for range 2 { // the second as after a lost reply
					wantError(t, "Start()", f.l.Start(t.Context(), claim, testNeed), c.want)
					if _, started := f.record(claim.Delivery)["started"]; started != c.started {
						t.Errorf("started = %t, want %t", started, c.started)
					}
				}
			})
		})
	}
}

func TestOnlyARunMayStart(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		settling := f.settle(f.send(aWrite))
		lost := f.send(request{id: "w2", params: `{}`, write: true})
		f.must(f.rdb.Del(t.Context(), f.keys.Ledger(lost.Envelope.Ledger)).Err())
		unknown := f.claim(lost)
		f.wantVerdict(unknown, Unknown)
		f.unchanged("Start() without a run", func() {
			for _, c := range []*Claim{settling, unknown, f.claim(lost)} {
				if err := f.l.Start(t.Context(), c, 0); err == nil {
					t.Errorf("Start() of a claim of verdict %s = nil, want an error", c.Verdict)
				}
				if err := f.l.Return(t.Context(), c, tebra.Unavailable); err == nil {
					t.Errorf("Return() of a claim of verdict %s = nil, want an error", c.Verdict)
				}
			}
		})
	})
}

// A claim may be taken for a run by a copy of its command that comes late, while
// the record calls it unknown.
func TestStartAsksTheRecordNotTheClaim(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		c := f.claim(f.send(aWrite))
		f.must(f.rdb.HSet(t.Context(), f.keys.Ledger(aWrite.hash()), "verdict", "unknown", "started", "1").Err())
		wantError(t, "Start()", f.l.Start(t.Context(), c, testNeed), ErrLeaseLost)
		wantError(t, "Return()", f.l.Return(t.Context(), c, tebra.Unavailable), ErrStale)
	})
}

func TestAReadNeedsNoStart(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		c := f.claim(f.send(aRead))
		f.unchanged("Start() of a read", func() { f.must(f.l.Start(t.Context(), c, testNeed)) })
	})
}

func TestALateUnstartLeavesTheNextStartAlone(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		c := f.claim(f.send(aWrite))
		unstart := func(start int) {
			f.must(f.l.run(t.Context(), f.rdb, unstartScript, c, nil, start).Err())
		}
		wantStarted := func(want string) {
			t.Helper()
			if got := f.record(c.Delivery)["started"]; got != want {
				t.Errorf("started = %q, want %q", got, want)
			}
		}
		f.must(f.l.Start(t.Context(), c, testNeed))
		unstart(1)
		wantStarted("")
		f.must(f.l.Start(t.Context(), c, testNeed))
		unstart(1)
		wantStarted("2")
		f.expire()
		f.wantVerdict(f.claim(c.Delivery), Unknown)
		unstart(2)
		wantStarted("2")
	})
}

func TestStartWaitsForReplicas(t *testing.T) {
	t.Parallel()
	master := peertest.RealRedis(t)
	replica := peertest.RealRedis(t, peertest.WithReplicaOf(master))
	f := newFixture(t, master.Client())
	peertest.Eventually(t, 20*time.Second, "the replica to follow", func() bool {
		n, err := f.rdb.Wait(t.Context(), 1, 100*time.Millisecond).Result()
		return err == nil && n == 1
	})
	f.l.cfg.Replicas = 1
	f.l.cfg.ReplicaWait = 10 * time.Second
	c := f.run(f.send(aWrite))
	got, err := replica.Client().HGet(t.Context(), f.keys.Ledger(aWrite.hash()), "started").Result()
	if err != nil || got != "1" {
		t.Errorf("started on the replica = %q, %v, want 1", got, err)
	}

	f.l.cfg.Replicas = 2
	f.l.cfg.ReplicaWait = 50 * time.Millisecond
	wantError(t, "Start() with one replica of two", f.l.Start(t.Context(), c, testNeed), ErrReplicas)
	if got, started := f.record(c.Delivery)["started"]; started {
		t.Errorf("started after too few replicas = %q, want none", got)
	}
	f.must(f.l.Release(t.Context(), c, tebra.Unavailable))
	f.expire()
	f.wantVerdict(f.claim(c.Delivery), Run)
}

func TestCompleteIsFencedAndOnce(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		before  func(f *fixture, c *Claim)
		want    error
		answers []string
	}{
		{"held", func(*fixture, *Claim) {}, nil, []string{"ok"}},
		{"run out, but nobody took over", func(f *fixture, _ *Claim) { f.expire() }, nil, []string{"ok"}},
		{"taken over", func(f *fixture, c *Claim) {
			f.expire()
			f.claim(c.Delivery)
		}, ErrStale, nil},
		{"taken over under another entry", func(f *fixture, c *Claim) {
			f.expire()
			f.claim(f.send(aWrite))
		}, ErrStale, nil},
		{"answered by another", func(f *fixture, c *Claim) {
			f.expire()
			f.must(f.l.Complete(f.t.Context(), f.settle(c.Delivery), fail(tebra.OutcomeUnknown)))
		}, ErrStale, []string{"outcome_unknown"}},
		{"released", func(f *fixture, c *Claim) { f.must(f.l.Release(f.t.Context(), c, tebra.Unavailable)) }, ErrStale, nil},
		{"lost with all of Redis", func(f *fixture, _ *Claim) { f.flush() }, nil, []string{"ok"}},
		{"lost with all of Redis, and made again", func(f *fixture, _ *Claim) {
			f.flush()
			f.send(aWrite)
		}, ErrStale, nil},
		{"superseded by force", func(f *fixture, c *Claim) {
			f.expire()
			_, err := f.l.Replay(f.t.Context(), replayOf(c.Delivery, aWrite, true))
			f.must(err)
		}, ErrStale, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			onEveryRedis(t, func(t *testing.T, f *fixture) {
				claim := f.run(f.send(aWrite))
				c.before(f, claim)
				complete := func() { wantError(t, "Complete()", f.l.Complete(t.Context(), claim, succeed()), c.want) }
				if c.want != nil {
					f.unchanged("a stale Complete()", complete)
					f.unchanged("a stale Release()", func() {
						if c.name == "released" {
							return
						}
						wantError(t, "Release()", f.l.Release(t.Context(), claim, tebra.Unavailable), ErrStale)
						wantError(t, "Return()", f.l.Return(t.Context(), claim, tebra.Unavailable), ErrStale)
					})
				} else {
					complete()
				}
				f.wantAnswers(claim.Delivery, c.answers...)
				f.unchanged("the second Complete()", complete)
				if c.want == nil {
					f.wantVerdict(f.claim(claim.Delivery), Answered)
				}
			})
		})
	}
}

func TestARejectedEntryIsAnsweredUnlessSomebodyElseDoes(t *testing.T) {
	t.Parallel()
	other := request{id: aWrite.id, params: `{"q":"other"}`, write: true}
	cases := []struct {
		name   string
		before func(f *fixture, d Delivery)
		want   bool
		open   bool
		then   Verdict  // of a delivery that was under way all the same
		said   []string // the entry's answers by then
	}{
		{"never seen", func(f *fixture, d Delivery) { f.must(f.rdb.Del(f.t.Context(), f.keys.Ledger(d.Envelope.Ledger)).Err()) }, true, false, Answered, []string{"too_large"}},
		{"admitted and published by another bridge", func(*fixture, Delivery) {}, true, false, Answered, []string{"too_large"}},
		{"put back into its line", func(f *fixture, d Delivery) { f.must(f.l.Return(f.t.Context(), f.run(d), tebra.Unavailable)) }, true, false, Answered, []string{"too_large"}},
		{"claimed", func(f *fixture, d Delivery) { f.run(d) }, false, true, Busy, nil},
		{"to be tried again", func(f *fixture, d Delivery) { f.must(f.l.Release(f.t.Context(), f.run(d), tebra.Unavailable)) }, false, true, Run, nil},
		{"answered", func(f *fixture, d Delivery) { f.must(f.l.Complete(f.t.Context(), f.run(d), succeed())) }, false, false, Answered, []string{"ok"}},
		{"replayed", func(f *fixture, d Delivery) {
			f.run(d)
			f.expire()
			_, err := f.l.Replay(f.t.Context(), replayOf(d, aWrite, true))
			f.must(err)
		}, false, false, Superseded, nil},
		{"another entry of its request is answered", func(f *fixture, _ Delivery) {
			f.must(f.l.Complete(f.t.Context(), f.run(f.send(aWrite)), succeed()))
		}, true, false, Answered, []string{"too_large"}},
		{"another request under its ID runs", func(f *fixture, d Delivery) {
			f.must(f.rdb.Del(f.t.Context(), f.keys.Ledger(d.Envelope.Ledger)).Err())
			f.run(f.send(other))
		}, true, false, Answered, []string{"too_large"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			onEveryRedis(t, func(t *testing.T, f *fixture) {
				d := f.send(aWrite)
				c.before(f, d)
				answer := fail(tebra.TooLarge)
				answer.ID = "rejection"
				reject := func() {
					got, err := f.l.Reject(t.Context(), d.Envelope, answer)
					if err != nil || got != c.want {
						t.Errorf("Reject() = %v, %v, want %v", got, err, c.want)
					}
				}
				reject()
				f.unchanged("the second Reject()", reject)
				answer.ID = "another's rejection"
				if got, err := f.l.Reject(t.Context(), d.Envelope, answer); err != nil || got {
					t.Errorf("another's Reject() = %v, %v, want false", got, err)
				}
				f.wantSets(d, c.open, c.name == "to be tried again")
				f.wantVerdict(f.claim(d), c.then)
				f.wantAnswers(d, c.said...)
			})
		})
	}
}

func TestARejectionLeavesTheRequestToBeSentAgain(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.arrive(aWrite)
		answer := fail(tebra.TooLarge)
		answer.ID = "rejection"
		if _, err := f.l.Reject(t.Context(), d.Envelope, answer); err != nil {
			t.Fatal(err)
		}
		smaller := f.send(request{id: aWrite.id, params: `{}`, write: true})
		f.must(f.l.Complete(t.Context(), f.run(smaller), succeed()))
		f.wantAnswers(smaller, "ok")
	})
}

func TestOnlyAnErrorRejects(t *testing.T) {
	t.Parallel()
	f := newFixture(t, miniClient(t))
	d := f.send(aWrite)
	unnamed := fail(tebra.TooLarge)
	unnamed.ID = ""
	named := succeed()
	named.ID = "answer"
	for name, answer := range map[string]tebra.Response{"a success": named, "without ID": unnamed} {
		f.unchanged("Reject() of "+name, func() {
			if done, err := f.l.Reject(t.Context(), d.Envelope, answer); err == nil || done {
				t.Errorf("Reject() of %s = %v, %v, want an error", name, done, err)
			}
		})
	}
}

func TestCompleteRefusesWhatIsNoAnswer(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		held := f.claim(f.send(aRead))
		busy := f.claim(f.send(aRead))
		lost := f.send(aWrite)
		f.must(f.rdb.Del(t.Context(), f.keys.Ledger(aWrite.hash())).Err())
		unknown := f.claim(lost)
		cases := []struct {
			name string
			c    *Claim
			resp tebra.Response
		}{
			{"neither data nor code", held, tebra.Response{}},
			{"a code of nobody's", held, fail("sorry")},
			{"a claim that holds nothing", busy, succeed()},
			{"a success of unknown", unknown, succeed()},
			{"an error of unknown that is another", unknown, fail(tebra.DeadLettered)},
		}
		f.unchanged("a refused Complete()", func() {
			for _, c := range cases {
				if err := f.l.Complete(t.Context(), c.c, c.resp); err == nil {
					t.Errorf("Complete() with %s = nil, want an error", c.name)
				}
			}
			if err := f.l.Release(t.Context(), busy, tebra.Unavailable); err == nil {
				t.Error("Release() of a claim that holds nothing = nil, want an error")
			}
		})
	})
}

func TestAnErrorWithoutTextGetsItsMeaning(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		f.answer(f.send(aRead), fail(tebra.Expired))
		if got, want := f.responses()[0].Error, tebra.Expired.Meaning(); got != want {
			t.Errorf("error text = %q, want %q", got, want)
		}
	})
}

func TestReleaseWaitsOutsideTheWindow(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aWrite)
		c := f.run(d)
		f.must(f.l.Release(t.Context(), c, tebra.RateLimited))
		f.wantSets(d, true, true)
		f.unchanged("the second Release()", func() { f.must(f.l.Release(t.Context(), c, tebra.RateLimited)) })
		next := f.claim(d)
		f.wantSets(d, true, false)
		f.unchanged("a copy of the Release() that comes late", func() {
			f.must(f.l.Release(t.Context(), c, tebra.RateLimited))
		})
		f.must(f.l.Complete(t.Context(), next, succeed()))
		f.wantSets(d, false, false)
	})
}

func TestReleasedUnknownStaysUnknown(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aWrite)
		f.run(d)
		f.expire()
		f.must(f.l.Release(t.Context(), f.claim(d), tebra.Unavailable))
		f.wantVerdict(f.claim(d), Unknown)
	})
}

func TestReturnParksTheEntry(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aWrite)
		c := f.run(d)
		f.must(f.l.Return(t.Context(), c, tebra.Unavailable))
		f.wantSets(d, false, false)
		parked, err := f.rdb.XPendingExt(t.Context(), &redis.XPendingExtArgs{
			Stream: f.keys.Requests(), Group: tebra.GroupParked, Start: "-", End: "+", Count: 10,
		}).Result()
		f.must(err)
		if len(parked) != 1 || parked[0].ID != d.Envelope.EntryID || parked[0].Consumer != d.Envelope.Lane {
			t.Errorf("parked = %+v, want entry %s of consumer %s", parked, d.Envelope.EntryID, d.Envelope.Lane)
		}
		f.unchanged("the second Return()", func() { f.must(f.l.Return(t.Context(), c, tebra.Unavailable)) })
		f.expire()
		f.wantVerdict(f.claim(d), Run)
	})
}

func TestReturnOfAnEntryThatIsGoneChangesNothing(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		c := f.claim(f.send(aWrite))
		f.must(f.rdb.XDel(t.Context(), f.keys.Requests(), c.Delivery.Envelope.EntryID).Err())
		f.unchanged("Return()", func() {
			wantError(t, "Return()", f.l.Return(t.Context(), c, tebra.Unavailable), ErrEntryGone)
		})
		f.must(f.l.Release(t.Context(), c, tebra.Unavailable))
	})
}

func TestErrorsNameTheEntryAndNotTheRequest(t *testing.T) {
	t.Parallel()
	f := newFixture(t, miniClient(t))
	secret := request{id: "Jane Doe, born 1970", params: `{}`}
	c := f.claim(f.send(secret))
	f.expire()
	f.claim(c.Delivery)
	err := f.l.Complete(t.Context(), c, succeed())
	if err == nil || !strings.Contains(err.Error(), c.Delivery.Envelope.EntryID) || strings.Contains(err.Error(), secret.id) {
		t.Errorf("Complete() = %v, want an error that names the entry and not the request", err)
	}
}

// counter counts what is sent to Redis: each write of the connection that
// follows a reply is one round trip.
type counter struct {
	mu    sync.Mutex
	trips int
}

func (c *counter) take() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.trips
	c.trips = 0
	return n
}

type countingConn struct {
	net.Conn
	c *counter
}

func (c countingConn) Write(b []byte) (int, error) {
	c.c.mu.Lock()
	c.c.trips++
	c.c.mu.Unlock()
	return c.Conn.Write(b)
}

func TestEveryStepIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	var trips counter
	rdb := redis.NewClient(&redis.Options{
		Addr: peertest.Redis(t).Addr(),
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return countingConn{conn, &trips}, err
		},
	})
	t.Cleanup(func() { rdb.Close() })
	f := newFixture(t, rdb)
	round := func(expect bool) {
		one := func(what string, do func() error) {
			t.Helper()
			trips.take()
			f.must(do())
			if n := trips.take(); expect && n != 1 {
				t.Errorf("%s took %d round trips, want 1", what, n)
			}
		}
		ctx := t.Context()
		for _, end := range []func(c *Claim) error{
			func(c *Claim) error { return f.l.Return(ctx, c, tebra.Unavailable) },
			func(c *Claim) error { return f.l.Release(ctx, c, tebra.Unavailable) },
			func(c *Claim) error { return f.l.Complete(ctx, c, succeed()) },
		} {
			d := f.send(request{id: f.id("w")(), params: `{}`, write: true})
			var c *Claim
			one("Claim", func() (err error) { c, err = f.l.Claim(ctx, d); return })
			one("Start", func() error { return f.l.Start(ctx, c, testNeed) })
			one("Return, Release or Complete", func() error { return end(c) })
			one("Settle", func() error { _, err := f.l.Settle(ctx, d); return err })
			one("Admit", func() error {
				_, _, err := f.l.Admit(ctx, []Admission{{d.Envelope.Ledger, d.Envelope.EntryID, d.Fingerprint}, {"h", "1-1", "f"}})
				return err
			})
			one("Lookup", func() error { _, err := f.l.Lookup(ctx, make([]Ref, 100)); return err })
		}
	}
	round(false) // each script is sent once in full
	round(true)
}
