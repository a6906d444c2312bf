package tebra

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// DefaultPrefix is what all Redis keys begin with unless STREAM_PREFIX says
// otherwise.
const DefaultPrefix = "tebra"

// DefaultLane is the lane of actions that share no rate limit.
const DefaultLane = "default"

// The consumer groups on the requests stream (DESIGN section 5.1).
const (
	// GroupBridge's pending list is what bridges hold in hand.
	GroupBridge = "bridge"
	// GroupParked's pending list is what waits for its lane, one consumer per
	// lane. It never reads.
	GroupParked = "parked"
)

var (
	prefixPattern = regexp.MustCompile(`^(\{[A-Za-z0-9._:-]{1,64}\}|[A-Za-z0-9._-][A-Za-z0-9._:-]{0,63})$`)
	lanePattern   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)
)

// Keys names every Redis key of one installation. All of them begin with the
// prefix; none holds anything that a person typed (DESIGN section 1.6).
// The zero value is not usable: call [NewKeys].
type Keys struct{ prefix string }

// NewKeys returns the keys under prefix: letters, digits and "._:-", at most 64
// of them, not beginning with a colon unless in braces, which put all keys into
// one Redis Cluster slot.
func NewKeys(prefix string) (Keys, error) {
	if !prefixPattern.MatchString(prefix) {
		return Keys{}, fmt.Errorf(`stream prefix "%s": want 1 to 64 letters, digits or . _ : -, all of it optionally in braces, such as tebra or {tebra}`, printable(prefix))
	}
	return Keys{prefix: prefix}, nil
}

// Prefix returns what all keys begin with.
func (k Keys) Prefix() string { return k.prefix }

// OneSlot reports whether all keys hash to one Redis Cluster slot.
func (k Keys) OneSlot() bool { return strings.HasPrefix(k.prefix, "{") }

// Requests is the stream that applications write and bridges drain.
func (k Keys) Requests() string { return k.prefix + ":requests" }

// Responses is the stream of terminal answers.
func (k Keys) Responses() string { return k.prefix + ":responses" }

// Status is the stream of every change of a request's state.
func (k Keys) Status() string { return k.prefix + ":status" }

// Open is the sorted set of a lane's admitted and unanswered entries, scored by
// arrival in milliseconds.
func (k Keys) Open(lane string) string { return k.prefix + ":open:" + lane }

// Retrying is the sorted set of a lane's entries that wait out a Pub/Sub
// backoff, scored by when they were released, in milliseconds.
func (k Keys) Retrying(lane string) string { return k.prefix + ":retrying:" + lane }

// Ledger is the record of one request; hash comes from [LedgerHash].
func (k Keys) Ledger(hash string) string { return k.prefix + ":ledger:" + hash }

// Posted is what a gateway knows of a request that it put on the stream; hash
// comes from [LedgerHash].
func (k Keys) Posted(hash string) string { return k.prefix + ":posted:" + hash }

// Epoch is a random value, set once per life of the Redis data.
func (k Keys) Epoch() string { return k.prefix + ":epoch" }

// Breaker is the shared circuit breaker's state.
func (k Keys) Breaker() string { return k.prefix + ":breaker" }

// Probe is the lock under which one bridge sends a probe.
func (k Keys) Probe() string { return k.prefix + ":probe" }

// Rate is the shared rate limit of a lane.
func (k Keys) Rate(lane string) string { return k.prefix + ":rate:" + lane }

// Lanes is the set of every lane that was ever in use, so that what a changed
// policy left behind is still looked after.
func (k Keys) Lanes() string { return k.prefix + ":lanes" }

// Overdue is the hash of open entries that the sweep found too old, by the time
// at which it first saw them so.
func (k Keys) Overdue() string { return k.prefix + ":overdue" }

// Audit is the stream of what operators did ([AuditRecord]), on its way into the
// audit log. It is bounded, and holds no payloads.
func (k Keys) Audit() string { return k.prefix + ":audit" }

// Heartbeat is a bridge's sign of life; it has a TTL.
func (k Keys) Heartbeat(consumer string) string { return k.prefix + ":heartbeat:" + consumer }

// Bridges is the sorted set of the bridges that write heartbeats, scored by the
// last one, in milliseconds.
func (k Keys) Bridges() string { return k.prefix + ":bridges" }

// CheckLane returns an error unless name can be a lane's: it becomes part of
// Redis keys, consumer names, Pub/Sub attributes and metric labels.
func CheckLane(name string) error {
	if !lanePattern.MatchString(name) {
		return fmt.Errorf(`lane "%s": want a small letter, then up to 31 of a-z, 0-9, _ and -`, printable(name))
	}
	return nil
}

// LedgerHash is the name under which a user's request is on record: a SHA-256 of
// user and request ID, so that no user can touch another's request by choosing
// its ID, and neither is readable from a key (DESIGN section 8).
func LedgerHash(userID, requestID string) string { return digest(userID, requestID) }

// Fingerprint identifies what a request asks for: its action, and its params but
// for the white space between them, which whoever sends a request again may write
// another way. Two requests with one ID and different fingerprints conflict.
func Fingerprint(action string, params []byte) string {
	var compact bytes.Buffer
	if err := json.Compact(&compact, params); err != nil { // not JSON, so nothing is known of its spaces
		return digest(action, params)
	}
	return digest(action, compact.Bytes())
}

// digest hashes two texts so that no other two give the same input.
func digest[T string | []byte](a string, b T) string {
	buf := make([]byte, 0, 1024) // on the stack, where it is enough for all IDs
	buf = binary.BigEndian.AppendUint64(buf, uint64(len(a)))
	buf = append(buf, a...)
	buf = append(buf, b...)
	sum := sha256.Sum256(buf)
	return string(base64.RawURLEncoding.AppendEncode(make([]byte, 0, 64), sum[:]))
}
