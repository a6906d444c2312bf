// Package ledger keeps the record of each request in Redis, and decides by it
// who does what about a delivery: so that every entry of the requests stream gets
// one terminal answer, and no call that changes something is made twice
// (DESIGN sections 1 and 8).
//
// It can't make the PHP side exactly-once. A call that was sent and not answered
// may have been made or not, and nobody can tell from here. What the ledger
// does is to never send such a call again, and to say outcome_unknown, so
// that a person looks. That holds as long as Redis keeps what it has acknowledged.
// Where Redis lost everything, or a write's record, the epoch and the missing
// record show it, and the write becomes outcome_unknown too. What it can't
// notice is a failover that takes back single fields: [Config.Replicas] makes
// [Ledger.Start] wait until the mark of a started call has left the one server.
// Nor can it tell, once a record is lost, that a client which sends the same
// request again has sent it before.
//
// # States
//
// A record belongs to a user and a request ID, not to an entry of the stream:
// a client that sends a request twice makes two entries of one record.
//
//	            Admit (writes)
//	                 │                         a replay grants one run more
//	                 ▼                                   (Replay)
//	            ┌──────────┐ ◀────────────────────────────────────────────┐
//	  ┌───────▶ │ admitted │                                              │
//	  │         └────┬─────┘                                              │
//	  │              │ Claim, Settle                                      │
//	  │              ▼           lease over, not started: Claim, Settle   │
//	Return      ┌──────────┐ ◀──┐                                         │
//	  └──────── │ running  │ ───┘                                         │
//	            │          │         Complete                       ┌─────┴────┐
//	Claim of ─▶ │  lease,  │ ─────────────────────────────────────▶ │   done   │
//	a read, no  │  token   │                                        │ outcome, │
//	record      │          │ ─────┐ Start (writes)                  │ answer   │
//	            └──────────┘      ▼                                 └──────────┘
//	  ▲              │       ┌──────────┐      Complete                   ▲
//	  │ Claim,       │       │ running, │ ────────────────────────────────┤
//	  │ Settle       │       │ started  │                                 │
//	  │              │       └────┬─────┘                                 │
//	  │      Release │    Release │  │ lease over: Claim, Settle           │
//	  │              ▼            ▼  ▼                                    │
//	  │         ┌──────────┐      │ ┌──────────┐ Complete(outcome_unknown) │
//	  └──────── │ retrying │ ◀────┘ │ running, │ ──────────────────────────┘
//	            └──────────┘        │ unknown  │ ◀── a write without record,
//	                                └──────────┘     or of another epoch
//
// Reject answers an entry that nobody has claimed and nobody will; its request's
// record goes from admitted to done with it if it was made for that entry, and else stays
// as it is.
//
// Release says that the call had no effect; unknown can be released too, and is
// then retrying, but stays unknown. A lease that ran out changes nothing by
// itself: its holder may still Complete until another has claimed.
//
// # The record
//
// A hash under [tebra.Keys.Ledger]. With every word it ends at the
// earliest [Config.TTL] later; nothing else depends on a key's expiry.
//
//	state       admitted, running, retrying, done
//	entry       the stream entry that it was admitted for, or last worked on
//	print       tebra.Fingerprint of action and params
//	epoch       the life of Redis that it was admitted in
//	admitted    when it was made, ms
//	token       who holds the claim; none in admitted, retrying, done
//	verdict     what the holder was told: run or unknown
//	lease       until when, ms of the Redis clock
//	past        who gave the claim back last
//	attempts    runs of the request since its admission or last replay
//	started     a call may have been made: number of the holder's start
//	code        why it was given back last
//	outcome     when done: "" for success, or the error code
//	answer      when done: stream ID of the response, to be repeated
//	orphan      Complete made it, because Redis had lost the record: what was before
//	            is not known
//	a:<entry>   an answered entry: response's stream ID, token, how; after a Reject it
//	            may be all that there is
//	answers     how many of them
//	evicted     the list of them overflowed: its oldest were dropped
//	r:<entry>   a replayed entry: the new entry, token
//	replays     how many of them
//	replayedAs  the newest replay, for people
//
// At most 32 answered entries are listed. An entry is open from before it is
// published until the script that answers it, so that after an overflow the lane's
// open set tells an entry that was dropped from one that was never answered; a
// dropped one is also acknowledged in both groups, so that it can't be published
// again.
//
// # What a claim decides
//
// In this order; the first that holds counts.
//
//	this entry is listed as answered                 answered    clear the sets
//	this entry was replayed                          superseded  clear the sets
//	the list overflowed, and this entry is not open  answered    clear the sets
//	the record is about another action or params     conflict    answer duplicate
//	done, and the answer is still there              repeated    repeat it
//	done, and the answer is gone                     conflict    answer duplicate
//	the caller's own token                           as before   (a resent command)
//	the caller's token was given back                busy        (a late copy)
//	another's lease lasts                            busy
//	started                                          unknown     take the lease
//	a write without record, or whose message, record
//	and Redis don't agree on the epoch               unknown     take the lease
//	else                                             run         take the lease
//
// Where one of the two fingerprints is missing, because a body could not be read,
// record and delivery are about the same only if the record's entry is this one.
//
// # Commands sent twice
//
// The client sends a command again when its reply was lost, and a copy may reach
// Redis late. Every script knows its caller by a token: the same command again
// changes nothing and is told the same. A late copy of a claim can at worst take a
// lease that nobody uses, and that ends.
package ledger
