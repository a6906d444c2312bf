package policy

import (
	"container/list"
	"context"
	"sync"
	"time"
)

const (
	// negativeTTL bounds how long a refusal is used again: a user who was just
	// given an account should not have to wait for long.
	negativeTTL = 10 * time.Second
	// defaultCacheSize is about 5 MB of users.
	defaultCacheSize = 10_000
)

// CacheConfig says how a [Cache] behaves.
type CacheConfig struct {
	// TTL is how long roles are used again after they were asked for, so it is
	// also how long a user keeps a role that was taken away. Refusals are used
	// for TTL or 10 s, whichever is shorter.
	TTL time.Duration
	// Size is how many users are remembered; 0 means 10,000. The one who was
	// asked for longest ago goes first.
	Size int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Cache is a [Source] that remembers what another one answered. Callers who ask
// for the same user at the same time share one question. What is no answer is
// not remembered. It is safe for concurrent use and starts no goroutine.
type Cache struct {
	source Source
	ttl    time.Duration
	size   int
	now    func() time.Time

	mu      sync.Mutex
	entries map[string]*list.Element // of *entry
	recent  *list.List               // most recently asked for first
	flights map[string]*flight       // one per question that is being asked
}

// entry is a remembered answer.
type entry struct {
	userID  string
	roles   []string
	err     error
	expires time.Time
}

// flight is a question that is being asked. Its fields may be read once done is
// closed.
type flight struct {
	done  chan struct{}
	roles []string
	err   error
	// lost means that the one who asked gave up, so that others have to ask
	// again themselves.
	lost bool
}

var _ Source = (*Cache)(nil)

// NewCache returns a cache over source.
func NewCache(source Source, cfg CacheConfig) *Cache {
	c := &Cache{
		source:  source,
		ttl:     cfg.TTL,
		size:    cfg.Size,
		now:     cfg.Now,
		entries: make(map[string]*list.Element),
		recent:  list.New(),
		flights: make(map[string]*flight),
	}
	if c.size <= 0 {
		c.size = defaultCacheSize
	}
	if c.now == nil {
		c.now = time.Now
	}
	return c
}

// Roles returns what the source answered within the TTL, or asks it. The errors
// are the source's, or that of ctx.
func (c *Cache) Roles(ctx context.Context, userID string) ([]string, error) {
	for {
		c.mu.Lock()
		if e, ok := c.fresh(userID); ok {
			c.mu.Unlock()
			return e.roles, e.err
		}
		f, asked := c.flights[userID]
		if !asked {
			f = &flight{done: make(chan struct{}), lost: true}
			c.flights[userID] = f
		}
		c.mu.Unlock()

		if !asked {
			return c.ask(ctx, userID, f)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-f.done:
		}
		if !f.lost {
			return f.roles, f.err
		}
	}
}

// ask asks the source and hands the answer to everybody who waits for f. Should
// the source panic, f is lost and nobody waits for ever.
func (c *Cache) ask(ctx context.Context, userID string, f *flight) ([]string, error) {
	defer func() {
		c.mu.Lock()
		delete(c.flights, userID)
		c.mu.Unlock()
		close(f.done)
	}()
	asked := c.now()
	f.roles, f.err = c.source.Roles(ctx, userID)
	if isAnswer(f.err) {
		f.lost = false
		c.remember(userID, f, asked)
		return f.roles, f.err
	}
	f.lost = ctx.Err() != nil
	return f.roles, f.err
}

// fresh returns the remembered answer for a user. c.mu is held.
func (c *Cache) fresh(userID string) (*entry, bool) {
	element, ok := c.entries[userID]
	if !ok {
		return nil, false
	}
	e := element.Value.(*entry)
	if !c.now().Before(e.expires) {
		c.forget(element)
		return nil, false
	}
	c.recent.MoveToFront(element)
	return e, true
}

func (c *Cache) remember(userID string, f *flight, asked time.Time) {
	ttl := c.ttl
	if f.err != nil {
		ttl = min(ttl, negativeTTL)
	}
	e := &entry{userID: userID, roles: f.roles, err: f.err, expires: asked.Add(ttl)}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[userID] = c.recent.PushFront(e)
	if c.recent.Len() > c.size {
		c.forget(c.recent.Back())
	}
}

// forget drops a remembered answer. c.mu is held.
func (c *Cache) forget(element *list.Element) {
	delete(c.entries, element.Value.(*entry).userID)
	c.recent.Remove(element)
}
