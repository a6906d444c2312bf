package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// Deps is what a bridge works with. It closes none of it.
type Deps struct {
	Redis       stream.Client
	Keys        tebra.Keys
	Ledger      *ledger.Ledger
	Breaker     *breaker.Breaker
	Policy      *policy.Policy
	Requests    *publish.Publisher
	DeadLetters *publish.Publisher
	Topics      TopicAdmin // asked at start whether the topics are there; nil asks nobody
	Log         *slog.Logger
	Telemetry   *telemetry.Telemetry // nil observes nothing
	Version     string
	NewID       func() string // unique names and IDs; uuid.NewString if nil
}

// Bounds on what a bridge holds and how long it waits.
const (
	workers      = 4
	batchBytes   = 4 << 20 // aimed at, from the sizes seen
	readBlock    = time.Second
	stopGrace    = 5 * time.Second // for publishing what was admitted, within Cloud Run's 10 s
	leaveGrace   = 2 * time.Second
	redisTimeout = 10 * time.Second // for a few commands or a script
)

// Bridge drains one requests stream. Make one with [New] and call
// [Bridge.Run] or [Bridge.Drain] once.
type Bridge struct {
	cfg      Config
	deps     Deps
	stream   *stream.Stream
	consumer string
	log      *slog.Logger
	seen     *telemetry.Bridge // nil where nothing is observed
	audit    *telemetry.Auditor
	lines    lines
	codec    codec
	started  time.Time

	gate   gate
	hand   hand
	lot    lot
	clock  clock
	epoch  epochCache
	lanes  laneBook
	notes  episodes
	counts counters

	// taking is held, shared, by who takes entries otherwise than by reading, until
	// they are in hand, and alone by who looks for entries that are in nobody's.
	taking sync.RWMutex

	readMu  sync.Mutex // held while reading; workers read in turn
	admitMu sync.Mutex // taken before readMu is let go, so that admission keeps the order

	// carefulUntil: entries up to this ID may have been here before although
	// Redis gives them as new.
	carefulUntil tebra.EntryID // guarded by readMu
	size         sizes         // guarded by readMu

	unclear atomic.Bool // something may be pending for us that we don't hold
	shaken  atomic.Bool // Redis may have lost the groups, or be another one
	failing atomic.Bool // the last batch could not be taken

	fillSize  sizes          // the filler's
	claimSize sizes          // the reclaimer's
	rejecting errgroup.Group // what [Bridge.rejectAside] started
	strays    atomic.Bool    // rejects are pending for us that we don't hold

	lettersDown atomic.Bool // the last try at dead letters failed

	fallen atomic.Pointer[string] // which part has panicked
	fall   context.CancelFunc     // stops all parts; set by Run

	vitals     vitals
	stuckAfter time.Duration
	tidyEvery  time.Duration
}

// New returns a bridge under a consumer name of its own. It does not talk to
// Redis or Pub/Sub.
func New(cfg Config, deps Deps) *Bridge {
	if deps.NewID == nil {
		deps.NewID = uuid.NewString
	}
	b := &Bridge{
		cfg: cfg, deps: deps,
		stream:   stream.New(deps.Redis, deps.Keys),
		consumer: "bridge-" + deps.NewID(),
		started:  time.Now(),
		codec:    codec{decode: tebra.DecodeEntry, fingerprint: tebra.Fingerprint, encode: tebra.Request.AppendJSON},
	}
	b.log = deps.Log.With("consumer", b.consumer)
	b.notes.log = b.log
	b.lines = lines{log: b.log, action: deps.Policy.ActionWord}
	b.audit = telemetry.NewAuditor(b.log, deps.Policy.ActionWord)
	b.lanes.init(deps.Policy, cfg.MaxInFlight)
	b.seen = deps.Telemetry.Bridge(deps.Policy.ActionNames(), b.lanes.names())
	b.hand.init()
	b.lot.init()
	b.rejecting.SetLimit(workers)
	for _, s := range []*sizes{&b.size, &b.fillSize, &b.claimSize} {
		s.assumed = cfg.MaxRequestBytes // before anything was seen, all may be as large as allowed
	}
	b.stuckAfter, b.tidyEvery = stuckAfter, tidyEvery
	return b
}

// Consumer returns the name under which this bridge is a member of the group.
func (b *Bridge) Consumer() string { return b.consumer }

// Run drains until ctx ends, then finishes what it admitted, gives back what it
// did not, and leaves the group, all within 10 s (DESIGN section 5.10). Trouble
// with Redis or Pub/Sub is waited out, not returned. It returns a [*config.Error] at
// start, where Redis or Pub/Sub show that the configuration is wrong, and an error
// when a part of the bridge has panicked.
func (b *Bridge) Run(ctx context.Context) error {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ctx, b.fall = context.WithCancel(ctx)
	defer b.fall()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, cancel) })()

	if err := b.enter(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return b.leave(ctx)
	}
	var g errgroup.Group
	for i := range workers {
		b.turn(&g, fmt.Sprintf("worker %d", i+1), func(p *pulse) { b.work(ctx, hard, p) })
	}
	b.turn(&g, "parker", func(p *pulse) { b.parkLot(ctx, p) })
	b.turn(&g, "filler", func(p *pulse) { b.fillLanes(ctx, hard, p) })
	b.turn(&g, "reclaimer", func(p *pulse) { b.reclaim(ctx, hard, p) })
	b.turn(&g, "watcher", func(p *pulse) { b.watchBreaker(ctx, p) })
	b.turn(&g, "heart", func(p *pulse) { b.live(ctx, p) })
	b.turn(&g, "keeper", func(p *pulse) { b.keep(ctx, p) })
	_ = g.Wait() // none of them returns an error: they wait trouble out
	_ = b.rejecting.Wait()
	return errors.Join(b.fell(), b.leave(ctx))
}

