// Package stream is everything that is done to the requests stream and the sets
// beside it: consumer groups, reading, parking, reservation of room in a lane,
// acknowledging, rejecting, trimming. The audit stream of operators is written here too.
//
// Where an entry of the requests stream can be, and what moves it. Each arrow is
// one command or one script, so that an entry is at every moment in at least one
// of these places, and a crash between two arrows loses nothing:
//
//	          XREADGROUP >            Admit: room              Ack
//	unread ────────────────▶ in hand ────────────────▶ open ─────────▶ open only
//	                        (group    │  Admit:        (in hand and     (published;
//	                         bridge)  │  no room        open)            functions
//	                           ▲      ▼                   ▲              answer it)
//	                           │    parked ───────────────┘               │   │
//	                           │   (group parked,   Fill: room            │   │ answered
//	                           │    one consumer                          │   ▼
//	                           │    per lane)  ◀──────────────────────────┘  gone
//	                     AutoClaim, Own            ledger.Return: API down
//
// Admit is also what says that a request is pending.
//
// All waiting is in Redis: a bridge holds nothing that another could not go on
// with (DESIGN section 5.1). Methods are safe for concurrent use, take one round
// trip each unless they say otherwise, and return the client's errors wrapped.
package stream
