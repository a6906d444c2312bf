package ledger

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

func TestClaimDecidesAsDrawn(t *testing.T) {
	t.Parallel()
	otherWrite := request{id: aWrite.id, params: `{"q":2}`, write: true}
	// Each case prepares a record and returns the delivery to be claimed.
	cases := []struct {
		name    string
		prepare func(f *fixture) Delivery
		want    Verdict
		attempt int
		answers []string
		open    bool
	}{
		{"a read without record runs", func(f *fixture) Delivery { return f.send(aRead) }, Run, 1, nil, true},
		{"an admitted write runs", func(f *fixture) Delivery { return f.send(aWrite) }, Run, 1, nil, true},
		{"an answered entry is acknowledged", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.answer(d, succeed())
			return d
		}, Answered, 1, []string{"ok"}, false},
		{"an answered entry stays answered when its set entry came back", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.answer(d, succeed())
			return f.admit(d)
		}, Answered, 1, []string{"ok"}, false},
		{"the same request under a new entry is told the answer", func(f *fixture) Delivery {
			f.answer(f.send(aWrite), succeed())
			return f.send(aWrite)
		}, Repeated, 1, []string{"ok"}, false},
		{"an error is repeated too", func(f *fixture) Delivery {
			f.answer(f.send(aRead), fail(tebra.Rejected))
			return f.send(aRead)
		}, Repeated, 1, []string{"rejected"}, false},
		{"where the answer is gone it is a duplicate", func(f *fixture) Delivery {
			f.answer(f.send(aWrite), succeed())
			f.must(f.rdb.XTrimMaxLen(f.t.Context(), f.keys.Responses(), 0).Err())
			return f.send(aWrite)
		}, Conflict, 1, []string{"duplicate"}, false},
		{"other params under the same ID are a duplicate", func(f *fixture) Delivery {
			f.answer(f.send(aWrite), succeed())
			return f.send(otherWrite)
		}, Conflict, 1, []string{"duplicate"}, false},
		{"other params are a duplicate before the first ran", func(f *fixture) Delivery {
			f.send(aWrite)
			return f.send(otherWrite)
		}, Conflict, 0, []string{"duplicate"}, false},
		{"other params are a duplicate while the first runs", func(f *fixture) Delivery {
			f.run(f.send(aWrite))
			return f.send(otherWrite)
		}, Conflict, 1, []string{"duplicate"}, false},
		{"another action under the same ID is a duplicate", func(f *fixture) Delivery {
			f.answer(f.send(aWrite), succeed())
			return f.send(request{id: aWrite.id, params: aWrite.params})
		}, Conflict, 1, []string{"duplicate"}, false},
		{"another user's request of the same ID runs", func(f *fixture) Delivery {
			f.answer(f.send(aWrite), succeed())
			d := f.arrive(aWrite)
			d.Envelope.UserID, d.Envelope.Ledger = "user-2", tebra.LedgerHash("user-2", aWrite.id)
			return f.admit(d)
		}, Run, 1, nil, true},
		{"a leased record is busy", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.claim(d)
			return d
		}, Busy, 1, nil, true},
		{"the same request under a new entry is busy while leased", func(f *fixture) Delivery {
			f.claim(f.send(aWrite))
			return f.send(aWrite)
		}, Busy, 1, nil, true},
		{"a lease that ran out without a start runs again", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.claim(d)
			f.expire()
			return d
		}, Run, 2, nil, true},
		{"a read whose lease ran out runs again", func(f *fixture) Delivery {
			d := f.send(aRead)
			f.run(d)
			f.expire()
			return d
		}, Run, 2, nil, true},
		{"a started write whose lease ran out is unknown", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.run(d)
			f.expire()
			return d
		}, Unknown, 1, nil, true},
		{"it is so under a new entry", func(f *fixture) Delivery {
			f.run(f.send(aWrite))
			f.expire()
			return f.send(aWrite)
		}, Unknown, 1, nil, true},
		{"it is so when the policy calls the action a read by now", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.run(d)
			f.expire()
			d.Write = false
			return d
		}, Unknown, 1, nil, true},
		{"unknown stays unknown after a crash", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.run(d)
			f.expire()
			f.claim(d)
			f.expire()
			return d
		}, Unknown, 1, nil, true},
		{"unknown by its epoch stays unknown after a crash", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.flush()
			f.claim(d)
			f.expire()
			return d
		}, Unknown, 0, nil, true},
		{"a released request runs again", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.must(f.l.Release(f.t.Context(), f.run(d), tebra.RateLimited))
			return d
		}, Run, 2, nil, true},
		{"a released request may run under another entry", func(f *fixture) Delivery {
			f.must(f.l.Release(f.t.Context(), f.run(f.send(aWrite)), tebra.RateLimited))
			return f.send(aWrite)
		}, Run, 2, nil, true},
		{"a request returned without a call runs as if for the first time", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.must(f.l.Return(f.t.Context(), f.claim(d), tebra.Unavailable))
			return d
		}, Run, 1, nil, true},
		{"a call that was begun counts, also when its request is returned", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.must(f.l.Return(f.t.Context(), f.run(d), tebra.Unavailable))
			return d
		}, Run, 2, nil, true},
		{"a write without record is unknown", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.must(f.rdb.Del(f.t.Context(), f.keys.Ledger(aWrite.hash())).Err())
			return d
		}, Unknown, 0, nil, true},
		{"a write of an earlier life of Redis is unknown", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.flush()
			return d
		}, Unknown, 0, nil, true},
		{"a write whose record is of another epoch is unknown", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.flush()
			f.send(aWrite)
			return d
		}, Unknown, 0, nil, true},
		{"a write whose record is older than its epoch is unknown", func(f *fixture) Delivery {
			f.send(aWrite)
			f.must(f.rdb.Del(f.t.Context(), f.keys.Epoch()).Err())
			return f.send(aWrite)
		}, Unknown, 0, nil, true},
		{"a write is unknown once the epoch has changed", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.must(f.rdb.Set(f.t.Context(), f.keys.Epoch(), "another", 0).Err())
			return d
		}, Unknown, 0, nil, true},
		{"a done write is done in any epoch", func(f *fixture) Delivery {
			f.answer(f.send(aWrite), succeed())
			f.must(f.rdb.Del(f.t.Context(), f.keys.Epoch()).Err())
			return f.send(aWrite)
		}, Repeated, 1, []string{"ok"}, false},
		{"a read of an earlier life of Redis runs", func(f *fixture) Delivery {
			d := f.send(aRead)
			f.flush()
			return d
		}, Run, 1, nil, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			onEveryRedis(t, func(t *testing.T, f *fixture) {
				d := c.prepare(f)
				got := f.claim(d)
				f.wantVerdict(got, c.want)
				if got.Attempt != c.attempt {
					t.Errorf("Claim().Attempt = %d, want %d", got.Attempt, c.attempt)
				}
				f.wantAnswers(d, c.answers...)
				f.wantSets(d, c.open, false)
			})
		})
	}
}

