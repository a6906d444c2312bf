package policy

import (
	"cmp"
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"tebraproxy/pkg/tebra"
)

// Bounds of a policy. Lanes become metric labels and Redis keys.
const (
	maxActions   = 500
	maxLanes     = 32
	maxAccounts  = 5000
	maxRoles     = 64
	maxNameBytes = 256
	maxBurst     = 100

	minInterval, maxInterval = time.Millisecond, 30 * time.Second
	// Pub/Sub's longest ack deadline is 600 s; PHP_TIMEOUT, which is below it,
	// is held against a timeout by Check.
	minTimeout, maxTimeout = time.Second, 10 * time.Minute
	minTTL, maxTTL         = time.Second, 168 * time.Hour
	minCache, maxCache     = time.Second, 5 * time.Minute
)

// Defaults of a policy.
const (
	defaultReadTTL  = 24 * time.Hour
	defaultWriteTTL = 4 * time.Hour
	defaultBurst    = 1
	defaultClaim    = "roles"
	defaultCache    = 60 * time.Second
)

// The sources of roles, as a file names them.
const (
	sourceStatic   = "static"
	sourceFirebase = "firebase"
)

// rolePattern leaves out commas and spaces: they stand between roles where a
// Firebase claim is one string.
var rolePattern = regexp.MustCompile(`^[A-Za-z0-9._:/-]{1,64}$`)

//go:embed default.yaml
var defaultYAML []byte

// catalogue is the embedded catalogue, parsed once.
var catalogue = sync.OnceValue(func() *Policy {
	p, err := build(defaultYAML, &Policy{lanes: map[string]Lane{tebra.DefaultLane: {Name: tebra.DefaultLane}}})
	if err != nil {
		panic(fmt.Sprintf("the embedded catalogue is broken: %v", err)) // A test parses it.
	}
	return p
})

// Default returns the embedded catalogue alone, for where no POLICY_FILE is set:
// it knows the actions and grants nobody anything.
func Default() *Policy { return catalogue() }

// Parse reads a policy file, YAML or JSON of at most 256 KiB, over the embedded
// catalogue; example.yaml documents it. The error is an *[InvalidError] with
// everything that is wrong, by place; what is not YAML at all hides the rest.
//
// The deadlines of the configuration are not known here: see [Policy.Check].
func Parse(data []byte) (*Policy, error) { return build(data, catalogue()) }

// build reads a policy file over base, which it leaves as it is.
func build(data []byte, base *Policy) (*Policy, error) {
	var d decoder
	doc, ok := d.decode(data)
	if !ok {
		return nil, d.err()
	}
	b := builder{problems: d.problems, policy: extend(base)}
	b.version(doc.version)
	b.sizes(doc)
	for _, e := range doc.lanes {
		b.lane(e)
	}
	for _, e := range doc.actions {
		b.action(e)
	}
	b.probe(doc.probe)
	b.users(doc)
	if err := b.err(); err != nil {
		return nil, err
	}
	return b.policy, nil
}

// extend returns a policy that begins with what base has, its users apart.
func extend(base *Policy) *Policy {
	p := &Policy{
		actions:   make(map[string]*Action, len(base.actions)),
		lanes:     make(map[string]Lane, len(base.lanes)),
		probe:     base.probe,
		timeoutAt: make(map[string]place),
		ttlAt:     make(map[string]place),
	}
	maps.Copy(p.actions, base.actions)
	maps.Copy(p.lanes, base.lanes)
	return p
}

// builder turns a document into a policy and collects what is wrong with it.
type builder struct {
	problems
	policy *Policy
}

func (b *builder) version(v value[int]) {
	if v.missing() {
		b.add(place{1, 1}, "the version is missing: begin with version: 1")
		return
	}
	if v.set && v.v != 1 {
		b.add(v.at, "version %d is not known here: want 1", v.v)
	}
}

