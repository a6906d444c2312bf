package ledger

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// Verdict is what the ledger says about a delivery.
type Verdict string

// The verdicts. After Run and Unknown the claim holds the lease. After Answered,
// Repeated, Conflict and Superseded nothing is left to do but to acknowledge.
const (
	// Run: the caller's to do, and to end with Complete, Release or Return.
	Run Verdict = "run"
	// Unknown: a call may have been made of which nobody will learn. The caller's
	// to answer with outcome_unknown, dead letter first.
	Unknown Verdict = "unknown"
	// Busy: another holds the lease. Try again later.
	Busy Verdict = "busy"
	// Answered: this entry has its terminal answer.
	Answered Verdict = "answered"
	// Repeated: the request is done under another entry; its answer has just been
	// repeated for this one.
	Repeated Verdict = "repeated"
	// Conflict: another request is on record under this ID, or the answer to repeat
	// is gone; error duplicate has just been written for this entry.
	Conflict Verdict = "conflict"
	// Superseded: the entry was replayed as another, which will be answered.
	Superseded Verdict = "superseded"
)

// Held reports whether a claim of this verdict holds the lease.
func (v Verdict) Held() bool { return v == Run || v == Unknown }

// A Claim is the ledger's word on one delivery. It belongs to one goroutine.
type Claim struct {
	Verdict  Verdict
	Delivery Delivery
	// Attempt counts the runs of the request, this one included; the first is 1.
	// Settling is no run.
	Attempt int
	// Lease is how long the lease lasts from now on: the caller's own after Run and
	// Unknown, another's after Busy, else 0.
	Lease time.Duration
	// LastCode is why the request was given back last, or "".
	LastCode tebra.ErrorCode
	// Arrival is when the entry came in, and Age how long ago that was when the
	// claim was made, both by the Redis clock.
	Arrival time.Time
	Age     time.Duration

	token    string
	callable bool // made by Claim with Run, not by Settle
	begun    bool // Start said that a call may be made
	starts   int
}

// Claim decides who does what about a delivery, and counts an attempt and writes
// status processing when it says Run. It takes one round trip.
//
// An error means that Redis did not say: the message must not be acknowledged.
func (l *Ledger) Claim(ctx context.Context, d Delivery) (*Claim, error) {
	return l.claim(ctx, d, "call", l.newToken(), l.newAnswerID())
}

// Settle is Claim for those who will not call the API: whoever answers for what
// others gave up on. It counts no attempt and writes no status. Run then means that
// nothing was called, Unknown that something may have been; both are the
// caller's to end with Complete.
func (l *Ledger) Settle(ctx context.Context, d Delivery) (*Claim, error) {
	return l.claim(ctx, d, "settle", l.newToken(), l.newAnswerID())
}

func (l *Ledger) claim(ctx context.Context, d Delivery, mode, token, answerID string) (*Claim, error) {
	c := &Claim{Delivery: d, Arrival: d.arrival(), token: token}
	cmd := l.run(ctx, l.rdb, claimScript, c,
		[]string{l.keys.Epoch()},
		mode, &c.Delivery.Fingerprint, boolArg(d.Write), &c.Delivery.Envelope.Epoch, millis(d.Envelope.AdmittedAt),
		l.cfg.Lease.Milliseconds(), answerID, tebra.Duplicate.Meaning())
	if err := c.read(cmd); err != nil {
		return nil, c.wrap("claim", err)
	}
	c.callable = mode == "call" && c.Verdict == Run
	return c, nil
}

// read takes over the claim script's reply.
func (c *Claim) read(cmd *redis.Cmd) error {
	text, err := cmd.Text()
	if err != nil {
		return err
	}
	reply := strings.Split(text, " ")
	if len(reply) != 5 {
		return fmt.Errorf("unexpected reply of %d words from the script", len(reply))
	}
	c.Verdict, c.LastCode = Verdict(reply[0]), tebra.ErrorCode(reply[4])
	if c.Attempt, err = strconv.Atoi(reply[1]); err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	if c.Lease, err = parseMillis(reply[2]); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	if c.Age, err = parseMillis(reply[3]); err != nil {
		return fmt.Errorf("age: %w", err)
	}
	return nil
}

func parseMillis(s string) (time.Duration, error) {
	ms, err := strconv.ParseInt(s, 10, 64)
	return time.Duration(ms) * time.Millisecond, err
}
