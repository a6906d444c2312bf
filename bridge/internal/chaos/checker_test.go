package chaos

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// The keys of what kept returns: a request of each kind that ends in its own way.
const (
	readDone     = "read"
	writeDone    = "write"
	writeUnknown = "write unknown"
	writeGivenUp = "write given up" // by Pub/Sub, never executed
	writeRefused = "write refused"  // by the API
	sentTwice    = "sent twice"     // by its client: two entries, one call
	bad          = "malformed"
	nameless     = "nameless" // nobody can be told
)

// kept is the evidence of a run in which all promises were kept.
func kept() *evidence {
	ev := &evidence{answers: map[string][]answer{}, statuses: map[string][]tebra.StatusUpdate{}, records: map[string]string{}}
	seq := 0
	add := func(key, id string, class class, write bool, code tebra.ErrorCode) {
		seq++
		e := entry{entryID: fmt.Sprintf("%d-0", seq), key: key, planned: planned{
			class: class, user: users[0], id: id, correlation: key, action: "updateAppointment", params: "{}", write: write,
		}}
		if key == nameless {
			e.form = malformedForms - 1
		}
		ev.entries = append(ev.entries, e)
		if !e.answerable() {
			return
		}
		ev.answers[key] = append(ev.answers[key], answer{tebra.Response{CorrelationID: key, RequestID: id, UserID: users[0], ErrorCode: code}, e.entryID})
		ev.statuses[key] = append(ev.statuses[key], tebra.StatusUpdate{CorrelationID: key, State: tebra.Processing})
		ev.end(key, code)
	}
	call := func(key string, executed bool) {
		ev.journal = append(ev.journal, phptest.Entry{CorrelationID: key, Executed: executed})
	}
	add(readDone, "r-1", valid, false, "")
	call(readDone, true)
	add(writeDone, "r-2", valid, true, "")
	call(writeDone, true)
	add(writeUnknown, "r-3", valid, true, tebra.OutcomeUnknown)
	call(writeUnknown, true)
	ev.letter(writeUnknown, tebra.AttrReason, string(tebra.OutcomeUnknown))
	add(writeGivenUp, "r-4", valid, true, tebra.DeadLettered)
	call(writeGivenUp, false)
	ev.letter(writeGivenUp, byPolicy, "tebra-requests-push")
	add(writeRefused, "r-5", refused, true, tebra.Rejected)
	call(writeRefused, true)
	add(sentTwice, "r-6", valid, true, "")
	add(sentTwice+" again", "r-6", valid, true, "")
	call(sentTwice, true)
	add(bad, "r-7", malformed, false, tebra.Malformed)
	ev.letter(bad, tebra.AttrReason, string(tebra.Malformed))
	add(nameless, "", malformed, false, "")
	ev.letter(nameless, tebra.AttrReason, string(tebra.Malformed))
	ev.records["hash"] = "done"
	return ev
}

// end adds the terminal status of an answer.
func (ev *evidence) end(key string, code tebra.ErrorCode) {
	state := tebra.Success
	if code != "" {
		state = tebra.Failed
	}
	ev.statuses[key] = append(ev.statuses[key], tebra.StatusUpdate{CorrelationID: key, State: state, ErrorCode: code})
}

// letter adds a dead letter of the first entry of a key.
func (ev *evidence) letter(key, attribute, value string) {
	ev.letters = append(ev.letters, letter{attributes: map[string]string{tebra.AttrEntryID: ev.first(key).entryID, attribute: value}})
}

func (ev *evidence) first(key string) *entry {
	at := slices.IndexFunc(ev.entries, func(e entry) bool { return e.key == key })
	return &ev.entries[at]
}

// dropLetters takes the dead letters of a key's first entry away.
func (ev *evidence) dropLetters(key string) {
	id := ev.first(key).entryID
	ev.letters = slices.DeleteFunc(ev.letters, func(l letter) bool { return l.entryID() == id })
}

// recode changes the code of a key's answer and status.
func (ev *evidence) recode(key string, code tebra.ErrorCode) {
	ev.answers[key][0].ErrorCode = code
	ev.statuses[key] = ev.statuses[key][:1]
	ev.end(key, code)
}

func TestEachBrokenPromiseIsFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		breaks func(*evidence)
		want   []string // the promises that are not kept
	}{
		"all are kept": {func(*evidence) {}, nil},
		"no answer": {func(ev *evidence) { delete(ev.answers, readDone); delete(ev.statuses, readDone) },
			[]string{"every entry has exactly one terminal answer"}},
		"two answers": {func(ev *evidence) {
			ev.answers[readDone] = append(ev.answers[readDone], ev.answers[readDone][0])
			ev.end(readDone, "")
		}, []string{"every entry has exactly one terminal answer"}},
		"one answer to an entry that was sent twice under one correlation ID": {func(ev *evidence) {
			ev.entries = append(ev.entries, *ev.first(readDone))
		}, []string{"every entry has exactly one terminal answer"}},
		"an answer to nobody": {func(ev *evidence) { ev.answers["who"] = ev.answers[readDone] },
			[]string{"every answer belongs to an entry"}},
		"an answer to another user": {func(ev *evidence) { ev.answers[readDone][0].UserID = users[1] },
			[]string{"an answer is that of its request"}},
		"an answer to another request": {func(ev *evidence) { ev.answers[readDone][0].RequestID = "r-9" },
			[]string{"an answer is that of its request"}},
		"no terminal status": {func(ev *evidence) { ev.statuses[readDone] = ev.statuses[readDone][:1] },
			[]string{"every answer has its status"}},
		"a trouble that is no last word": {func(ev *evidence) { ev.recode(readDone, tebra.Unavailable) },
			[]string{"an answer says what happened"}},
		"the sweep had to step in": {func(ev *evidence) {
			ev.recode(readDone, tebra.NoAnswer)
			ev.letter(readDone, tebra.AttrReason, "no_answer")
		},
			[]string{"an answer says what happened"}},
		"a change that was executed twice": {func(ev *evidence) {
			ev.journal = append(ev.journal, phptest.Entry{CorrelationID: writeUnknown, Executed: true})
		}, []string{"a change is executed at most once"}},
		"a change that was executed for both of its entries": {func(ev *evidence) {
			ev.journal = append(ev.journal, phptest.Entry{CorrelationID: sentTwice + " again", Executed: true})
		}, []string{"a change is executed at most once"}},
		"an executed change that is said to be given up": {func(ev *evidence) {
			ev.recode(writeUnknown, tebra.DeadLettered)
			ev.dropLetters(writeUnknown)
			ev.letter(writeUnknown, byPolicy, "tebra-requests-push")
		}, []string{"a change that was executed is answered with success, outcome_unknown or the API's own error"}},
		"an executed change that is called a duplicate, though nothing else was asked for": {func(ev *evidence) {
			ev.recode(writeDone, tebra.Duplicate)
		}, []string{"a change that was executed is answered with success, outcome_unknown or the API's own error", "an answer says what happened"}},
		"a success that was not executed": {func(ev *evidence) {
			ev.journal = slices.DeleteFunc(ev.journal, func(j phptest.Entry) bool { return j.CorrelationID == writeDone })
		}, []string{"a success was executed"}},
		"a call that nobody asked for": {func(ev *evidence) {
			ev.journal = append(ev.journal, phptest.Entry{CorrelationID: "who"})
		}, []string{"the API is called for nothing but requests"}},
		"something in hand": {func(ev *evidence) { ev.waiting = stream.Waiting{InHand: 1} }, []string{"nothing is left in Redis"}},
		"something open":    {func(ev *evidence) { ev.left = []leftover{{entryID: "1-0"}} }, []string{"nothing is left in Redis"}},
		"a record that is not settled": {func(ev *evidence) { ev.records["hash"] = "running" },
			[]string{"every record is settled"}},
		"an unknown outcome that nobody will look at": {func(ev *evidence) { ev.dropLetters(writeUnknown) },
			[]string{"every failure that needs a person is a dead letter"}},
		"given up without a dead letter": {func(ev *evidence) { ev.dropLetters(writeGivenUp) },
			[]string{"every failure that needs a person is a dead letter"}},
		"malformed without a dead letter": {func(ev *evidence) { ev.dropLetters(bad) },
			[]string{"every failure that needs a person is a dead letter"}},
		"nameless without a dead letter": {func(ev *evidence) { ev.dropLetters(nameless) },
			[]string{"an entry that nobody can be answered for is a dead letter"}},
		"a dead letter without a reason": {func(ev *evidence) { delete(ev.letters[0].attributes, tebra.AttrReason) },
			[]string{"every dead letter says why"}},
		"a dead letter of nobody's entry": {func(ev *evidence) {
			ev.letters = append(ev.letters, letter{attributes: map[string]string{tebra.AttrEntryID: "99-0", tebra.AttrReason: "malformed"}})
		}, []string{"every dead letter belongs to an entry"}},
		"a dead letter whose request is not answered": {func(ev *evidence) {
			delete(ev.answers, writeGivenUp)
			delete(ev.statuses, writeGivenUp)
		}, []string{"every dead letter's request is answered", "every entry has exactly one terminal answer"}},
		"a dead letter of a request that ended well": {func(ev *evidence) {
			ev.letter(readDone, tebra.AttrReason, string(tebra.OutcomeUnknown))
		}, []string{"every dead letter fits its answer"}},
		"contents in an attribute": {func(ev *evidence) { ev.letters[0].attributes["action"] = canary },
			[]string{"no contents in attributes"}},
		"contents in a key": {func(ev *evidence) { ev.keys = []string{"tebra:" + canary} },
			[]string{"no contents in Redis keys"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev := kept()
			c.breaks(ev)
			got := map[string]bool{}
			for _, v := range newChecker(ev).check() {
				got[v.promise] = true
			}
			if got := slices.Sorted(maps.Keys(got)); !slices.Equal(got, c.want) {
				t.Errorf("not kept: %q, want %q", got, c.want)
			}
		})
	}
}
