package tebra

import (
	"fmt"
	"slices"
)

// ErrorCode says, in a word a program can decide on, why a request ended in an
// error. The set is closed (DESIGN section 4): a front end may switch on it.
type ErrorCode string

// The error codes. [ErrorCode.Meaning] has a line for people on each.
const (
	Malformed        ErrorCode = "malformed"
	TooLarge         ErrorCode = "too_large"
	UnknownAction    ErrorCode = "unknown_action"
	Unauthorized     ErrorCode = "unauthorized"
	Expired          ErrorCode = "expired"
	Rejected         ErrorCode = "rejected"
	RateLimited      ErrorCode = "rate_limited"
	Unavailable      ErrorCode = "unavailable"
	BadResponse      ErrorCode = "bad_response"
	ResponseTooLarge ErrorCode = "response_too_large"
	OutcomeUnknown   ErrorCode = "outcome_unknown"
	DeadLettered     ErrorCode = "dead_lettered"
	NoAnswer         ErrorCode = "no_answer"
	Duplicate        ErrorCode = "duplicate"
)

var meanings = map[ErrorCode]string{
	Malformed:        "the entry could not be understood as a request",
	TooLarge:         "the request is larger than this system carries",
	UnknownAction:    "the policy knows no action of that name",
	Unauthorized:     "the user may not do that",
	Expired:          "the request waited longer than its action may wait",
	Rejected:         "the API refused the request; sending it again will not help",
	RateLimited:      "the API asked to slow down; the call was not made",
	Unavailable:      "the API could not be reached or failed",
	BadResponse:      "the API answered with something that is not an answer",
	ResponseTooLarge: "the API's answer is larger than this system carries; ask for less",
	OutcomeUnknown:   "the call may or may not have been made; a person must look before it is sent again",
	DeadLettered:     "the request failed too often and waits for an operator",
	NoAnswer:         "no answer came in time; a person must look",
	Duplicate:        "a request with this id was made before, and this one differs or its answer is gone",
}

// Codes returns every error code, sorted.
func Codes() []ErrorCode {
	codes := make([]ErrorCode, 0, len(meanings))
	for c := range meanings {
		codes = append(codes, c)
	}
	slices.Sort(codes)
	return codes
}

// Meaning returns the one-line meaning of c for people, or "" when c is not
// one of the closed set.
func (c ErrorCode) Meaning() string { return meanings[c] }

// ParseErrorCode returns the code that s names, or an error when it names none.
func ParseErrorCode(s string) (ErrorCode, error) {
	if _, ok := meanings[ErrorCode(s)]; !ok {
		return "", fmt.Errorf(`"%s" is not an error code of this system`, printable(s))
	}
	return ErrorCode(s), nil
}

// State is a request's state as front ends see it. Only these four words ever
// appear on the streams: existing front ends know no others (DESIGN section 4).
type State string

// The four states.
const (
	Pending    State = "pending"
	Processing State = "processing"
	Success    State = "success"
	Failed     State = "error"
)

// Terminal reports whether a request in state s has had its last word.
func (s State) Terminal() bool { return s == Success || s == Failed }