func TestSettleDecidesAsDrawn(t *testing.T) {
	t.Parallel()
	unreadable := func(d Delivery) Delivery {
		d.Fingerprint = ""
		return d
	}
	cases := []struct {
		name    string
		prepare func(f *fixture) Delivery
		want    Verdict
		answers []string
	}{
		{"a write that nobody started is the caller's to answer", func(f *fixture) Delivery { return f.send(aWrite) }, Run, nil},
		{"a read that nobody claimed is the caller's to answer", func(f *fixture) Delivery { return f.send(aRead) }, Run, nil},
		{"a released write is the caller's to answer", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.must(f.l.Release(f.t.Context(), f.run(d), tebra.RateLimited))
			return d
		}, Run, nil},
		{"a claimed write that was not started is the caller's to answer", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.claim(d)
			f.expire()
			return d
		}, Run, nil},
		{"a started write is unknown", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.run(d)
			f.expire()
			return d
		}, Unknown, nil},
		{"a write without record is unknown", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.flush()
			return unreadable(d)
		}, Unknown, nil},
		{"a leased record is busy", func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.claim(d)
			return d
		}, Busy, nil},
		{"an answered entry is acknowledged", func(f *fixture) Delivery {
			d := f.send(aRead)
			f.answer(d, succeed())
			return unreadable(d)
		}, Answered, []string{"ok"}},
		{"the answer is repeated for another entry", func(f *fixture) Delivery {
			f.answer(f.send(aRead), succeed())
			return f.send(aRead)
		}, Repeated, []string{"ok"}},
		{"an unreadable body whose record it made is the caller's to answer", func(f *fixture) Delivery {
			return unreadable(f.send(aWrite))
		}, Run, nil},
		{"an unreadable body never ends another entry's request", func(f *fixture) Delivery {
			f.send(aWrite)
			return unreadable(f.send(aWrite))
		}, Conflict, []string{"duplicate"}},
		{"an unreadable body is never told another entry's answer", func(f *fixture) Delivery {
			f.answer(f.send(aRead), succeed())
			return unreadable(f.send(aRead))
		}, Conflict, []string{"duplicate"}},
		{"what can't be compared with an unreadable body is a duplicate", func(f *fixture) Delivery {
			f.settle(unreadable(f.send(aRead)))
			return f.send(aRead)
		}, Conflict, []string{"duplicate"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			onEveryRedis(t, func(t *testing.T, f *fixture) {
				d := c.prepare(f)
				words := len(f.said(d))
				got := f.settle(d)
				f.wantVerdict(got, c.want)
				f.wantAnswers(d, c.answers...)
				if len(c.answers) == 0 && len(f.said(d)) != words {
					t.Errorf("Settle() wrote a status: %q", f.said(d))
				}
				if !got.Verdict.Held() {
					return
				}
				f.must(f.l.Complete(t.Context(), got, fail(tebra.OutcomeUnknown)))
				f.wantAnswers(d, "outcome_unknown")
				f.wantSets(d, false, false)
			})
		})
	}
}

