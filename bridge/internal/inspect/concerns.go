package inspect

import (
	"fmt"
	"time"

	"tebraproxy/pkg/breaker"
)

// Concern is something about an installation that a person should know first.
type Concern struct {
	What string `json:"what"`
	Do   string `json:"do"`
}

// What is worth a concern.
const (
	longOpen    = 30 * time.Minute
	manyAnswers = 10 // of one action, of which most are errors
)

// Concerns returns what needs a person, none if all is well.
func (s Status) Concerns() []Concern {
	var all []Concern
	add := func(what, do string) { all = append(all, Concern{what, do}) }
	if len(s.Bridges) == 0 {
		heard := "never heard of"
		if !s.LastBridge.IsZero() {
			heard = "last heard of " + s.At.Sub(s.LastBridge).Round(time.Second).String() + " ago"
		}
		add("no bridge lives ("+heard+"): requests wait unread", "start one, or look into its logs")
	}
	if s.Breaker.State != breaker.Closed {
		add(fmt.Sprintf("the breaker has been %s for %v: the API fails as a whole, and requests wait in Redis",
			s.Breaker.State, s.Breaker.At.Sub(s.Breaker.Since).Round(time.Second)),
			"look into the API and its key; once it answers, requests flow by themselves")
	}
	if n, oldest := s.InFlight(); n > 0 && s.At.Sub(oldest) > longOpen {
		add(fmt.Sprintf("the oldest of %d requests in flight is unanswered for %v", n, s.At.Sub(oldest).Round(time.Second)),
			"see 'tebra history', and 'tebra trace' with its ID")
	}
	for _, a := range s.Answers.ByAction {
		failed := 0
		for _, n := range a.Errors {
			failed += n
		}
		if all := failed + a.Success; all >= manyAnswers && 2*failed > all {
			add(fmt.Sprintf("%d of %d requests %s ended in an error", failed, all, a.Action), "see the codes below, and 'tebra history --action "+a.Action+"'")
		}
	}
	if d := s.DeadLetters; d != nil && d.Waiting > 0 {
		what := d.String() + " dead letters wait for an operator"
		if d.Waiting == 1 && !d.More {
			what = "a dead letter waits for an operator"
		}
		add(what, "see 'tebra deadletters list'")
	}
	return all
}

func (d DeadLetters) String() string {
	if d.More {
		return fmt.Sprintf("at least %d", d.Waiting)
	}
	return fmt.Sprint(d.Waiting)
}
