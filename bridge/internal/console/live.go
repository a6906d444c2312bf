package console

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/tebra"
)

// Bounds and rhythms of what is live.
const (
	mostRequests = 200
	mostPages    = 50
	queueLength  = 64              // messages that wait for one page
	sampleTime   = 5 * time.Second // that one sample stands for
	mostSamples  = 180             // a quarter of an hour
	mostTimes    = 10_000          // answers of a sample whose latency counts
	lookTime     = 2 * time.Second // between two looks at everything
	lookTimeout  = 10 * time.Second
	answersOver  = 15 * time.Minute // that a look counts
	retryPause   = time.Second
	writeTimeout = 10 * time.Second
)

// sample is how requests ended over [sampleTime].
type sample struct {
	At      time.Time `json:"at"` // its end
	Success int       `json:"success"`
	Errors  int       `json:"errors"`
	P50     float64   `json:"p50"` // ms from arrival to answer; 0 without answers
	P95     float64   `json:"p95"`
}

type requestKey struct{ user, id string }

// live is what all pages see at the same time. One goroutine each watches requests,
// looks at everything and makes samples; pages join and leave.
type live struct {
	inspector *inspect.Inspector
	now       func() time.Time
	log       *slog.Logger

	mu       sync.Mutex
	requests map[requestKey]inspect.Request
	order    []requestKey // as they were first seen
	samples  []sample
	status   json.RawMessage // nil before the first look
	counting sample
	times    []float64
	pages    map[*page]struct{}
	stopped  bool
}

// page is one page's event stream. What it misses because it is slow ends it.
type page struct {
	messages chan []byte
	gone     chan struct{}
}

func newLive(inspector *inspect.Inspector, now func() time.Time, log *slog.Logger) *live {
	return &live{inspector: inspector, now: now, log: log, requests: map[requestKey]inspect.Request{}, pages: map[*page]struct{}{}}
}

// run works until ctx ends, and returns when all its goroutines have.
func (l *live) run(ctx context.Context) {
	var work sync.WaitGroup
	work.Go(func() { l.watch(ctx) })
	work.Go(func() { every(ctx, lookTime, l.look) })
	work.Go(func() { every(ctx, sampleTime, func(context.Context) { l.sample() }) })
	work.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	for p := range l.pages {
		l.drop(p)
	}
}