func TestSettleCountsNoAttempt(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aRead)
		f.must(f.l.Release(t.Context(), f.claim(d), tebra.Unavailable))
		if got := f.settle(d); got.Attempt != 1 || got.LastCode != tebra.Unavailable {
			t.Errorf("Settle() = attempt %d, last code %q, want 1, %q", got.Attempt, got.LastCode, tebra.Unavailable)
		}
	})
}

func TestBusyTellsWhenTheLeaseEnds(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aRead)
		if got := f.claim(d); got.Lease != testLease {
			t.Errorf("Claim().Lease = %v, want %v", got.Lease, testLease)
		}
		f.advance(testLease - time.Millisecond)
		busy := f.claim(d)
		f.wantVerdict(busy, Busy)
		if busy.Lease != time.Millisecond {
			t.Errorf("Claim().Lease of a busy record = %v, want %v", busy.Lease, time.Millisecond)
		}
		f.advance(busy.Lease)
		f.wantVerdict(f.claim(d), Run)
	})
}

func TestClaimTellsArrivalAndAge(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.arrive(aRead)
		f.advance(5 * time.Second)
		d = f.admit(d)
		f.advance(time.Second)
		c := f.claim(d)
		if !c.Arrival.Equal(began) || c.Age != 6*time.Second {
			t.Errorf("Claim() = arrival %v, age %v, want %v, 6s", c.Arrival, c.Age, began)
		}
		d = f.delivery(aWrite, "9999999999999999-0", "future")
		d.Envelope.EntryID = "9999999999999999-0"
		if c = f.claim(d); !c.Arrival.Equal(f.clock()) || c.Age != 0 {
			t.Errorf("Claim() of an ID from the future = arrival %v, age %v, want %v, 0s", c.Arrival, c.Age, f.clock())
		}
		score, err := f.rdb.ZScore(t.Context(), f.keys.Open(tebra.DefaultLane), d.Envelope.EntryID).Result()
		f.must(err)
		if int64(score) != f.now.Load() {
			t.Errorf("score of an entry that the claim made open = %.0f, want %d", score, f.now.Load())
		}
	})
}

func TestClaimResentAfterALostReplyChangesNothing(t *testing.T) {
	t.Parallel()
	cases := map[string]func(f *fixture) Delivery{
		"run": func(f *fixture) Delivery { return f.send(aWrite) },
		"run again": func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.must(f.l.Release(f.t.Context(), f.claim(d), tebra.RateLimited))
			return d
		},
		"unknown": func(f *fixture) Delivery {
			d := f.send(aWrite)
			f.flush()
			return d
		},
		"conflict": func(f *fixture) Delivery {
			f.send(aWrite)
			return f.send(request{id: aWrite.id, params: `{}`, write: true})
		},
		"repeated": func(f *fixture) Delivery {
			f.answer(f.send(aRead), succeed())
			return f.send(aRead)
		},
		"answered": func(f *fixture) Delivery {
			d := f.send(aRead)
			f.answer(d, succeed())
			return d
		},
		"busy": func(f *fixture) Delivery {
			d := f.send(aRead)
			f.claim(d)
			return d
		},
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEveryRedis(t, func(t *testing.T, f *fixture) {
				d := prepare(f)
				first, err := f.l.claim(t.Context(), d, "call", "T", "A")
				f.must(err)
				f.unchanged("the second Claim()", func() {
					second, err := f.l.claim(t.Context(), d, "call", "T", "B")
					f.must(err)
					if fmt.Sprint(*second) != fmt.Sprint(*first) {
						t.Errorf("second Claim() = %+v, want %+v", *second, *first)
					}
				})
			})
		})
	}
}