// sizes holds the file against the bounds, together with what it builds on.
func (b *builder) sizes(doc document) {
	lanes, actions := len(b.policy.lanes), len(b.policy.actions)
	for _, e := range doc.lanes {
		if _, known := b.policy.lanes[e.name.v]; known {
			continue
		}
		if lanes++; lanes == maxLanes+1 {
			b.add(e.name.at, "more than %d lanes with those of the catalogue: let actions share lanes", maxLanes)
		}
	}
	for _, e := range doc.actions {
		if _, known := b.policy.actions[e.name.v]; known {
			continue
		}
		if actions++; actions == maxActions+1 {
			b.add(e.name.at, "more than %d actions with those of the catalogue", maxActions)
		}
	}
}

func (b *builder) lane(e laneEntry) {
	name := e.name.v
	if name == tebra.DefaultLane {
		b.add(e.name.at, "the lane %s never has a rate: give its actions a lane of another name", name)
		return
	}
	if err := tebra.CheckLane(name); err != nil {
		b.add(e.name.at, "%v", err)
		return
	}
	l := b.policy.lanes[name]
	l.Name = name
	l.Interval = within(b, e.interval, "the interval of a lane", minInterval, maxInterval).or(l.Interval)
	l.Burst = within(b, e.burst, "the burst of a lane", 1, maxBurst).or(l.Burst)
	if e.burst.set && e.interval.missing() && !l.Limited() {
		b.add(e.burst.at, "lane %s has a burst and no interval: add the interval, or leave out the burst", quote(name))
	}
	if l.Limited() && l.Burst == 0 {
		l.Burst = defaultBurst
	}
	b.policy.lanes[name] = l
}

func (b *builder) action(e actionEntry) {
	name := e.name.v
	if !b.name(e.name, "the name of an action") {
		return
	}
	a := Action{Name: name, Lane: tebra.DefaultLane}
	if known, ok := b.policy.actions[name]; ok {
		a = *known
	}
	a.Effect = b.effect(e, a.Effect)
	a.Roles = b.roles(e.roles)
	a.Timeout = within(b, e.timeout, "a timeout", minTimeout, maxTimeout).or(a.Timeout)
	a.TTL = within(b, e.ttl, "a ttl", minTTL, maxTTL).or(ttlOr(a.TTL, a.Effect))
	a.Lane = b.laneOf(e.lane).or(a.Lane)

	b.policy.actions[name] = &a
	b.policy.timeoutAt[name] = e.timeout.at
	b.policy.ttlAt[name] = cmp.Or(e.ttl.at, e.name.at)
}

// effect returns the effect of an action, which had the effect known before, or
// none. A write stays a write: a read is made again without a question.
func (b *builder) effect(e actionEntry, known Effect) Effect {
	if e.effect.missing() && known == "" {
		b.add(e.name.at, "action %s: the effect is missing: add effect: read, or effect: write if it changes anything", quote(e.name.v))
		return known
	}
	if !e.effect.set {
		return known
	}
	effect := Effect(e.effect.v)
	if effect != Read && effect != Write {
		b.add(e.effect.at, "no effect %s: want read, or write if it changes anything", quote(e.effect.v))
		return known
	}
	if effect == Read && known == Write {
		b.add(e.effect.at, "action %s is a write in the built-in catalogue: it can't be made a read", quote(e.name.v))
		return known
	}
	return effect
}

func ttlOr(known time.Duration, effect Effect) time.Duration {
	if known != 0 {
		return known
	}
	if effect == Write {
		return defaultWriteTTL
	}
	return defaultReadTTL
}

func (b *builder) laneOf(v value[string]) value[string] {
	if !v.set {
		return v
	}
	if _, ok := b.policy.lanes[v.v]; !ok {
		b.add(v.at, "no lane %s: add it under lanes, or name one of %s", quote(v.v), strings.Join(laneNames(b.policy), ", "))
	}
	return v
}

func laneNames(p *Policy) []string {
	names := make([]string, 0, len(p.lanes))
	for _, l := range p.Lanes() {
		names = append(names, l.Name)
	}
	return names
}

func (b *builder) probe(v value[string]) {
	if !v.set {
		return
	}
	a, ok := b.policy.actions[v.v]
	if !ok {
		b.add(v.at, "the probe %s is no action of this policy: add it under actions, or name another", quote(v.v))
		return
	}
	if a.Effect != Read {
		b.add(v.at, "the probe %s is not a read, and is called again and again: name a read", quote(v.v))
		return
	}
	b.policy.probe = v.v
}

