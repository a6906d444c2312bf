package policy

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"tebraproxy/pkg/tebra"
)

// Effect says whether an action changes something at Tebra.
type Effect string

// The effects.
const (
	// Read changes nothing: it may be made again.
	Read Effect = "read"
	// Write changes something: it is never made twice (DESIGN section 1.2).
	Write Effect = "write"
)

// Action is what the policy says of one action.
type Action struct {
	// Name is valid UTF-8, 1 to 256 bytes.
	Name   string
	Effect Effect
	// Roles are those of which a user needs one; none means that nobody may do
	// it. The slice is shared: it must not be changed.
	Roles []string
	// Timeout is the longest that one call may take, 1 s to 10 min, or 0 where
	// the policy names none: see [Action.CallTimeout].
	Timeout time.Duration
	// TTL is the longest that a request may wait before its first call, 1 s to
	// 168 h.
	TTL time.Duration
	// Lane is the name of one of the policy's lanes.
	Lane string
}

// CallTimeout returns the longest that one call of a may take: its own timeout,
// or PHP_TIMEOUT, which the caller passes, where it has none.
func (a Action) CallTimeout(phpTimeout time.Duration) time.Duration {
	return cmp.Or(a.Timeout, phpTimeout)
}

// Lane is a set of actions that share a rate limit at Tebra (DESIGN section
// 5.5).
type Lane struct {
	Name string
	// Interval is the time between two calls, 1 ms to 30 s, or 0 for a lane
	// that is not limited.
	Interval time.Duration
	// Burst is how many calls may be made at once after a pause, 1 to 100, or 0
	// for a lane that is not limited.
	Burst int
}

// Limited reports whether l has a rate.
func (l Lane) Limited() bool { return l.Interval > 0 }

// Firebase says how users' roles are kept in Firebase Auth.
type Firebase struct {
	// Claim is the custom claim that holds the roles.
	Claim string
	// Cache is how long an answer is used again, 1 s to 5 min: what a [Cache]
	// takes as its TTL.
	Cache time.Duration
}

// Policy is a whole and valid policy. It never changes, so it may be used by any
// number of goroutines; its look-ups allocate nothing. [Parse] and [Default]
// make one.
type Policy struct {
	actions map[string]*Action
	lanes   map[string]Lane
	probe   string

	// Exactly one of the two is there: where roles come from.
	static   *Static
	firebase *Firebase

	// Where the file says what Check looks at; what has no place is the catalogue's.
	timeoutAt, ttlAt map[string]place
}

// Action returns what the policy says of the named action, and whether it knows
// it.
func (p *Policy) Action(name string) (Action, bool) {
	a, ok := p.actions[name]
	if !ok {
		return Action{}, false
	}
	return *a, true
}

// Actions returns every action, by name.
func (p *Policy) Actions() []Action {
	list := make([]Action, 0, len(p.actions))
	for _, name := range slices.Sorted(maps.Keys(p.actions)) {
		list = append(list, *p.actions[name])
	}
	return list
}

// ActionNames returns the names of all actions, sorted.
func (p *Policy) ActionNames() []string { return slices.Sorted(maps.Keys(p.actions)) }

// ActionWord returns the action's name if the policy knows it, else
// [tebra.OtherAction]: what logs and labels may call it.
func (p *Policy) ActionWord(name string) string {
	if _, ok := p.actions[name]; ok {
		return name
	}
	return tebra.OtherAction
}

// LaneOf returns the name of the lane that an action goes by. One that the policy
// does not know, and that will be refused, goes by [tebra.DefaultLane].
func (p *Policy) LaneOf(action string) string {
	if a, ok := p.actions[action]; ok {
		return a.Lane
	}
	return tebra.DefaultLane
}

// IsWrite reports whether an action changes something. One that the policy does
// not know is never called, so it does not.
func (p *Policy) IsWrite(action string) bool {
	a, ok := p.actions[action]
	return ok && a.Effect == Write
}

// Lane returns the named lane, and whether the policy has it. A message that was
// published under an older policy may name one that it has not.
func (p *Policy) Lane(name string) (Lane, bool) {
	l, ok := p.lanes[name]
	return l, ok
}

// Lanes returns every lane, by name; [tebra.DefaultLane] is always among them.
// There are at most 32.
func (p *Policy) Lanes() []Lane {
	list := make([]Lane, 0, len(p.lanes))
	for _, name := range slices.Sorted(maps.Keys(p.lanes)) {
		list = append(list, p.lanes[name])
	}
	return list
}

// Probe returns the read that is called to see whether the API is back (DESIGN
// section 5.6). It is called on nobody's behalf, so its roles do not matter.
func (p *Policy) Probe() Action { return *p.actions[p.probe] }

// Static returns the users that the file names, which are none where it has no
// users, and false where roles come from elsewhere.
func (p *Policy) Static() (*Static, bool) { return p.static, p.static != nil }

// Firebase returns how roles are kept in Firebase Auth, and false where they come
// from elsewhere.
func (p *Policy) Firebase() (Firebase, bool) {
	if p.firebase == nil {
		return Firebase{}, false
	}
	return *p.firebase, true
}

// Limits are the deadlines of the configuration (DESIGN section 13) that a policy
// has to fit into.
type Limits struct {
	// PHPTimeout is PHP_TIMEOUT: no action's own timeout may be longer.
	PHPTimeout time.Duration
	// LedgerTTL is LEDGER_TTL: each write's ttl has to be shorter, or the record
	// that keeps it from being made twice could be gone before it is called.
	LedgerTTL time.Duration
}

// Check returns an *[InvalidError] with everything in p that does not fit into
// the limits, or nil. Whoever makes calls has to ask, at start.
func (p *Policy) Check(l Limits) error {
	var found problems
	for _, a := range p.Actions() {
		if a.Timeout > l.PHPTimeout {
			found.add(p.timeoutAt[a.Name], "action %s: the timeout %v is longer than PHP_TIMEOUT, %v: shorten it, or raise PHP_TIMEOUT", quote(a.Name), a.Timeout, l.PHPTimeout)
		}
		if a.Effect == Write && a.TTL >= l.LedgerTTL {
			found.add(p.ttlAt[a.Name], "action %s: the ttl of a write, %v, has to be shorter than LEDGER_TTL, %v: shorten it, or raise LEDGER_TTL", quote(a.Name), a.TTL, l.LedgerTTL)
		}
	}
	return found.err()
}
