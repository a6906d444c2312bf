package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"tebraproxy/pkg/tebra"
)

// replayOf is an operator's wish to replay d, which asked for r.
func replayOf(d Delivery, r request, force bool) Replay {
	e := d.Envelope
	return Replay{
		Request: tebra.Request{
			ID: r.id, Action: r.action(), Params: json.RawMessage(r.params), UserID: e.UserID,
			Timestamp: "2026-01-01T00:00:00Z", CorrelationID: e.CorrelationID,
		},
		EntryID: e.EntryID, Lane: e.Lane, Write: r.write, Force: force,
	}
}

// replay replays d and takes the new entry as a bridge does.
func (f *fixture) replay(d Delivery, r request, force bool) Delivery {
	f.t.Helper()
	got, err := f.l.Replay(f.t.Context(), replayOf(d, r, force))
	f.must(err)
	if got.Already {
		f.t.Fatalf("Replay() found entry %s, want a new one", got.EntryID)
	}
	return f.admit(f.delivery(r, got.EntryID, d.Envelope.CorrelationID))
}

// refusalOf returns why the ledger refused, "" when it did not.
func refusalOf(err error) Refusal {
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return ""
	}
	return refused.Reason
}

func TestReplayRefusesAsDrawn(t *testing.T) {
	t.Parallel()
	ok := Refusal("")
	write := func(prepare func(f *fixture, d Delivery)) func(f *fixture) (Delivery, request) {
		return func(f *fixture) (Delivery, request) {
			d := f.send(aWrite)
			prepare(f, d)
			return d, aWrite
		}
	}
	read := func(prepare func(f *fixture, d Delivery)) func(f *fixture) (Delivery, request) {
		return func(f *fixture) (Delivery, request) {
			d := f.send(aRead)
			prepare(f, d)
			return d, aRead
		}
	}
	cases := []struct {
		name           string
		prepare        func(f *fixture) (Delivery, request)
		unforced, then Refusal // without force, and with
	}{
		{"a failed write", write(func(f *fixture, d Delivery) { f.answer(d, fail(tebra.Rejected)) }), ok, ok},
		{"a dead-lettered write", write(func(f *fixture, d Delivery) {
			f.must(f.l.Complete(f.t.Context(), f.settle(d), fail(tebra.DeadLettered)))
		}), ok, ok},
		{"a write that succeeded", write(func(f *fixture, d Delivery) { f.answer(d, succeed()) }), Succeeded, Succeeded},
		{"a write that succeeded under another entry", write(func(f *fixture, d Delivery) {
			f.answer(f.send(aWrite), succeed())
		}), Succeeded, Succeeded},
		{"a write under a lease", write(func(f *fixture, d Delivery) { f.claim(d) }), Leased, Leased},
		{"a write of unknown outcome", write(func(f *fixture, d Delivery) { f.answer(d, fail(tebra.OutcomeUnknown)) }), NeedsForce, ok},
		{"a started write whose lease ran out", write(func(f *fixture, d Delivery) {
			f.run(d)
			f.expire()
		}), NeedsForce, ok},
		{"an answered write whose other entry was started", write(func(f *fixture, d Delivery) {
			f.answer(d, fail(tebra.Rejected))
			f.run(f.replay(d, aWrite, false))
			f.expire()
			f.must(f.rdb.HDel(f.t.Context(), f.keys.Ledger(aWrite.hash()), "r:"+d.Envelope.EntryID).Err())
		}), NeedsForce, ok},
		{"a write that was answered after its record was lost", write(func(f *fixture, d Delivery) {
			c := f.claim(d)
			f.flush()
			f.must(f.l.Complete(f.t.Context(), c, fail(tebra.Expired)))
		}), NeedsForce, ok},
		{"a write without record", write(func(f *fixture, d Delivery) { f.flush() }), NeedsForce, ok},
		{"a write that was never claimed", write(func(f *fixture, d Delivery) {}), Unsettled, ok},
		{"a released write", write(func(f *fixture, d Delivery) {
			f.must(f.l.Release(f.t.Context(), f.run(d), tebra.RateLimited))
		}), Unsettled, ok},
		{"a write that failed under another entry", write(func(f *fixture, d Delivery) {
			f.answer(f.send(aWrite), fail(tebra.Rejected))
		}), Unsettled, ok},
		{"a write whose ID is another's", write(func(f *fixture, d Delivery) {
			f.must(f.rdb.HSet(f.t.Context(), f.keys.Ledger(aWrite.hash()), "print", "another").Err())
		}), Differs, Differs},
		{"a failed read", read(func(f *fixture, d Delivery) { f.answer(d, fail(tebra.BadResponse)) }), ok, ok},
		{"a read without record", read(func(f *fixture, d Delivery) { f.flush() }), ok, ok},
		{"a read without record that is open", read(func(f *fixture, d Delivery) {}), Unsettled, ok},
		{"a read whose ID is on record for an unreadable body", read(func(f *fixture, d Delivery) {
			unreadable := f.send(aRead)
			unreadable.Fingerprint = ""
			f.settle(unreadable)
		}), Differs, Differs},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			onEveryRedis(t, func(t *testing.T, f *fixture) {
				d, r := c.prepare(f)
				for _, try := range []struct {
					force bool
					want  Refusal
				}{{false, c.unforced}, {true, c.then}} {
					f.unchanged("CheckReplay()", func() {
						would, err := f.l.CheckReplay(t.Context(), replayOf(d, r, try.force))
						if got := refusalOf(err); got != try.want || (err == nil && would != Replayed{}) {
							t.Errorf("CheckReplay(force %t) = %+v, %v, want refusal %q as of Replay", try.force, would, err, try.want)
						}
					})
					if try.want == "" {
						f.replay(d, r, try.force)
						return
					}
					f.unchanged("a refused Replay()", func() {
						_, err := f.l.Replay(t.Context(), replayOf(d, r, try.force))
						if refusalOf(err) != try.want {
							t.Errorf("Replay(force %t) = %v, want refusal %s", try.force, err, try.want)
						}
					})
				}
			})
		})
	}
}