func TestACopyOfAClaimThatComesAfterItsReleaseTakesNothing(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aWrite)
		c, err := f.l.claim(t.Context(), d, "call", "T", "A")
		f.must(err)
		f.must(f.l.Release(t.Context(), c, tebra.RateLimited))
		f.unchanged("the late copy", func() {
			late, err := f.l.claim(t.Context(), d, "call", "T", "A")
			f.must(err)
			f.wantVerdict(late, Busy)
		})
	})
}

func TestOfManyClaimsAtOnceOneRuns(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aWrite)
		const workers = 16
		verdicts := make([]Verdict, workers)
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				c, err := f.l.Claim(t.Context(), d)
				if err != nil {
					t.Error(err)
					return
				}
				verdicts[i] = c.Verdict
			})
		}
		wg.Wait()
		slices.Sort(verdicts)
		want := append(slices.Repeat([]Verdict{Busy}, workers-1), Run)
		if !slices.Equal(verdicts, want) {
			t.Errorf("verdicts = %v, want %v", verdicts, want)
		}
	})
}

func TestRepeatedAnswerIsTheOldOneUnderNewNames(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		f.answer(f.send(aRead), succeed())
		f.advance(time.Minute)
		d := f.send(aRead)
		f.advance(2 * time.Second)
		f.claim(d)
		rs := f.responses()
		old, got := rs[0], rs[1]
		if got.ID == old.ID || got.CorrelationID != d.Envelope.CorrelationID || got.RequestID != old.RequestID {
			t.Errorf("repeated answer = %+v, want a new ID and the new correlation ID", got)
		}
		if string(got.Data) != string(old.Data) || got.Attempts != old.Attempts {
			t.Errorf("repeated answer = data %s, attempts %d, want %s, %d", got.Data, got.Attempts, old.Data, old.Attempts)
		}
		if !got.Timestamp.Equal(f.clock()) || got.Duration != 2*time.Second {
			t.Errorf("repeated answer = timestamp %v, duration %v, want %v, 2s", got.Timestamp, got.Duration, f.clock())
		}
	})
}

func TestAnAnswerIsOnlyOnceEvenAfterTheListOverflowed(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		f.l.maxAnswered = 3
		ds := []Delivery{f.send(aRead)}
		f.answer(ds[0], succeed())
		late := f.send(aRead)
		for range 5 {
			d := f.send(aRead)
			f.wantVerdict(f.claim(d), Repeated)
			ds = append(ds, d)
		}
		listed := 0
		for field := range f.record(ds[0]) {
			if field[:2] == "a:" {
				listed++
			}
		}
		if listed != 3 {
			t.Errorf("the record lists %d answered entries, want 3", listed)
		}
		for _, d := range ds {
			f.wantVerdict(f.claim(d), Answered)
			f.wantAnswers(d, "ok")
		}
		f.wantVerdict(f.claim(late), Repeated)
		f.wantAnswers(late, "ok")
	})
}

func TestAnEntryThatLeavesTheListNeverComesFromTheStreamAgain(t *testing.T) {
	t.Parallel()
	for _, group := range []string{tebra.GroupBridge, tebra.GroupParked} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			onEveryRedis(t, func(t *testing.T, f *fixture) {
				f.l.maxAnswered = 1
				d := f.send(aRead)
				f.must(f.rdb.Do(t.Context(), "XCLAIM", f.keys.Requests(), group, "c", 0, d.Envelope.EntryID, "FORCE", "JUSTID").Err())
				f.answer(d, succeed())
				f.wantVerdict(f.claim(f.send(aRead)), Repeated)
				pending, err := f.rdb.XPending(t.Context(), f.keys.Requests(), group).Result()
				f.must(err)
				if pending.Count != 0 {
					t.Errorf("group %s has %d entries pending, want none", group, pending.Count)
				}
			})
		})
	}
}

