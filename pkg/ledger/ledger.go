package ledger

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// Defaults of [Config] (DESIGN section 13).
const (
	DefaultTTL         = 48 * time.Hour
	DefaultLease       = 150 * time.Second
	DefaultReplicaWait = time.Second
)

// What a record lists at most.
const (
	maxAnswered = 32
	maxReplays  = 32
)

// Config holds the ledger's times. Zero values mean the defaults.
type Config struct {
	// TTL is how long a record outlives the last word about it, and up to a lease
	// more. It must be longer than a message can stay in Pub/Sub.
	TTL time.Duration
	// Lease is how long a claim is its holder's alone. It must be longer than the
	// ack deadline, so that a holder that Pub/Sub gave up on is done.
	Lease time.Duration
	// Replicas is how many Redis replicas must have a write's start before the
	// call is made. 0 asks for none.
	Replicas int
	// ReplicaWait is how long they have for it.
	ReplicaWait time.Duration
}

func (c Config) withDefaults() Config {
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	if c.ReplicaWait == 0 {
		c.ReplicaWait = DefaultReplicaWait
	}
	return c
}

// A Ledger keeps the records of one installation. It is safe for concurrent use;
// a [Claim] is not.
type Ledger struct {
	rdb         redis.UniversalClient
	keys        tebra.Keys
	streams     [3]string // status, responses, requests
	cfg         Config
	clock       func() string // what scripts are told: "" is the server's clock
	newToken    func() string
	newAnswerID func() string
	maxAnswered int
}

// An Option changes what [New] builds.
type Option func(*Ledger)

// WithClock makes scripts go by clock instead of the Redis server's time.
// It is for tests: separate processes must go by one clock.
func WithClock(clock func() time.Time) Option {
	return func(l *Ledger) {
		l.clock = func() string { return millis(clock()) }
	}
}

// WithIDs sets where claim tokens (and epochs) and response IDs come from: by
// default random UUIDs, and UUIDs that sort by time. A token must never be
// used twice and hold no space.
func WithIDs(token, response func() string) Option {
	return func(l *Ledger) { l.newToken, l.newAnswerID = token, response }
}

// New returns the ledger under keys in the Redis that rdb talks to. The client
// stays the caller's to close. In a Redis Cluster all keys must share a slot
// ([tebra.Keys.OneSlot]).
func New(rdb redis.UniversalClient, keys tebra.Keys, cfg Config, opts ...Option) *Ledger {
	l := &Ledger{
		rdb: rdb, keys: keys, cfg: cfg.withDefaults(),
		streams:     [...]string{keys.Status(), keys.Responses(), keys.Requests()},
		clock:       func() string { return "" },
		newToken:    uuid.NewString,
		newAnswerID: func() string { return uuid.Must(uuid.NewV7()).String() },
		maxAnswered: maxAnswered,
	}
	for _, o := range opts {
		o(l)
	}
	return l
}

// A Delivery is one message as it came in: the request that it stands for, and
// what the ledger must know about that.
type Delivery struct {
	Envelope tebra.Envelope
	// Fingerprint is [tebra.Fingerprint] of action and params, "" when the body
	// can't be read. Only such a delivery as [Ledger.Settle] gets may be without.
	Fingerprint string
	// Write says that the action changes something.
	Write bool
}

// arrival is when the entry came in, by the Redis clock.
func (d Delivery) arrival() time.Time {
	id, err := tebra.ParseEntryID(d.Envelope.EntryID)
	if err != nil { // an envelope that was parsed has an ID
		return d.Envelope.AdmittedAt
	}
	return id.Arrival(d.Envelope.AdmittedAt)
}

// run calls a script about a claim's delivery: with the keys and arguments that
// lua/delivery.lua names, and then the script's own. Pointers spare a copy of each string.
func (l *Ledger) run(ctx context.Context, rdb redis.Scripter, script *redis.Script, c *Claim, keys []string, args ...any) *redis.Cmd {
	e := &c.Delivery.Envelope
	allKeys := append(make([]string, 0, 6+len(keys)), l.keys.Ledger(e.Ledger), l.keys.Open(e.Lane), l.keys.Retrying(e.Lane))
	allKeys = append(allKeys, l.streams[:]...)
	allArgs := append(make([]any, 0, 12+len(args)), l.clock(), (l.cfg.TTL + l.cfg.Lease).Milliseconds(), &c.token, &e.EntryID,
		&e.RequestID, &e.CorrelationID, &e.UserID, &e.Action, millis(c.Delivery.arrival()), l.maxAnswered,
		tebra.GroupBridge, tebra.GroupParked)
	return script.Run(ctx, rdb, append(allKeys, keys...), append(allArgs, args...)...)
}

// step calls a script that replies with one word, and turns the words that it
// is told about into errors.
func (l *Ledger) step(cmd *redis.Cmd, c *Claim, what string, refusals map[string]error) error {
	word, err := cmd.Text()
	if err != nil {
		return c.wrap(what, err)
	}
	if word == "ok" {
		return nil
	}
	if refusal, ok := refusals[word]; ok {
		return c.wrap(what, refusal)
	}
	return c.wrap(what, fmt.Errorf("unexpected reply %q from the script", word))
}

// wrap says what went wrong with which entry. The request's own ID was chosen
// by a client, so it stays out of error texts.
func (c *Claim) wrap(what string, err error) error {
	return fmt.Errorf("%s entry %s: %w", what, c.Delivery.Envelope.EntryID, err)
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

func boolArg(set bool) string {
	if set {
		return "1"
	}
	return ""
}
