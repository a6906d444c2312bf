// Package bridge drains the requests stream into Pub/Sub (DESIGN section 5).
//
// A bridge is a handful of goroutines around one idea: whatever waits, waits in
// Redis, so that any bridge can be killed at any moment and another goes on.
//
//	workers (several)      take, in order:                     at the same time as others:
//	                       gate ─▶ read ─▶ decode ─▶ admit ──▶ publish ─▶ confirm ─▶ acknowledge
//	                                                   │ no room
//	                                                   ▼
//	parker     once reading has caught up:       lot ─▶ park
//	                                                   ▼
//	                                                 parked ◀── functions, while the API is down
//	filler     as room comes free:                     │
//	           Fill ─▶ publish ─▶ acknowledge ◀────────┘
//	rejecters  what is no request: dead letter ─▶ answer and acknowledge
//	reclaimer  idle entries of others: careful admission ─▶ publish ─▶ acknowledge
//	watcher    reads the breaker, shuts the gate, sends one probe an interval
//	keeper     heartbeat, trimming, names of the dead, sweep
//
// Two ways lead through admission. The fast one is for entries that nobody has
// seen. The careful one is for whatever may have been here before (claimed, read
// again after a lost reply, or delivered again because Redis lost what it had
// acknowledged): it asks the ledger and the open sets first.
//
// A batch that could not be published, or whose fate is unclear, is simply let
// go of: it is still pending for this consumer, and is read again, carefully.
//
// Should the bridge panic at what it does with one entry alone (decode it, encode it,
// log it), that entry is rejected and the others go on; a panic anywhere else stops the
// bridge. So it takes no count of deliveries to find out which entry it was, and the
// rest of a batch is not handled twice.
//
// A bridge may stand still at any moment (paused, starved, its Redis away), and find
// on waking that another has claimed what it holds, and brought it to its end. So the
// script that gives entries room or parks them, and says that they are pending, looks
// whether they are still in the bridge's hand, and so does acknowledging after long; who
// took long to read or to admit looks again with care; and what turns out to have its
// answer is closed by whoever claims it.
package bridge
