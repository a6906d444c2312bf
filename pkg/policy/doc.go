// Package policy says who may do what, and how fast (DESIGN section 7).
//
// One file, YAML or JSON, names the actions with their effect, roles, timeout,
// ttl and lane, the lanes with their rates, the probe action, and where users'
// roles come from. [Parse] reads it over the embedded catalogue (default.yaml)
// and reports everything that is wrong with it at once; example.yaml documents
// every key. The bridge needs the lanes, the functions need all of it.
//
//	default.yaml ──┐
//	               ├─ Parse ─▶ Policy ─── Action, LaneOf, IsWrite, Lane, Probe
//	POLICY_FILE ───┘             │
//	                             ▼
//	 Subject ───────────────▶ Authorizer ──▶ nil         go on
//	                             │           *Denied     a terminal refusal
//	                             ▼           any other   try again later
//	                          Source: Static, or Cache over functions/firebase
//
// Everything fails closed: what the file does not grant is refused, and a file
// with one mistake is refused whole. A source of roles that does not answer is
// no refusal: the request is tried again.
package policy
