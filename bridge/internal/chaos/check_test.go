package chaos

import (
	"fmt"
	"slices"
	"strings"

	"tebraproxy/pkg/tebra"
)

// violation is a promise that was not kept.
type violation struct {
	promise string
	detail  string
	keys    []string // correlation IDs whose history tells more
}

// checker holds evidence against what was promised.
type checker struct {
	*evidence
	byKey     map[string][]entry
	byRequest map[string][]entry
	byEntry   map[string]entry
	executed  map[string][]string // request → correlation IDs of the calls that were executed
	reached   map[string]bool     // requests that the API was called for
	lettersOf map[string][]letter // request → its dead letters
	found     []violation
}

func newChecker(ev *evidence) *checker {
	c := &checker{
		evidence: ev, byKey: map[string][]entry{}, byRequest: map[string][]entry{}, byEntry: map[string]entry{},
		executed: map[string][]string{}, reached: map[string]bool{}, lettersOf: map[string][]letter{},
	}
	for _, e := range ev.entries {
		c.byKey[e.key] = append(c.byKey[e.key], e)
		c.byRequest[e.request()] = append(c.byRequest[e.request()], e)
		c.byEntry[e.entryID] = e
	}
	for _, j := range ev.journal {
		entries := c.byKey[j.CorrelationID]
		if len(entries) == 0 {
			if j.RequestID != "probe" {
				c.fail("the API is called for nothing but requests", fmt.Sprintf("a call of %s for %q", j.Action, j.CorrelationID))
			}
			continue
		}
		request := entries[0].request()
		c.reached[request] = true
		if j.Executed {
			c.executed[request] = append(c.executed[request], j.CorrelationID)
		}
	}
	for _, l := range ev.letters {
		if e, ok := c.byEntry[l.entryID()]; ok {
			c.lettersOf[e.request()] = append(c.lettersOf[e.request()], l)
		}
	}
	return c
}

func (c *checker) fail(promise, detail string, keys ...string) {
	c.found = append(c.found, violation{promise, detail, keys})
}

// check returns the promises that were not kept.
func (c *checker) check() []violation {
	c.checkAnswers()
	c.checkStatuses()
	c.checkCalls()
	c.checkNothingWaits()
	c.checkLetters()
	c.checkNames()
	return c.found
}

// checkAnswers: one terminal answer for each entry, of a kind that fits it.
func (c *checker) checkAnswers() {
	for key, entries := range c.byKey {
		want := 0
		for _, e := range entries {
			if e.answerable() {
				want++
			}
		}
		if got := len(c.answers[key]); got != want {
			c.fail("every entry has exactly one terminal answer", fmt.Sprintf("%d answers to %d entries", got, want), key)
		}
		for _, a := range c.answers[key] {
			e := entries[0]
			if allowed := c.allowed(e); !slices.Contains(allowed, a.ErrorCode) {
				c.fail("an answer says what happened", fmt.Sprintf("%q to a request that is %s (%s): want one of %q", a.ErrorCode, e.class, e.action, allowed), key)
			}
			if a.UserID != e.user && e.class != malformed || e.id != "" && a.RequestID != e.id && e.class != malformed {
				c.fail("an answer is that of its request", fmt.Sprintf("it is for user %s, request %s", a.UserID, a.RequestID), key)
			}
		}
	}
	for key := range c.answers {
		if len(c.byKey[key]) == 0 {
			c.fail("every answer belongs to an entry", "an answer to nobody's entry", key)
		}
	}
}

// allowed returns the codes that an entry's answer may have, "" being success.
// rate_limited and unavailable are never last words, and no_answer would mean that
// the sweep had to step in.
func (c *checker) allowed(e entry) []tebra.ErrorCode {
	codes := []tebra.ErrorCode{tebra.DeadLettered}
	switch e.class {
	case malformed:
		return []tebra.ErrorCode{tebra.Malformed}
	case tooLarge:
		return []tebra.ErrorCode{tebra.TooLarge}
	case unknown:
		codes = append(codes, tebra.UnknownAction)
	case unauthorized:
		codes = append(codes, tebra.Unauthorized)
	case refused:
		codes = append(codes, tebra.Rejected, tebra.OutcomeUnknown)
	case valid:
		codes = append(codes, "")
		if e.write {
			codes = append(codes, tebra.OutcomeUnknown)
		} else {
			codes = append(codes, tebra.BadResponse)
		}
	}
	if c.contested(e) {
		codes = append(codes, tebra.Duplicate)
	}
	return codes
}

// contested reports whether different things were asked for under the request's ID.
func (c *checker) contested(e entry) bool {
	for _, other := range c.byRequest[e.request()] {
		if other.action != e.action || other.params != e.params {
			return true
		}
	}
	return false
}

// checkStatuses: the terminal status is there as often as the answer.
func (c *checker) checkStatuses() {
	for key := range c.byKey {
		terminal := 0
		for _, s := range c.statuses[key] {
			if s.State.Terminal() {
				terminal++
			}
		}
		if want := len(c.answers[key]); terminal != want {
			c.fail("every answer has its status", fmt.Sprintf("%d terminal statuses, %d answers", terminal, want), key)
		}
	}
}

