package bridge

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/telemetry"
)

// How often the keeper does what.
const (
	heartbeatEvery = 5 * time.Second
	heartbeatTTL   = 3 * heartbeatEvery
	tidyEvery      = time.Minute
)

// counters are what a bridge counts of itself. They are safe for concurrent use.
type counters struct {
	read, published, rejected, claimed atomic.Int64
	beat                               atomic.Int64 // unix nanoseconds of the last heartbeat in Redis
}

// live says every few seconds, until ctx ends, that this bridge lives.
func (b *Bridge) live(ctx context.Context, p *pulse) {
	for ctx.Err() == nil {
		b.attempt(ctx, p, "heartbeat", b.heartbeat)
		sleep(ctx, min(heartbeatEvery, b.tidyEvery))
	}
}

// keep carries the audit stream every few seconds, until ctx ends, and does every
// minute what is to be done then: names of the dead, trimming and the sweep. What
// failed comes round again sooner.
func (b *Bridge) keep(ctx context.Context, p *pulse) {
	var tidied time.Time
	for ctx.Err() == nil {
		b.attempt(ctx, p, "carrying the audit stream", b.carryAudit)
		if time.Since(tidied) >= b.tidyEvery && b.tidy(ctx, p) {
			tidied = time.Now()
		}
		sleep(ctx, min(heartbeatEvery, b.tidyEvery))
	}
}

// tidy does what is done every minute, and reports whether all of it was: what
// was not comes round again with the next heartbeat.
func (b *Bridge) tidy(ctx context.Context, p *pulse) bool {
	ok := b.attempt(ctx, p, "removing names of the dead", b.forgetDead)
	ok = b.attempt(ctx, p, "trimming", b.trim) && ok
	return b.attempt(ctx, p, "sweeping", b.sweep) && ok
}

// attempt runs one of the keeper's duties and reports whether it succeeded.
func (b *Bridge) attempt(ctx context.Context, p *pulse, what string, duty func(context.Context) error) bool {
	p.beat()
	dutyCtx, cancel := context.WithTimeout(ctx, tidyEvery)
	defer cancel()
	err := duty(dutyCtx)
	if letter := (undelivered{}); errors.As(err, &letter) {
		b.noteRedis(ctx, what, nil) // it was there for the rest
		if ctx.Err() == nil {       // else the bridge stops
			b.notes.troubleFor("deadletters", what, "overdue requests can't be dead-lettered; trying again", letter)
		}
		return false
	}
	if err == nil {
		b.notes.overFor("deadletters", what)
	}
	b.noteRedis(ctx, what, err)
	return err == nil
}

// heartbeat measures the clocks and says that this bridge lives, for others to
// see until the TTL is over.
func (b *Bridge) heartbeat(ctx context.Context) error {
	if err := b.clock.set(ctx, b.stream); err != nil {
		return err
	}
	waiting, err := b.stream.Waiting(ctx)
	if err != nil {
		return err
	}
	state, err := b.measure(ctx, waiting)
	if err != nil {
		return err
	}
	var open int64
	for _, lane := range state.Lanes {
		open += lane.Open
	}
	key, at := b.deps.Keys.Heartbeat(b.consumer), b.clock.now().UnixMilli()
	pipe := b.deps.Redis.Pipeline()
	pipe.HSet(ctx, key,
		"consumer", b.consumer, "version", b.deps.Version,
		"started", strconv.FormatInt(b.started.UnixMilli(), 10), "at", strconv.FormatInt(at, 10),
		"read", b.counts.read.Load(), "published", b.counts.published.Load(),
		"rejected", b.counts.rejected.Load(), "claimed", b.counts.claimed.Load(),
		"lag", waiting.Lag, "inHand", waiting.InHand, "parked", waiting.Parked, "open", open,
		"gate", b.gate.reason(), "memory", memoryBytes(), "cpuMillis", cpuMillis(),
	)
	pipe.PExpire(ctx, key, heartbeatTTL)
	pipe.ZRemRangeByScore(ctx, b.deps.Keys.Bridges(), "-inf", strconv.FormatInt(at-heartbeatTTL.Milliseconds(), 10))
	pipe.ZAdd(ctx, b.deps.Keys.Bridges(), redis.Z{Score: float64(at), Member: b.consumer})
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("writing the heartbeat: %w", err)
	}
	state.At = time.Now()
	b.counts.beat.Store(state.At.UnixNano())
	b.seen.Saw(state)
	return nil
}

// trim removes what is older than RETENTION from all three streams, but nothing
// that is still needed (DESIGN section 5.9).
func (b *Bridge) trim(ctx context.Context) error {
	lanes, err := b.lanes.all(ctx, b.deps.Redis, b.deps.Keys)
	if err != nil {
		return err
	}
	before := b.clock.now().Add(-b.cfg.Retention)
	if err := b.stream.TrimRequests(ctx, before, lanes); err != nil {
		return err
	}
	return b.stream.TrimAnswers(ctx, before)
}

// memoryBytes returns what the Go runtime has from the system and not given back.
func memoryBytes() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// cpuMillis returns the CPU time that this process has used.
func cpuMillis() int64 {
	user, system := telemetry.CPUTime()
	return (user + system).Milliseconds()
}

const (
	// auditBatch is how many records are carried at a time.
	auditBatch = 100
	// auditIdle is after how long another bridge takes over records that were read
	// and not confirmed: much longer than it takes to write them.
	auditIdle = time.Minute
)

// carryAudit writes what operators did into the audit log. A record is confirmed
// once its line is written: a bridge that dies between the two has it written again,
// under the same ID, and none is lost. Any number of bridges may do this at a time.
func (b *Bridge) carryAudit(ctx context.Context) error {
	for {
		entries, err := b.stream.CarryAudit(ctx, auditIdle, auditBatch)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, e := range entries {
			if e.Err != nil {
				b.log.Error("an entry of the audit stream is no record", "entryId", e.ID, "error", e.Err)
				continue
			}
			b.auditOperator(e)
		}
		if err := b.stream.Carried(ctx, entries); err != nil {
			return err
		}
	}
}

// auditOperator writes one record. One that makes the bridge panic would come again, to
// every bridge in turn: it stays in the audit stream, and the log says that.
func (b *Bridge) auditOperator(e stream.Audited) {
	defer b.spare(e.ID, new(bool))
	b.audit.Operator(e.ID, e.Record)
}
