package deadletters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/tebra"
)

// Defaults of [Config].
const (
	DefaultMaxLetters = 10_000
	DefaultMaxBytes   = 64 << 20
	DefaultMaxTime    = 5 * time.Minute
	DefaultQuiet      = 3 * time.Second
)

// Config says where dead letters wait, and bounds what one act takes on. Zero
// values mean the defaults.
type Config struct {
	Subscription string        // full name of the inspection subscription
	Operator     string        // who acts, such as user@host
	MaxLetters   int           // held at a time
	MaxBytes     int           // of contents kept for a replay
	MaxTime      time.Duration // spent looking
	// Quiet is how long nothing may come before the subscription is believed to be
	// empty: Pub/Sub itself never says that it is, and gives nothing now and then
	// although there is something. An emulator needs none, so any time does.
	Quiet time.Duration
	// MaxRequestBytes is the bound on an entry that the bridges are set to.
	MaxRequestBytes int
}

// Ledger decides about replays; [ledger.Ledger] does.
type Ledger interface {
	CheckReplay(context.Context, ledger.Replay) (ledger.Replayed, error)
	Replay(context.Context, ledger.Replay) (ledger.Replayed, error)
}

// Auditor writes down what is about to be done. Where it can't, it is not done.
type Auditor interface {
	Audit(context.Context, ...tebra.AuditRecord) error
}

// Deps are what a [Queue] works with. They stay the caller's to close.
type Deps struct {
	Subscriber Subscriber
	Ledger     Ledger
	Auditor    Auditor
	// IsWrite reports whether an action changes something, and must say so of those
	// that it does not know.
	IsWrite func(action string) bool
	Now     func() time.Time
}

// Queue is the dead letters of one installation, as one operator sees them. It is
// safe for concurrent use, but acts that run at the same time each see a part.
type Queue struct {
	cfg  Config
	deps Deps
}

// New returns the dead letters that wait in cfg's subscription. It talks to nobody.
func New(cfg Config, deps Deps) *Queue {
	cfg.MaxLetters = cmp.Or(cfg.MaxLetters, DefaultMaxLetters)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, DefaultMaxBytes)
	cfg.MaxTime = cmp.Or(cfg.MaxTime, DefaultMaxTime)
	cfg.Quiet = cmp.Or(cfg.Quiet, DefaultQuiet)
	cfg.MaxRequestBytes = cmp.Or(cfg.MaxRequestBytes, tebra.DefaultMaxRequestBytes)
	return &Queue{cfg: cfg, deps: deps}
}

// ErrNoSubscription says that the inspection subscription is not there.
var ErrNoSubscription = errors.New("there is no such subscription")

// Listing is what [Queue.List] saw.
type Listing struct {
	Letters []Letter // those that match, oldest first
	Seen    int      // those and all others
	More    bool     // a bound was reached: there may be more
}

// List returns the letters that match f and leaves all where they were. When ctx
// ends first, its error comes beside what was seen until then.
func (q *Queue) List(ctx context.Context, f Filter) (found Listing, err error) {
	h := q.hold(ctx)
	defer h.release(ctx, &err)
	found.More, err = q.scan(ctx, h, func(l Letter) bool {
		found.Seen++
		if f.matches(l) {
			found.Letters = append(found.Letters, l.bare())
		}
		return true
	})
	sortLetters(found.Letters)
	return found, err
}

// Detail is one letter, and what would become of it.
type Detail struct {
	Letter
	// Forecast is what a replay would do now.
	Forecast Result
	// Payload is nil unless it was asked for.
	Payload *Payload
}

// ErrNotFound says that no letter of that ID came in time.
var ErrNotFound = errors.New("no such dead letter")