func TestTheOldestAnsweredEntryLeavesTheList(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		f.l.maxAnswered = 2
		// Neither as text nor as floating point numbers do these sort right.
		for _, entry := range []string{"9007199254740993-9", "9007199254740993-10", "9007199254740992-0", "999-0"} {
			d := f.admit(f.delivery(aRead, entry, "c-"+entry))
			if c := f.claim(d); c.Verdict == Run {
				f.must(f.l.Complete(t.Context(), c, succeed()))
			}
		}
		var listed []string
		for field := range f.record(f.delivery(aRead, "", "")) {
			if field[:2] == "a:" {
				listed = append(listed, field[2:])
			}
		}
		slices.Sort(listed)
		if want := []string{"9007199254740993-10", "999-0"}; !slices.Equal(listed, want) {
			t.Errorf("the record lists %q, want the newest and the last one, %q", listed, want)
		}
	})
}

func TestEveryWordPutsOffTheRecordsEnd(t *testing.T) {
	t.Parallel()
	steps := map[string]func(f *fixture, d Delivery){
		"Admit":    func(f *fixture, d Delivery) { f.admit(d) },
		"Claim":    func(f *fixture, d Delivery) { f.claim(d) },
		"Settle":   func(f *fixture, d Delivery) { f.settle(d) },
		"Complete": func(f *fixture, d Delivery) { f.answer(d, succeed()) },
		"Complete late": func(f *fixture, d Delivery) {
			c := f.claim(d)
			f.advance(2 * testLease)
			f.must(f.rdb.PExpire(f.t.Context(), f.keys.Ledger(d.Envelope.Ledger), time.Minute).Err())
			f.must(f.l.Complete(f.t.Context(), c, succeed()))
		},
		"Answered": func(f *fixture, d Delivery) {
			f.answer(d, succeed())
			f.must(f.rdb.PExpire(f.t.Context(), f.keys.Ledger(d.Envelope.Ledger), time.Minute).Err())
			f.wantVerdict(f.claim(d), Answered)
		},
		"Release": func(f *fixture, d Delivery) {
			f.must(f.l.Release(f.t.Context(), f.claim(d), tebra.RateLimited))
		},
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEveryRedis(t, func(t *testing.T, f *fixture) {
				d := f.send(aWrite)
				key := f.keys.Ledger(d.Envelope.Ledger)
				f.must(f.rdb.PExpire(t.Context(), key, time.Minute).Err())
				step(f, d)
				ttl, err := f.rdb.PTTL(t.Context(), key).Result()
				f.must(err)
				if ttl < testTTL-time.Minute || ttl > testTTL+testLease {
					t.Errorf("the record ends in %v, want %v, and at most a lease more", ttl, testTTL)
				}
			})
		})
	}
}

// TestAClaimedRecordLastsWhateverComesMeanwhile: Complete relies, within its lease, on
// what the claim has put off.
func TestAClaimedRecordLastsWhateverComesMeanwhile(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aWrite)
		c := f.claim(d)
		f.send(aWrite) // the client sends it again
		f.must(f.l.Complete(t.Context(), c, succeed()))
		ttl, err := f.rdb.PTTL(t.Context(), f.keys.Ledger(d.Envelope.Ledger)).Result()
		f.must(err)
		if want := testTTL + testLease - time.Minute; ttl < want {
			t.Errorf("the record ends in %v, want it to last as long as its claim had it, %v and more", ttl, want)
		}
	})
}

func TestWhatScriptsWriteIsWhatTebraWrites(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		ok, bad, other := f.send(aRead), f.send(aWrite), f.send(request{id: aWrite.id, params: `{}`, write: true})
		f.advance(1234 * time.Millisecond)
		f.must(f.l.Release(t.Context(), f.claim(ok), tebra.Unavailable))
		f.answer(ok, tebra.Response{Data: []byte(`{"name":"Ünïcode","n":[1,2]}`)})
		f.answer(bad, tebra.Response{ErrorCode: tebra.Rejected, Error: "no such patient"})
		f.claim(other)
		f.claim(f.send(aWrite))
		f.wantRaw(f.keys.Responses(), 4, func(m map[string]string) ([]string, error) {
			r, err := tebra.ParseResponse(m)
			return r.Fields(), err
		})
		f.wantRaw(f.keys.Status(), 8, func(m map[string]string) ([]string, error) {
			s, err := tebra.ParseStatus(m)
			return s.Fields(), err
		})
		if got := f.responses()[0].Duration; got != 1234*time.Millisecond {
			t.Errorf("duration = %v, want 1.234s", got)
		}
	})
}

