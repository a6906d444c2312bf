// Package pump is a Pub/Sub server in memory that pushes: what the local run and
// the load tests have in place of the service (DESIGN section 11).
//
// It serves the Publisher and Subscriber services of google.pubsub.v1 over gRPC,
// on loopback, for clients that have its address in PUBSUB_EMULATOR_HOST. It does
// what the system uses of Pub/Sub, by the policy that was asked for when the
// subscription was created: push and pull, retry backoff, dead letters,
// acknowledgement deadlines, retention.
//
// The life of a message in one subscription:
//
//	publish ──▶ due ──take (attempt+1)──▶ leased ──ack──▶ gone
//	             ▲ │                         │
//	             │ └─older than the          │ nack, or the lease ran out
//	             │   retention──▶ gone       ▼
//	             └────backoff over───── waiting ──attempts spent──▶ published to the
//	                                                 dead-letter topic, then gone
//
// Due and waiting messages are one queue, by the time from which they may be
// delivered; leased ones another, by the end of the lease. A push is a lease of the
// acknowledgement deadline during which the message is posted to the endpoint; 102, 200, 201, 202 and 204
// acknowledge, anything else is a nack. A message leaves the subscription only when
// the dead-letter topic has it: while that can't take it, deliveries go on.
//
// # Why it doesn't stand on Google's pstest
//
// Measured and read at pubsub/v2 2.8.1, that fake keeps every message ever
// published, and can clear only all of them, unacknowledged ones too; drops what is
// older than 10 minutes, whatever the retention, where our retries take 40 and
// dead letters wait for an operator for 31 days; refuses a retention above 7
// days; knows no retry backoff and no push; and hands out less than a hundred
// messages a second to a streaming pull. Nothing of it would have been left in use.
//
// # What it does not do
//
// What would change how messages are delivered and is not built (filters,
// ordering, exactly-once, unwrapped push, …) is refused with UNIMPLEMENTED, never
// ignored. Pushes carry no OIDC token, as with Google's emulator. A nack does not
// slow the other messages of its subscription, backoffs have no jitter, and
// expiration policies are shown but not enforced. Lists come in one page.
package pump
