// Package breaker is the circuit breaker that all instances share through Redis
// (DESIGN section 9). It counts failures of the API as a whole, never those of a
// single request, and while it is open, requests wait in Redis.
//
//	          enough failures, and at least half of all calls
//	closed ─────────────────────────────────────────────────▶ open ◀────────────┐
//	  ▲                                                         │               │
//	  │                                            the interval │               │ the probe
//	  │                                                 is over ▼               │ failed, or
//	  └──────────────────────────────────────────────────── half-open ──────────┘ was sent
//	                    a probe succeeded                (who sends the probe takes it)
//
// Half-open is no state of its own in Redis: it is open with its interval over.
// One bridge takes the probe of the interval, which begins the next one, so that
// a bridge that dies with it holds nobody up. Requests go through only while it
// is closed. An open breaker stays open until a probe succeeds, however long no
// traffic comes; a closed one forgets.
//
// Failures go to Redis one by one, and decide there. Successes, of which there are
// many more, are counted in each instance and go along with its next failure or
// its next look at the breaker, which an instance under load takes four times a
// second: so all instances' calls are in the ratio, and none costs a round trip.
//
// The known library for it, sony/gobreaker, holds a Redis lock during the call in
// its distributed form, so that all calls run one after another (FACTS).
package breaker