// LeftError says what a drain did not get done, and why if that is known.
type LeftError struct {
	Waiting *stream.Waiting // nil when Redis never said
	Trouble []string        // what went wrong last, kind by kind
}

func (e *LeftError) Error() string {
	text := "not everything could be published in time: " + e.waiting()
	for _, t := range e.Trouble {
		text += "\n  - " + t
	}
	return text
}

func (e *LeftError) waiting() string {
	if e.Waiting == nil {
		return "Redis could not be asked what waits; nothing was taken from it"
	}
	unread := "nothing is unread"
	if e.Waiting.Unread {
		unread = "some are unread"
		if e.Waiting.Lag > 0 {
			unread = fmt.Sprintf("%d are unread", e.Waiting.Lag)
		}
	}
	return fmt.Sprintf("%s, %d are in a bridge's hand, %d are parked for their lane; they stay in Redis for the next run",
		unread, e.Waiting.InHand, e.Waiting.Parked)
}

// Drain runs until nothing is unread, in hand or parked, and returns nil; or
// until timeout has passed, and returns a [*LeftError].
func (b *Bridge) Drain(ctx context.Context, timeout time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	var left *stream.Waiting
	var drained atomic.Bool
	var g errgroup.Group
	g.Go(func() error {
		defer stop()
		return b.Run(ctx)
	})
	g.Go(func() error {
		defer stop()
		for sleep(ctx, 100*time.Millisecond) {
			w, err := b.stream.Waiting(ctx)
			if err != nil {
				continue
			}
			left = &w
			if w.Idle() && b.hand.empty() {
				drained.Store(true)
				return nil
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if !drained.Load() {
		return &LeftError{Waiting: left, Trouble: b.notes.current()}
	}
	return nil
}

// enter checks what can be checked, waits for Redis and joins the group. It
// returns when that is done, when ctx ends, or with a [*config.Error].
func (b *Bridge) enter(ctx context.Context) error {
	p := b.vitals.begin("start")
	defer b.vitals.end("start")
	if err := b.checkTopics(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{b.checkRedis, b.join} {
		if err := b.persist(ctx, p, step); err != nil {
			return err
		}
	}
	if ctx.Err() == nil {
		b.log.Info("bridge is draining", "stream", b.deps.Keys.Requests())
	}
	return nil
}

// persist repeats a step until it succeeds, ctx ends, or it fails with a
// [*config.Error], which it returns.
func (b *Bridge) persist(ctx context.Context, p *pulse, step func(context.Context) error) error {
	wait := newBackoff()
	for ctx.Err() == nil {
		p.beat()
		err := step(ctx)
		var bad *config.Error
		if errors.As(err, &bad) {
			return err
		}
		if err == nil {
			b.notes.over("redis")
			return nil
		}
		if ctx.Err() == nil {
			b.notes.trouble("redis", redisTrouble(err), err)
		}
		wait.sleep(ctx)
	}
	return nil
}

// join makes sure of the groups, and finds out which entries may have been here
// before: all that are there when a group had to be made again.
func (b *Bridge) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	known, err := b.deps.Redis.Exists(ctx, b.deps.Keys.Epoch()).Result()
	if err != nil {
		return err
	}
	made, err := b.stream.EnsureGroups(ctx)
	if err != nil {
		return err
	}
	if err := b.clock.set(ctx, b.stream); err != nil {
		return err
	}
	if _, err := b.epoch.get(ctx, b.deps.Ledger); err != nil {
		return err
	}
	if err := b.lanes.announce(ctx, b.deps.Redis, b.deps.Keys); err != nil {
		return err
	}
	if made && known == 1 {
		if err := b.suspect(ctx); err != nil {
			return err
		}
	}
	_, err = b.followBreaker(ctx) // before anything is read
	return err
}

// suspect sends every entry that is in the stream now through the careful path.
// The caller holds readMu, or nobody reads yet.
func (b *Bridge) suspect(ctx context.Context) error {
	last, err := b.stream.LastID(ctx)
	if err != nil {
		return err
	}
	if last.Compare(b.carefulUntil) > 0 {
		b.carefulUntil = last
	}
	return nil
}

// leave gives back what is still pending for this consumer, so that others claim
// it at once, and removes its name if nothing was.
func (b *Bridge) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveGrace)
	defer cancel()
	err := b.giveBackAll(ctx)
	if err == nil {
		_, err = b.stream.Leave(ctx, b.consumer)
	}
	if err == nil {
		err = b.forgetHeartbeat(ctx)
	}
	if err != nil {
		b.log.Warn("left without tidying up; another bridge will", "error", err)
	}
	b.log.Info("bridge has stopped", "published", b.counts.published.Load(), "rejected", b.counts.rejected.Load())
	return nil
}

// giveBackAll gives back whatever is pending for this consumer, a page at a time.
func (b *Bridge) giveBackAll(ctx context.Context) error {
	const page = 1000
	from := "-"
	for {
		ids, err := b.stream.Pending(ctx, b.consumer, from, page)
		if err != nil {
			if stream.NoGroup(err) {
				return nil
			}
			return err
		}
		if err := b.stream.GiveBack(ctx, b.consumer, ids); err != nil {
			return err
		}
		if len(ids) < page {
			return nil
		}
		from = ids[page-1]
	}
}