// every does something at once, and then again and again until ctx ends.
func every(ctx context.Context, d time.Duration, do func(context.Context)) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for ctx.Err() == nil {
		do(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// watch takes in every change of a request. A Redis that is away is waited for.
func (l *live) watch(ctx context.Context) {
	var watch *inspect.Watch
	every(ctx, time.Millisecond, func(ctx context.Context) {
		var err error
		if watch == nil {
			watch, err = l.begin(ctx)
		} else {
			var changed []inspect.Request
			changed, err = watch.Next(ctx)
			l.take(changed)
		}
		if err != nil && ctx.Err() == nil {
			l.log.Debug("requests can't be watched", "error", err)
			pause(ctx, retryPause)
		}
	})
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// begin begins a watch and takes in the last requests from before it.
func (l *live) begin(ctx context.Context) (*inspect.Watch, error) {
	watch, err := l.inspector.NewWatch(ctx, inspect.Filter{})
	if err != nil {
		return nil, err
	}
	before, _, err := l.inspector.History(ctx, inspect.HistoryQuery{Since: l.now().Add(-answersOver), Limit: mostRequests})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range before {
		l.keep(r)
	}
	l.send("requests", before)
	return watch, nil
}

// take takes in changes, and counts answers.
func (l *live) take(changed []inspect.Request) {
	if len(changed) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range changed {
		r := &changed[i]
		r.Params = nil // never without being asked for
		*r = l.keep(*r)
		switch r.State {
		case tebra.Success:
			l.counting.Success++
		case tebra.Failed:
			l.counting.Errors++
		default:
			continue
		}
		if took, known := r.Took(r.Changed); known && len(l.times) < mostTimes {
			l.times = append(l.times, float64(took)/float64(time.Millisecond))
		}
	}
	l.send("requests", changed)
}

// keep remembers a request as it is now, and forgets the oldest of too many. It
// returns it with what is known of it from before.
func (l *live) keep(r inspect.Request) inspect.Request {
	k := requestKey{r.UserID, r.RequestID}
	known, ok := l.requests[k]
	if r.Arrived.IsZero() {
		r.EntryID, r.Arrived = known.EntryID, known.Arrived
	}
	if ok && !known.Arrived.IsZero() && !known.Arrived.Equal(r.Arrived) { // it came again: it goes to the end
		l.order = slices.DeleteFunc(l.order, func(other requestKey) bool { return other == k })
		ok = false
	}
	if !ok {
		l.order = append(l.order, k)
	}
	l.requests[k] = r
	for len(l.order) > mostRequests {
		delete(l.requests, l.order[0])
		l.order = l.order[1:]
	}
	return r
}

// sample ends one sample and begins the next.
func (l *live) sample() {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.counting
	s.At = l.now()
	slices.Sort(l.times)
	if n := len(l.times); n > 0 {
		s.P50, s.P95 = l.times[n/2], l.times[min(n-1, n*95/100)]
	}
	l.counting, l.times = sample{}, l.times[:0]
	l.samples = append(l.samples, s)
	if len(l.samples) > mostSamples {
		l.samples = slices.Delete(l.samples, 0, len(l.samples)-mostSamples)
	}
	l.send("sample", s)
}

// look looks at everything.
func (l *live) look(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	s, err := l.inspector.Status(bounded, answersOver, nil)
	if ctx.Err() != nil {
		return
	}
	var shown any = asStanding(s)
	if err != nil {
		l.log.Debug("Redis can't be looked at", "error", err)
		shown = standing{Trouble: "Redis can't be looked at; trying again"}
	}
	raw, err := json.Marshal(shown)
	if err != nil {
		l.log.Error("what was seen can't be written down", "error", err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = raw
	l.send("status", l.status)
}

// send sends a message to all pages.
func (l *live) send(event string, data any) {
	if len(l.pages) == 0 {
		return
	}
	message := l.message(event, data)
	for p := range l.pages {
		select {
		case p.messages <- message:
		default:
			l.drop(p)
		}
	}
}

func (l *live) message(event string, data any) []byte {
	raw, err := json.Marshal(data)
	if err != nil {
		l.log.Error("a message can't be written down", "error", err)
		raw = []byte("null")
	}
	return slices.Concat([]byte("event: "+event+"\ndata: "), raw, []byte("\n\n"))
}

func (l *live) drop(p *page) {
	if _, there := l.pages[p]; there {
		delete(l.pages, p)
		close(p.gone)
	}
}

// join adds a page, whose first message is all there is. It returns nil where there
// is no room.
func (l *live) join() *page {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || len(l.pages) >= mostPages {
		return nil
	}
	p := &page{messages: make(chan []byte, queueLength), gone: make(chan struct{})}
	requests := make([]inspect.Request, 0, len(l.order))
	for _, k := range l.order {
		requests = append(requests, l.requests[k])
	}
	p.messages <- l.message("snapshot", map[string]any{"requests": requests, "samples": l.samples, "status": l.status})
	l.pages[p] = struct{}{}
	return p
}

func (l *live) leave(p *page) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(p)
}

// serve streams to one page until it leaves or is too slow. There is always
// something within [lookTime], so that it needs no heartbeat.
func (l *live) serve(w http.ResponseWriter, r *http.Request) {
	p := l.join()
	if p == nil {
		refuse(w, http.StatusServiceUnavailable, "the console stops, or too many pages are open")
		return
	}
	defer l.leave(p)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	rc := http.NewResponseController(w)
	for {
		select {
		case message := <-p.messages:
			_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // a writer without deadlines is a test's
			if _, err := w.Write(message); err != nil || rc.Flush() != nil {
				return
			}
		case <-p.gone:
			return
		case <-r.Context().Done():
			return
		}
	}
}
