package phptest

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Entry is one call that the stand-in received. It holds no params.
type Entry struct {
	Time          time.Time `json:"time"`
	Action        string    `json:"action"`
	RequestID     string    `json:"requestId"` // the Idempotency-Key as sent
	CorrelationID string    `json:"correlationId"`
	Write         bool      `json:"write"`
	Executed      bool      `json:"executed"`
}

// journal keeps entries, oldest first, up to a limit. Safe for concurrent use.
type journal struct {
	mu      sync.Mutex
	limit   int
	entries []Entry
	lost    int
	out     io.Writer
	err     error
}

// add notes e and, where there is a writer, writes it as a line of JSON.
func (j *journal) add(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.entries) < j.limit {
		j.entries = append(j.entries, e)
	} else {
		j.lost++
	}
	if j.out == nil || j.err != nil {
		return
	}
	line, err := json.Marshal(e)
	if err == nil {
		_, err = j.out.Write(append(line, '\n'))
	}
	if err != nil {
		j.err = fmt.Errorf("write the stand-in's journal: %w", err)
	}
}

// Journal returns the calls received so far, in the order in which they were
// executed or turned away, up to [Config.JournalLimit].
func (s *Server) Journal() []Entry {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return slices.Clone(s.journal.entries)
}

// JournalErr returns an error when the journal is not the whole truth: there were
// more calls than [Config.JournalLimit], or [Config.JournalWriter] failed.
func (s *Server) JournalErr() error {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	if s.journal.lost > 0 {
		return fmt.Errorf("the stand-in's journal is full: %d calls are not in it", s.journal.lost)
	}
	return s.journal.err
}

// Executions returns how often the request was executed. A test that wants to show
// "at most once" checks [Server.JournalErr] too.
func (s *Server) Executions(requestID string) int {
	n := 0
	for _, e := range s.Journal() {
		if e.RequestID == requestID && e.Executed {
			n++
		}
	}
	return n
}

// MinSpacing returns the shortest time between two calls of any of the actions, taken
// together as Tebra's rate limits take them, and false when there were fewer than two.
func (s *Server) MinSpacing(actions ...string) (time.Duration, bool) {
	var times []time.Time
	for _, e := range s.Journal() {
		if slices.Contains(actions, e.Action) {
			times = append(times, e.Time)
		}
	}
	if len(times) < 2 {
		return 0, false
	}
	slices.SortFunc(times, time.Time.Compare)
	shortest := times[1].Sub(times[0])
	for i := 2; i < len(times); i++ {
		shortest = min(shortest, times[i].Sub(times[i-1]))
	}
	return shortest, true
}
