package functions

import (
	"net/http"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/tebra"
)

// step is what is done in the ledger about a call's outcome.
type step int

const (
	complete     step = iota // the answer is written
	letComplete              // a dead letter, and then the answer
	release                  // given back to Pub/Sub, to be tried again
	returnToLane             // given back to Redis, to wait for the API
)

func (s step) String() string {
	return [...]string{"complete", "dead letter, complete", "release", "return"}[s]
}

// decision is what an outcome means for the ledger and for Pub/Sub.
type decision struct {
	step step
	code tebra.ErrorCode
	http int
}

// giveUpBadResponse is how many attempts a read gets whose answers are no answers.
// An outage looks different; more of the same will not help (FACTS: "try again,
// then bad_response").
const giveUpBadResponse = 3

// giveUpReturned is after how many calls of one request that all failed it becomes
// a dead letter although the breaker is open: as many as the retry policy gives it.
// In between the API was back each time, or it would not have been called, so it
// is the request that fails. The policy can't see that: each time it comes from
// Redis it is a new message to Pub/Sub.
const giveUpReturned = 10

// decide is the one table from a call's outcome to what is done about it. open
// says that the breaker is open, attempt counts from 1.
func decide(r php.Result, open bool, attempt int) decision {
	switch {
	case r.Outcome == php.Answered:
		return decision{complete, "", http.StatusNoContent}
	case r.Outcome == php.Refused:
		return decision{complete, r.Code, http.StatusNoContent}
	case r.Outcome == php.Unknown:
		return decision{letComplete, tebra.OutcomeUnknown, http.StatusNoContent}
	case open && attempt >= giveUpReturned:
		return decision{letComplete, tebra.DeadLettered, http.StatusNoContent}
	case open:
		return decision{returnToLane, r.Code, http.StatusNoContent}
	case r.Code == tebra.BadResponse && attempt >= giveUpBadResponse:
		return decision{letComplete, r.Code, http.StatusNoContent}
	case r.Code == tebra.RateLimited:
		return decision{release, r.Code, http.StatusTooManyRequests}
	default:
		return decision{release, r.Code, http.StatusServiceUnavailable}
	}
}

// afterClaim is what Pub/Sub is told when a claim leaves nothing to do, and
// whether that is so.
func afterClaim(v ledger.Verdict) (status int, done bool) {
	switch v {
	case ledger.Answered, ledger.Repeated, ledger.Conflict, ledger.Superseded:
		return http.StatusNoContent, true
	case ledger.Busy:
		return http.StatusTooManyRequests, true
	default:
		return 0, false
	}
}