func TestReplayRunsOnceMore(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		old := f.send(aWrite)
		f.answer(old, fail(tebra.Rejected))
		d := f.replay(old, aWrite, false)
		f.answer(d, succeed())
		f.wantAnswers(old, "rejected", "ok") // both entries share a correlation ID
		f.wantVerdict(f.claim(d), Answered)
		f.wantVerdict(f.claim(old), Answered)
		again := f.send(aWrite)
		f.wantVerdict(f.claim(again), Repeated)
		f.wantAnswers(again, "ok")
	})
}

func TestReplayWritesTheWholeRequestBack(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aRead)
		f.answer(d, fail(tebra.BadResponse))
		wish := replayOf(d, aRead, false)
		wish.Request.Metadata = json.RawMessage(`{"publishedBy":"user-1"}`)
		wish.Request.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		got, err := f.l.Replay(t.Context(), wish)
		f.must(err)
		raw, err := f.rdb.Do(t.Context(), "XRANGE", f.keys.Requests(), got.EntryID, got.EntryID).Slice()
		f.must(err)
		var flat []string
		for _, v := range raw[0].([]any)[1].([]any) {
			flat = append(flat, v.(string))
		}
		req, err := tebra.DecodeEntry(flat, tebra.DefaultMaxRequestBytes)
		f.must(err)
		want := wish.Request
		want.ReplayOf = d.Envelope.EntryID
		if string(req.AppendJSON(nil)) != string(want.AppendJSON(nil)) {
			t.Errorf("the new entry reads as\n%s, want\n%s", req.AppendJSON(nil), want.AppendJSON(nil))
		}
	})
}

func TestReplayOfTheSameDeadLetterFindsTheFirst(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aWrite)
		f.answer(d, fail(tebra.Rejected))
		first, err := f.l.replay(t.Context(), replayOf(d, aWrite, false), "T", false)
		f.must(err)
		f.unchanged("the second Replay()", func() {
			resent, err := f.l.replay(t.Context(), replayOf(d, aWrite, false), "T", false)
			if err != nil || resent != first {
				t.Errorf("Replay() resent = %+v, %v, want %+v", resent, err, first)
			}
			for name, ask := range map[string]func(context.Context, Replay) (Replayed, error){"Replay": f.l.Replay, "CheckReplay": f.l.CheckReplay} {
				again, err := ask(t.Context(), replayOf(d, aWrite, true))
				if want := (Replayed{EntryID: first.EntryID, Already: true}); err != nil || again != want {
					t.Errorf("second %s() = %+v, %v, want %+v", name, again, err, want)
				}
			}
		})
		f.answer(f.admit(f.delivery(aWrite, first.EntryID, "c")), succeed())
		again, err := f.l.Replay(t.Context(), replayOf(d, aWrite, false))
		if err != nil || !again.Already {
			t.Errorf("Replay() after the first one's success = %+v, %v, want it found", again, err)
		}
	})
}

