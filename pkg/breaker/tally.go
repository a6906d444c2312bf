package breaker

import "sync"

// tally counts an instance's successes by part of the window until Redis is told
// of them. It is safe for concurrent use.
type tally struct {
	mu     sync.Mutex
	newest int64 // the part that counts[0] is of
	counts successes
}

// successes are counted by how many parts of the window ago they came.
type successes [parts]int64

// add counts a success in a part of the window.
func (t *tally) add(part int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moveTo(part)
	t.counts[0]++
}

// take returns what was counted in the window that ends with part, and begins
// again with nothing.
func (t *tally) take(part int64) successes {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moveTo(part)
	taken := t.counts
	t.counts = successes{}
	return taken
}

// moveTo makes part the newest and forgets what has left the window by that. A
// clock that went back changes nothing.
func (t *tally) moveTo(part int64) {
	passed := part - t.newest
	if passed <= 0 {
		return
	}
	var moved successes
	if passed < parts {
		copy(moved[passed:], t.counts[:])
	}
	t.newest, t.counts = part, moved
}