// Show returns one letter, and its contents where payload asks for them, which is
// put on record first. It leaves all letters where they were.
func (q *Queue) Show(ctx context.Context, id string, payload bool) (d Detail, err error) {
	h := q.hold(ctx)
	defer h.release(ctx, &err)
	letters, more, err := q.collect(ctx, h, Filter{IDs: []string{id}})
	if err != nil {
		return d, err
	}
	if len(letters) == 0 {
		return d, notFound(id, more)
	}
	l := letters[0]
	d.Letter = l.bare()
	d.Forecast = q.forecast(ctx, l, false)
	if !payload {
		return d, nil
	}
	if err := q.deps.Auditor.Audit(ctx, q.record(tebra.PayloadsShown, l, tebra.Allowed)); err != nil {
		return d, fmt.Errorf("the contents are not shown, because that can't be put on record: %w", err)
	}
	d.Payload = &l.payload
	return d, nil
}

func notFound(id string, more bool) error {
	if more {
		return fmt.Errorf("%w with ID %s among those that could be held at a time; drop or replay some first", ErrNotFound, id)
	}
	return fmt.Errorf("%w with ID %s: it was acknowledged, or somebody else holds it at the moment, or this is the request's ID and not the letter's", ErrNotFound, id)
}

// hold begins to hold letters for one act.
func (q *Queue) hold(ctx context.Context) *hold {
	return newHold(ctx, q.deps.Subscriber, q.cfg.Subscription, lease/3)
}

const (
	// emptyAnswers is how many answers without a letter there must be, one after
	// another, before there are believed to be no more.
	emptyAnswers = 2
	// pause is the time after such an answer, which may come at once.
	pause = 20 * time.Millisecond
)

// scan takes letters and shows each to visit, once, until visit has seen enough,
// none come any more, or a bound is reached: then there may be more.
func (q *Queue) scan(ctx context.Context, h *hold, visit func(Letter) bool) (more bool, err error) {
	started, last, seen, empty := time.Now(), time.Now(), 0, 0
	for empty < emptyAnswers || time.Since(last) < q.cfg.Quiet {
		if seen >= q.cfg.MaxLetters || time.Since(started) > q.cfg.MaxTime {
			return true, nil
		}
		fresh, err := h.take(ctx, min(page, q.cfg.MaxLetters-seen), q.cfg.Quiet+pullTime)
		if err != nil {
			return true, explain(err)
		}
		if len(fresh) == 0 {
			empty++
			if err := sleep(ctx, pause); err != nil {
				return true, err
			}
			continue
		}
		seen, empty, last = seen+len(fresh), 0, time.Now()
		for _, m := range fresh {
			if !visit(read(m)) {
				return true, nil
			}
		}
	}
	return false, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// explain marks an error that has a remedy of its own.
func explain(err error) error {
	if status.Code(err) == codes.NotFound {
		return fmt.Errorf("%w: %w", ErrNoSubscription, err)
	}
	return err
}

// collect takes letters until it has those of f's IDs, or all that match, with
// their contents, oldest first.
func (q *Queue) collect(ctx context.Context, h *hold, f Filter) (letters []Letter, more bool, err error) {
	bytes := 0
	more, err = q.scan(ctx, h, func(l Letter) bool {
		if !f.matches(l) {
			return true
		}
		letters = append(letters, l)
		bytes += l.Bytes
		return bytes < q.cfg.MaxBytes && (len(f.IDs) == 0 || len(letters) < len(f.IDs))
	})
	sortLetters(letters)
	if len(f.IDs) > 0 && len(letters) == len(f.IDs) {
		more = false
	}
	return letters, more, err
}

func sortLetters(letters []Letter) {
	slices.SortFunc(letters, func(a, b Letter) int {
		return cmp.Or(a.PublishedAt.Compare(b.PublishedAt), cmp.Compare(a.ID, b.ID))
	})
}

// record is what is put on record of an act upon a letter.
func (q *Queue) record(op tebra.Operation, l Letter, d tebra.Decision) tebra.AuditRecord {
	e := l.Envelope
	return tebra.AuditRecord{
		At: q.deps.Now(), Operator: q.cfg.Operator, Operation: op,
		RequestID: e.RequestID, CorrelationID: e.CorrelationID, Action: e.Action, UserID: e.UserID,
		LetterID: l.ID, EntryID: e.EntryID, Decision: d, Reason: l.Reason,
	}
}