func TestAReplayThatFailsCanBeReplayed(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		first := f.send(aWrite)
		f.answer(first, fail(tebra.Rejected))
		second := f.replay(first, aWrite, false)
		f.must(f.l.Complete(t.Context(), f.settle(second), fail(tebra.DeadLettered)))
		third := f.replay(second, aWrite, false)
		f.answer(third, succeed())
		for _, d := range []Delivery{first, second, third} {
			f.wantVerdict(f.claim(d), Answered)
			got, err := f.l.Replay(t.Context(), replayOf(d, aWrite, false))
			if d.Envelope.EntryID == third.Envelope.EntryID {
				var refused *RefusedError
				if !errors.As(err, &refused) || refused.Reason != Succeeded {
					t.Errorf("Replay() of the entry that succeeded = %v, want refusal %s", err, Succeeded)
				}
				continue
			}
			if err != nil || !got.Already {
				t.Errorf("Replay() of entry %s = %+v, %v, want it found", d.Envelope.EntryID, got, err)
			}
		}
		f.wantAnswers(first, "rejected", "dead_lettered", "ok")
	})
}

func TestAForcedReplaySupersedesTheOldEntry(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		old := f.send(aWrite)
		f.run(old)
		f.expire()
		d := f.replay(old, aWrite, true)
		f.wantSets(old, false, false)
		f.admit(old) // it was parked, and comes again
		f.wantVerdict(f.claim(old), Superseded)
		f.wantVerdict(f.settle(old), Superseded)
		f.wantSets(old, false, false)
		f.wantAnswers(old)
		f.answer(d, succeed())
		f.wantVerdict(f.claim(old), Superseded)
		f.wantAnswers(d, "ok")
	})
}

// One replay grants one run. Where the client's own repetition uses it up, the
// replayed entry must not run again.
func TestAReplayGrantsOneRun(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		old := f.send(aWrite)
		f.answer(old, fail(tebra.Rejected))
		d := f.replay(old, aWrite, false)
		f.claim(d) // and crashes
		f.expire()
		resent := f.send(aWrite)
		f.answer(resent, succeed())
		f.wantVerdict(f.claim(d), Repeated)
		f.wantAnswers(d, "rejected", "ok")
		f.wantAnswers(resent, "ok")
	})
}

func TestAReplayedWriteRunsInTheEpochOfItsReplay(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		old := f.send(aWrite)
		f.answer(old, fail(tebra.Rejected))
		f.must(f.rdb.Del(t.Context(), f.keys.Epoch()).Err())
		f.wantVerdict(f.claim(f.replay(old, aWrite, false)), Run)
	})
}

func TestReplayWithoutRecordIsFoundTheSecondTime(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		old := f.send(aRead)
		f.answer(old, fail(tebra.BadResponse))
		f.must(f.rdb.Del(t.Context(), f.keys.Ledger(aRead.hash())).Err())
		d := f.replay(old, aRead, false)
		got, err := f.l.Replay(t.Context(), replayOf(old, aRead, false))
		if err != nil || got.EntryID != d.Envelope.EntryID || !got.Already {
			t.Errorf("second Replay() = %+v, %v, want entry %s found", got, err, d.Envelope.EntryID)
		}
	})
}

func TestReplaysOfOneRequestAreBounded(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, f *fixture) {
		d := f.send(aRead)
		for range maxReplays {
			f.answer(d, fail(tebra.BadResponse))
			f.advance(time.Second)
			d = f.replay(d, aRead, false)
		}
		f.answer(d, fail(tebra.BadResponse))
		_, err := f.l.Replay(t.Context(), replayOf(d, aRead, true))
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reason != TooOften {
			t.Errorf("Replay() number %d = %v, want refusal %s", maxReplays+1, err, TooOften)
		}
	})
}

func TestEveryRefusalSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for _, r := range []Refusal{Succeeded, Leased, Differs, TooOften, NeedsForce, Unsettled} {
		if text := (&RefusedError{Reason: r, EntryID: "1-1"}).Error(); text == "replay of entry 1-1 refused: "+string(r) {
			t.Errorf("refusal %s explains nothing", r)
		}
	}
}
