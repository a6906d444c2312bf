// Package deadletters is what an operator does with dead letters: list, show,
// replay, drop (DESIGN section 10). It prints nothing, so that a command line and
// a web console may both stand on it.
//
// Dead letters wait in Pub/Sub's inspection subscription, which can only be
// looked at by taking messages from it. So every act holds what it takes, and
// gives back what it did not acknowledge, however it ends:
//
//	waiting ──Pull──▶ held ──extend, every third of the lease──▶ held
//	   ▲                │
//	   │   release      ├──▶ listed, shown, refused, not chosen
//	   └────────────────┤
//	                    └──▶ replayed or dropped ──Acknowledge──▶ gone
//
// A process that is killed gives nothing back; then the lease runs out, a minute
// later at most. Meanwhile, and while somebody else holds them, letters are not
// seen: two operators at a time each see a part.
//
// # Order of a replay
//
//	look (ledger)  ──▶  audit record  ──▶  back on the stream (ledger, one script)  ──▶  Acknowledge
//
// Whatever happens between two of these, the letter is still there, and the next
// replay finds in the ledger that it was done and only acknowledges. The stream's
// own confirmation is the script's reply.
//
// # Bounds
//
// One act holds at most [Config].MaxLetters letters and keeps the contents of at
// most MaxBytes of them, and looks for MaxTime at most; what it says of the rest
// is that there is more. An ID of a dead letter is its Pub/Sub message ID, which
// stays the same however often it is delivered.
package deadletters