// users decides where roles come from. Without users nobody has any.
func (b *builder) users(doc document) {
	b.policy.static = &Static{}
	if doc.users.missing() {
		b.unheld(doc.actions)
		return
	}
	if !doc.users.set {
		return
	}
	e := doc.users.v
	switch {
	case e.source.missing():
		b.add(doc.users.at, "users: the source is missing: add source: static or source: firebase")
	case !e.source.set:
	case e.source.v == sourceStatic:
		b.static(e)
	case e.source.v == sourceFirebase:
		b.firebase(e)
	default:
		b.add(e.source.at, "no source %s: want static or firebase", quote(e.source.v))
	}
}

// unheld reports actions with roles in a file that says of nobody what roles
// they have.
func (b *builder) unheld(actions []actionEntry) {
	for _, e := range actions {
		if len(e.roles.v) > 0 {
			b.add(e.roles.at, "action %s grants roles, and nothing says who has them: add users with source: static or source: firebase", quote(e.name.v))
			return
		}
	}
}

func (b *builder) static(e usersEntry) {
	b.foreign(e.claim.at, "claim", sourceStatic)
	b.foreign(e.cache.at, "cache", sourceStatic)
	if len(e.accounts.v) > maxAccounts {
		b.add(e.accounts.at, "%d accounts: at most %d are read; keep more in Firebase", len(e.accounts.v), maxAccounts)
	}
	s := &Static{accounts: make(map[string]account, len(e.accounts.v)), anyone: b.roles(e.anyone.v.roles)}
	for _, a := range e.accounts.v {
		if a.id.v == "*" {
			b.add(a.id.at, `"*" would be a user of that ID: for any user write anyone: {roles: [...]} beside accounts`)
			continue
		}
		if b.name(a.id, "a user ID") {
			s.accounts[a.id.v] = account{roles: b.roles(a.roles), disabled: a.disabled.v}
		}
	}
	b.policy.static = s
}

func (b *builder) firebase(e usersEntry) {
	b.foreign(e.accounts.at, "accounts", sourceFirebase)
	b.foreign(e.anyone.at, "anyone", sourceFirebase)
	if e.claim.set {
		b.name(e.claim, "the claim")
	}
	b.policy.static = nil
	b.policy.firebase = &Firebase{
		Claim: e.claim.or(defaultClaim),
		Cache: within(b, e.cache, "the cache", minCache, maxCache).or(defaultCache),
	}
}

// foreign reports a key that stands at a place and means nothing to the source.
func (b *builder) foreign(at place, key, source string) {
	if at != (place{}) {
		b.add(at, "%s is not for source: %s: leave it out, or use the other source", key, source)
	}
}

// roles returns the roles of a list, and reports those that can't be one.
func (b *builder) roles(list value[[]value[string]]) []string {
	if len(list.v) > maxRoles {
		b.add(list.at, "%d roles: want at most %d", len(list.v), maxRoles)
	}
	var roles []string
	seen := make(map[string]bool, len(list.v))
	for _, r := range list.v {
		if !rolePattern.MatchString(r.v) {
			b.add(r.at, "role %s: want 1 to 64 letters, digits and . _ : / -", quote(r.v))
			continue
		}
		if seen[r.v] {
			b.add(r.at, "role %s is here twice: remove one", quote(r.v))
			continue
		}
		seen[r.v] = true
		roles = append(roles, r.v)
	}
	return roles
}

// name reports a name that can't travel in messages, and whether it can.
func (b *builder) name(v value[string], what string) bool {
	bad := v.v == "" || len(v.v) > maxNameBytes || !utf8.ValidString(v.v) ||
		v.v != strings.TrimSpace(v.v) || strings.ContainsFunc(v.v, unicode.IsControl)
	if bad {
		b.add(v.at, "%s is %s: want 1 to %d bytes, without control characters and without spaces around it", what, quote(v.v), maxNameBytes)
	}
	return !bad
}

// within reports a value outside of its bounds.
func within[T int | time.Duration](b *builder, v value[T], what string, least, most T) value[T] {
	if v.set && (v.v < least || v.v > most) {
		b.add(v.at, "%s is %v: want %v to %v", what, v.v, least, most)
	}
	return v
}
