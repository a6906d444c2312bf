// Package functions holds the HTTP functions that Pub/Sub pushes to (DESIGN
// sections 6 and 10): ProcessRequest, which calls the API and answers, and
// RecordDeadLetter, which answers for what the retry policy gave up on.
//
// What ProcessRequest does with a message, and what Pub/Sub is told. A 2xx is
// said only once the terminal answer is in Redis, or the entry waits there again:
//
//	envelope ──▶ claim ──┬─ answered, repeated, conflict, superseded ────▶ 204
//	  │ none             ├─ busy ────────────────────────────────────────▶ 429
//	  ▼                  ├─ unknown ──▶ dead letter ──▶ complete ────────▶ 204
//	 400                 └─ run
//	                         │ breaker open ─────────────▶ return ───────▶ 204
//	                         │ expired, not allowed ─────▶ complete ─────▶ 204
//	                         │ no turn in RATE_WAIT ─────▶ release ──────▶ 429
//	                         │ breaker open by now ──────▶ return ───────▶ 204
//	                         ▼
//	               (writes: start) ──▶ call the API ──▶ table in outcome.go
//
// Redis trouble at any step before the answer is a 503: the message comes again,
// and the ledger knows how far it was. An attempt does not end with the connection
// it was pushed over: only with its own deadline, or when the server gives up.
package functions