// checkCalls: what the API executed, and what the answers say about it.
func (c *checker) checkCalls() {
	for request, entries := range c.byRequest {
		calls := c.executed[request]
		if !entries[0].write {
			continue
		}
		if len(calls) > 1 {
			c.fail("a change is executed at most once", fmt.Sprintf("%s was executed %d times", request, len(calls)), calls...)
		}
	}
	for key, entries := range c.byKey {
		e := entries[0]
		for _, a := range c.answers[key] {
			c.checkCall(e, a)
		}
	}
}

func (c *checker) checkCall(e entry, a answer) {
	executed := len(c.executed[e.request()]) > 0
	if a.ErrorCode == "" && !executed {
		c.fail("a success was executed", "the API did not execute it", e.key)
	}
	if !e.write || !executed || a.ErrorCode == "" || a.ErrorCode == tebra.OutcomeUnknown || c.contested(e) && a.ErrorCode == tebra.Duplicate {
		return
	}
	if e.class == valid {
		c.fail("a change that was executed is answered with success, outcome_unknown or the API's own error", string(a.ErrorCode), e.key)
	}
}

// checkNothingWaits: nothing is unread, pending, parked, open or being retried, and
// no record is unsettled.
func (c *checker) checkNothingWaits() {
	if !c.waiting.Idle() {
		c.fail("nothing is left in Redis", fmt.Sprintf("%+v", c.waiting))
	}
	for _, l := range c.left {
		c.fail("nothing is left in Redis", l.String(), c.byEntry[l.entryID].key)
	}
	if len(c.left) > 0 {
		c.fail("nothing is left in Redis", "who was there at the end:\n      "+strings.Join(c.standing, "\n      "))
	}
	for hash, state := range c.records {
		if state != "done" {
			c.fail("every record is settled", fmt.Sprintf("record %s is %s", hash, state), c.keysOf(hash)...)
		}
	}
}

// keysOf returns the correlation IDs of the entries of a record.
func (c *checker) keysOf(hash string) []string {
	var keys []string
	for _, e := range c.entries {
		id := e.id
		if id == "" {
			id = e.key
		}
		if tebra.LedgerHash(e.user, id) == hash {
			keys = append(keys, e.key)
		}
	}
	return keys
}

// mustSee are the answers that ask for a person.
var mustSee = []tebra.ErrorCode{
	tebra.Malformed, tebra.TooLarge, tebra.BadResponse, tebra.OutcomeUnknown, tebra.DeadLettered, tebra.NoAnswer,
}

// checkLetters: every dead letter says why, is answered, and by the same reason, and
// every failure that needs a person has one.
func (c *checker) checkLetters() {
	for _, l := range c.letters {
		e, ours := c.byEntry[l.entryID()]
		switch {
		case !ours:
			c.fail("every dead letter belongs to an entry", fmt.Sprintf("one of entry %q", l.entryID()))
			continue
		case l.attributes[tebra.AttrReason] == "" && l.attributes[byPolicy] == "":
			c.fail("every dead letter says why", fmt.Sprintf("its attributes are %v", l.attributes), e.key)
		case e.answerable() && len(c.answers[e.key]) == 0:
			c.fail("every dead letter's request is answered", "it is not", e.key)
		case e.answerable() && !c.fits(l, e):
			c.fail("every dead letter fits its answer", fmt.Sprintf("its reason is %q", l.attributes[tebra.AttrReason]), e.key)
		}
		for name, value := range l.attributes {
			if strings.Contains(value, canary) {
				c.fail("no contents in attributes", "attribute "+name, e.key)
			}
		}
	}
	for key, entries := range c.byKey {
		e := entries[0]
		for _, a := range c.answers[key] {
			if slices.Contains(mustSee, a.ErrorCode) && len(c.lettersOf[e.request()]) == 0 {
				c.fail("every failure that needs a person is a dead letter", fmt.Sprintf("%s without one", a.ErrorCode), key)
			}
		}
		if !e.answerable() && len(c.lettersOf[e.request()]) == 0 {
			c.fail("an entry that nobody can be answered for is a dead letter", "there is none", key)
		}
	}
}

// lastWords are reasons of dead letters after which nothing else may be answered. A
// read whose letter is out may be tried once more, and what Pub/Sub gave up on may
// have had its answer.
var lastWords = []tebra.ErrorCode{tebra.Malformed, tebra.TooLarge, tebra.OutcomeUnknown}

// fits reports whether a dead letter says the same as the answer to its entry.
func (c *checker) fits(l letter, e entry) bool {
	reason := tebra.ErrorCode(l.attributes[tebra.AttrReason])
	return !slices.Contains(lastWords, reason) ||
		slices.ContainsFunc(c.answers[e.key], func(a answer) bool { return a.ErrorCode == reason })
}

// checkNames: no contents in the names of keys.
func (c *checker) checkNames() {
	for _, key := range c.keys {
		if strings.Contains(key, canary) {
			c.fail("no contents in Redis keys", key)
		}
	}
}