// wantRaw checks that every entry of a stream is, field by field and in order,
// what its reading would be written as.
func (f *fixture) wantRaw(stream string, n int, rewrite func(map[string]string) ([]string, error)) {
	f.t.Helper()
	raw, err := f.rdb.Do(f.t.Context(), "XRANGE", stream, "-", "+").Slice()
	f.must(err)
	if len(raw) != n {
		f.t.Fatalf("%s has %d entries, want %d", stream, len(raw), n)
	}
	for _, entry := range raw {
		var got []string
		m := map[string]string{}
		values := entry.([]any)[1].([]any)
		for i := 0; i < len(values); i += 2 {
			got = append(got, values[i].(string), values[i+1].(string))
			m[values[i].(string)] = values[i+1].(string)
		}
		want, err := rewrite(m)
		f.must(err)
		if !slices.Equal(got, want) {
			f.t.Errorf("%s has\n%q, want\n%q", stream, got, want)
		}
	}
}

func TestTimesAreWrittenAsTebraWritesThem(t *testing.T) {
	t.Parallel()
	script := redis.NewScript(clockLua + deliveryLua + `return rfc3339(now)`)
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		times := []time.Time{
			time.UnixMilli(0), time.UnixMilli(999), time.UnixMilli(951_782_399_999), time.UnixMilli(951_782_400_000),
			time.Date(2024, 2, 29, 23, 59, 59, 999e6, time.UTC), time.Date(2100, 2, 28, 12, 0, 0, 0, time.UTC),
			time.Date(2100, 3, 1, 0, 0, 0, 0, time.UTC), time.Date(2025, 12, 31, 23, 59, 59, 0, time.UTC),
		}
		for day := range 800 { // through a leap year, at odd times
			times = append(times, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(day)*24*time.Hour+time.Duration(day)*97_001*time.Millisecond))
		}
		for _, at := range times {
			got, err := script.Run(t.Context(), f.rdb, []string{"a", "b", "c", "d", "e", "f"},
				millis(at), "1", "t", "1-1", "", "", "", "", "0", "1", "g", "h").Text()
			f.must(err)
			if want := tebra.FormatTime(at); got != want {
				t.Fatalf("rfc3339(%d) = %s, want %s", at.UnixMilli(), got, want)
			}
		}
	})
}

func TestTheServersClockDecidesWithoutAnother(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		f.l = New(f.rdb, f.keys, Config{})
		server, err := f.rdb.Time(t.Context()).Result()
		f.must(err)
		d := f.arrive(aRead)
		d.Envelope.AdmittedAt = server.Add(-time.Hour)
		c := f.claim(d)
		if c.Age < time.Hour || c.Age > time.Hour+time.Minute || c.Lease != DefaultLease {
			t.Errorf("Claim() = age %v, lease %v, want an hour, %v", c.Age, c.Lease, DefaultLease)
		}
		f.must(f.l.Complete(t.Context(), c, succeed()))
		if got := f.responses()[0].Timestamp; got.Sub(server).Abs() > time.Minute {
			t.Errorf("timestamp = %v, want about %v", got, server)
		}
	})
}

func TestAScriptThatRedisRefusesChangesNothing(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t)
	f := newFixture(t, server.Client())
	full := func(yes bool) {
		t.Helper()
		limit := "0"
		if yes {
			limit = "1"
		}
		f.must(f.rdb.ConfigSet(t.Context(), "maxmemory", limit).Err())
	}
	d := f.send(aWrite)
	refused := func(what string, do func() error) {
		t.Helper()
		full(true)
		f.unchanged(what, func() {
			if err := do(); !redis.HasErrorPrefix(rootError(err), "OOM") {
				t.Errorf("%s on a full Redis = %v, want an OOM error", what, err)
			}
		})
		full(false)
	}
	refused("Claim()", func() error { _, err := f.l.Claim(t.Context(), d); return err })
	c := f.run(d)
	refused("Release()", func() error { return f.l.Release(t.Context(), c, tebra.Unavailable) })
	refused("Complete()", func() error { return f.l.Complete(t.Context(), c, succeed()) })
	f.must(f.l.Complete(t.Context(), c, succeed()))
	again := f.send(aWrite)
	refused("Claim() that repeats", func() error { _, err := f.l.Claim(t.Context(), again); return err })
	f.wantVerdict(f.claim(again), Repeated)
	f.wantAnswers(d, "ok")
	f.wantAnswers(again, "ok")
}

func rootError(err error) error {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err
}
