package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/tebra"
)

const (
	// mostInFlight bounds --in-flight.
	mostInFlight = 1000
	// bulkTimeout is how long a file's requests may be without news by default:
	// longer than production waits between two attempts at first, and than a lane
	// makes them wait.
	bulkTimeout = 2 * time.Minute
	// mostAtOnce bounds how many requests are added in one round trip.
	mostAtOnce = 100
)

// sendBulk runs the command for a file of many.
func (a *app) sendBulk(cmd *cobra.Command, o sendOptions) (err error) {
	if err := bulkUsage(cmd, &o); err != nil {
		return err
	}
	target, err := o.pipeline.find(cmd.Context(), a.env, cmd.Flags())
	if err != nil {
		return err
	}
	source, err := openBulk(o.file, a.stdin)
	if err != nil {
		return err
	}
	defer func() { _ = source.close() }() // it was only read
	total, err := a.checkBulk(source, o, target)
	if err != nil {
		return err
	}
	failures, err := newFailureFile(o.failures, o.file)
	if err != nil {
		return err
	}
	once := *target.redis
	once.MaxRetries = -1 // what was added twice would be asked twice; see bulk.find
	rdb := redis.NewClient(&once)
	defer func() { _ = rdb.Close() }() // everything that matters was answered before
	b := &bulk{
		app: a, rdb: rdb, keys: target.keys, options: o, lines: source.lines(), failures: failures,
		make:    func(l bulkLine) (tebra.Request, error) { return a.bulkRequest(o, l, target) },
		waiting: map[string]*bulkRequest{}, print: a.newPrinter(), bar: a.newBar(total), start: a.now(),
		byCode: map[tebra.ErrorCode]int{}, news: a.now(),
		why: a.newWaiting(inspect.New(rdb, target.keys, policy.Default())),
	}
	if _, err := source.r.Seek(0, 0); err != nil {
		return fmt.Errorf("reading the file of requests: %w", err)
	}
	return b.run(cmd.Context())
}

// bulkUsage holds the flags against what can be said of many requests.
func bulkUsage(cmd *cobra.Command, o *sendOptions) error {
	for _, name := range [...]string{"params", "id", "correlation-id"} {
		if cmd.Flags().Changed(name) {
			return usagef("--%s is about one request; with --file, put it into the lines", name)
		}
	}
	if o.inFlight < 1 || o.inFlight > mostInFlight {
		return usagef("--in-flight is %d: want 1 to %d", o.inFlight, mostInFlight)
	}
	if !cmd.Flags().Changed("timeout") {
		o.timeout = bulkTimeout
	}
	return nil
}

// checkBulk returns how many requests there are, once all of them can be sent: half
// a file that was sent is harder to go on with than none.
func (a *app) checkBulk(source *bulkSource, o sendOptions, target pipeline) (total int, err error) {
	seen := map[string]int{}
	err = source.each(func(number int, text []byte) error {
		total++
		l, err := parseBulkLine(text)
		if err == nil {
			_, err = a.bulkRequest(o, l, target)
		}
		if err != nil {
			return usagef("line %d of %s: %w; nothing was sent", number, o.file, err)
		}
		if before := seen[l.ID]; l.ID != "" && before > 0 {
			return usagef("line %d of %s has the same id as line %d; nothing was sent", number, o.file, before)
		}
		if l.ID != "" {
			seen[l.ID] = number
		}
		return nil
	})
	if err == nil && total == 0 {
		err = usagef("there is no request in %s; want a JSON object a line", o.file)
	}
	return total, err
}

func (a *app) bulkRequest(o sendOptions, l bulkLine, target pipeline) (tebra.Request, error) {
	o.id, o.correlationID = l.ID, l.CorrelationID
	if l.UserID != "" {
		o.user = l.UserID
	}
	return a.request(o, l.Action, l.Params, target)
}

// bulkRequest is a request on its way.
type bulkRequest struct {
	tebra.Request
	line  bulkLine
	entry string // "" until it is on the stream
}

// bulk sends many requests, some at a time. Everything is done by one goroutine.
type bulk struct {
	app      *app
	rdb      *redis.Client
	keys     tebra.Keys
	options  sendOptions
	lines    *bulkLines
	failures *failureFile
	make     func(bulkLine) (tebra.Request, error)
	print    *printer
	bar      *bar
	start    time.Time

	unsent  []*bulkRequest          // read from the file, not surely on the stream
	waiting map[string]*bulkRequest // on the stream, by ID
	read    string                  // the ID of the status stream after which to read
	asked   string                  // the ID of the requests stream after which unsent ones may be
	doubt   bool                    // some of the unsent may be there: a reply was lost
	news    time.Time               // when anything was last heard
	told    bool                    // that Redis fails was told
	why     waiting

	sent, success int
	byCode        map[tebra.ErrorCode]int
	unanswered    int
	rest          int // that were never sent
	times         []time.Duration
}

// run sends everything, waits for the answers, and tells how it went.
func (b *bulk) run(ctx context.Context) error {
	err := b.exchange(ctx)
	b.bar.end()
	err = errors.Join(err, b.keepRest(), b.failures.close())
	b.summary()
	return errors.Join(b.outcome(ctx, err), b.print.err)
}

// exchange returns nil once every request has its answer (or, without waiting, is on
// the stream), else why it went no further.
func (b *bulk) exchange(ctx context.Context) error {
	f := follower{rdb: b.rdb, keys: b.keys}
	bounded, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	var err error
	if b.read, err = f.lastID(bounded, b.keys.Status()); err == nil {
		b.asked, err = f.lastID(bounded, b.keys.Requests())
	}
	if err != nil {
		return fmt.Errorf("nothing was sent: %w; is Redis running there, and may this user read it?", err)
	}
	for ctx.Err() == nil {
		if err := b.fill(); err != nil {
			return err
		}
		if len(b.unsent) == 0 && len(b.waiting) == 0 {
			return nil
		}
		if b.app.now().Sub(b.news) > b.options.timeout {
			return errNoAnswer
		}
		if err := b.step(ctx); err != nil {
			return err
		}
		if len(b.waiting) > 0 {
			b.why.look(ctx, b.bar.end)
		}
		b.bar.set(b.done(), b.note())
	}
	return errInterrupted
}

func (b *bulk) done() int {
	if b.options.noWait {
		return b.sent
	}
	return len(b.times)
}

func (b *bulk) note() string {
	if failed := len(b.times) - b.success; failed > 0 {
		return fmt.Sprintf("%d failed", failed)
	}
	return ""
}

// fill reads as many requests from the file as may be under way.
func (b *bulk) fill() error {
	for len(b.unsent) < mostAtOnce && len(b.unsent)+len(b.waiting) < b.options.inFlight {
		number, text, err := b.lines.next()
		if err != nil || text == nil {
			return err
		}
		l, err := parseBulkLine(text)
		if err != nil {
			return fmt.Errorf("line %d of %s: %w; was the file changed meanwhile?", number, b.options.file, err)
		}
		r, err := b.make(l)
		if err != nil {
			return fmt.Errorf("line %d of %s: %w; was the file changed meanwhile?", number, b.options.file, err)
		}
		b.unsent = append(b.unsent, &bulkRequest{Request: r, line: l})
	}
	return nil
}

// step sends what is to be sent and takes what was answered. That Redis fails for a
// while is waited out.
func (b *bulk) step(ctx context.Context) error {
	err := b.find(ctx)
	if err == nil {
		err = b.send(ctx)
	}
	if err == nil && len(b.waiting) > 0 {
		err = b.take(ctx)
	}
	if _, refused := errors.AsType[redis.Error](err); refused {
		return fmt.Errorf("refused by Redis: %w", err)
	}
	if err == nil {
		b.told = false
		return nil
	}
	if pause(ctx, readPause) && !b.told {
		b.told = true
		b.bar.end() // it would be drawn over what is told
		fmt.Fprintf(b.app.stderr, "%s Redis fails: %s; trying again\n", b.app.styleFor(b.app.stderr).bad("tebra:"), printable(err.Error()))
	}
	return nil
}

// send adds what is to be sent, in one round trip.
func (b *bulk) send(ctx context.Context) error {
	if len(b.unsent) == 0 {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	pipe := b.rdb.Pipeline()
	for _, r := range b.unsent {
		pipe.XAdd(bounded, &redis.XAddArgs{Stream: b.keys.Requests(), Values: entryFields(r.Request)})
	}
	cmds, err := pipe.Exec(bounded)
	entries := make(map[string]string, len(cmds))
	for i, r := range b.unsent {
		if entry, failed := cmds[i].(*redis.StringCmd).Result(); failed == nil {
			entries[r.ID] = entry
		}
	}
	b.arrived(entries)
	if _, refused := errors.AsType[redis.Error](err); err != nil && !refused {
		b.doubt = true
	}
	return err
}

// find looks on the stream for what may be there, since a reply was lost. What the
// server takes only after that is added once more, under its own ID, and so changes
// nothing twice.
func (b *bulk) find(ctx context.Context) error {
	for b.doubt {
		bounded, cancel := context.WithTimeout(ctx, putTimeout)
		page, err := b.rdb.XRangeN(bounded, b.keys.Requests(), "("+b.asked, "+", mostAtOnce).Result()
		cancel()
		if err != nil {
			return err
		}
		entries := map[string]string{}
		for _, entry := range page {
			id, _ := entry.Values["id"].(string)
			entries[id], b.asked = entry.ID, entry.ID
		}
		b.arrived(entries)
		b.doubt = len(page) == mostAtOnce
	}
	return nil
}

// arrived notes that requests are on the stream, by ID as which entry.
func (b *bulk) arrived(entries map[string]string) {
	var left []*bulkRequest
	for _, r := range b.unsent {
		entry, there := entries[r.ID]
		if !there {
			left = append(left, r)
			continue
		}
		b.news = b.app.now()
		b.why.since = b.news
		b.sent++
		r.entry = entry
		if !b.options.noWait {
			b.waiting[r.ID] = r
		}
		if b.print.asJSON() && b.options.noWait {
			b.print.object(bulkEvent{Event: "sent", RequestID: r.ID, CorrelationID: r.CorrelationID, Action: r.Action, UserID: r.UserID, EntryID: entry})
		}
	}
	b.unsent = left
}

// take reads the status stream, whose last word on a request is that it is answered.
func (b *bulk) take(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, readBlock+readGrace)
	defer cancel()
	streams, err := b.rdb.XRead(bounded, &redis.XReadArgs{Streams: []string{b.keys.Status(), b.read}, Count: mostInFlight, Block: readBlock}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	for _, s := range streams {
		for _, entry := range s.Messages {
			b.read = entry.ID
			u, err := tebra.ParseStatus(texts(entry))
			r := b.waiting[u.RequestID]
			if err != nil || r == nil || r.CorrelationID != u.CorrelationID || r.UserID != u.UserID {
				continue
			}
			b.news = b.app.now()
			if u.State.Terminal() {
				b.why.since = b.news
				delete(b.waiting, r.ID)
				if err := b.answered(r, u, entry.ID); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// answered counts a request that came to its end with the entry of that ID.
func (b *bulk) answered(r *bulkRequest, u tebra.StatusUpdate, entry string) error {
	took := elapsedBetween(r.entry, entry)
	b.times = append(b.times, took)
	if b.print.asJSON() {
		millis := took.Milliseconds()
		b.print.object(bulkEvent{
			Event: "answer", RequestID: r.ID, CorrelationID: r.CorrelationID, Action: r.Action, UserID: r.UserID, EntryID: r.entry,
			Status: u.State, ErrorCode: u.ErrorCode, Attempts: u.Attempt, DurationMillis: &millis,
		})
	}
	if u.State == tebra.Success {
		b.success++
		return nil
	}
	b.byCode[u.ErrorCode]++
	return b.failures.add(again(r.Request, r.line, u.ErrorCode))
}

// elapsedBetween is the time between two entries, by the Redis clock.
func elapsedBetween(first, last string) time.Duration {
	from, err1 := tebra.ParseEntryID(first)
	to, err2 := tebra.ParseEntryID(last)
	if err1 != nil || err2 != nil || to.Millis < from.Millis {
		return 0
	}
	return time.Duration(to.Millis-from.Millis) * time.Millisecond
}

// keepRest notes what is not answered, and what was not sent, for later.
func (b *bulk) keepRest() error {
	left := slices.SortedFunc(maps.Values(b.waiting), func(x, y *bulkRequest) int {
		ex, _ := tebra.ParseEntryID(x.entry)
		ey, _ := tebra.ParseEntryID(y.entry)
		return ex.Compare(ey)
	})
	b.unanswered = len(left)
	for _, r := range append(left, b.unsent...) { // those may have been added, too
		if err := b.failures.add(again(r.Request, r.line, "")); err != nil {
			return err
		}
	}
	b.rest = len(b.unsent)
	for {
		_, text, err := b.lines.next()
		if err != nil || text == nil {
			return err
		}
		l, err := parseBulkLine(text)
		if err != nil {
			return err
		}
		b.rest++
		if err := b.failures.add(l); err != nil {
			return err
		}
	}
}

// bulkEvent is what became of a request, for programs.
type bulkEvent struct {
	Event          string          `json:"event"` // sent or answer
	RequestID      string          `json:"requestId"`
	CorrelationID  string          `json:"correlationId"`
	Action         string          `json:"action"`
	UserID         string          `json:"userId"`
	EntryID        string          `json:"entryId"`
	Status         tebra.State     `json:"status,omitempty"`
	ErrorCode      tebra.ErrorCode `json:"errorCode,omitempty"`
	Attempts       int             `json:"attempts,omitempty"`
	DurationMillis *int64          `json:"durationMs,omitempty"`
}

// bulkSummary is how all went, for programs.
type bulkSummary struct {
	Event         string                  `json:"event"` // summary
	ElapsedMillis int64                   `json:"elapsedMs"`
	Sent          int                     `json:"sent"`
	Answered      int                     `json:"answered"`
	Success       int                     `json:"success"`
	Errors        map[tebra.ErrorCode]int `json:"errors"`
	Unanswered    int                     `json:"unanswered"`
	Unsent        int                     `json:"unsent"`
	P50           *int64                  `json:"p50Ms,omitempty"`
	P95           *int64                  `json:"p95Ms,omitempty"`
	P99           *int64                  `json:"p99Ms,omitempty"`
	Failures      string                  `json:"failures,omitempty"` // the file that has them
}

// summary tells how all went.
func (b *bulk) summary() {
	slices.Sort(b.times)
	if b.print.asJSON() {
		b.print.object(b.summaryObject())
		return
	}
	p := b.print
	p.line(word(fmt.Sprintf("%d requests sent in %s", b.sent, roundly(b.app.now().Sub(b.start)))))
	if !b.options.noWait {
		t := table{header: []string{"ENDED", ">COUNT", "MEANING"}, indent: "  "}
		t.add(painted(good, tebra.Success), word(b.success))
		for _, code := range slices.Sorted(maps.Keys(b.byCode)) {
			t.add(painted(bad, code), word(b.byCode[code]), word(code.Meaning()))
		}
		if b.unanswered > 0 {
			t.add(painted(caution, "no answer yet"), word(b.unanswered), word("they stay on "+b.keys.Requests()+" and will be answered"))
		}
		p.table(t)
	}
	if len(b.times) > 0 {
		p.line(word(fmt.Sprintf("  answered within p50 %s, p95 %s, p99 %s",
			roundly(percentile(b.times, 50)), roundly(percentile(b.times, 95)), roundly(percentile(b.times, 99)))))
	}
	if b.rest > 0 {
		p.line(painted(caution, fmt.Sprintf("  %d were not sent", b.rest)))
	}
	if b.failures.n > 0 {
		p.line(word(fmt.Sprintf("%d that failed or are left are in %s; once their cause is mended, 'tebra send --file %s' sends them again", b.failures.n, b.failures.path, b.failures.path)))
		if n := b.byCode[tebra.DeadLettered]; n > 0 {
			p.line(word(fmt.Sprintf("%d of them are dead letters, which 'tebra deadletters replay' has made again; sent again they are answered the same", n)))
		}
	}
}

func (b *bulk) summaryObject() bulkSummary {
	s := bulkSummary{
		Event: "summary", ElapsedMillis: b.app.now().Sub(b.start).Milliseconds(), Sent: b.sent, Answered: len(b.times),
		Success: b.success, Errors: b.byCode, Unanswered: b.unanswered, Unsent: b.rest,
	}
	if b.failures.n > 0 {
		s.Failures = b.failures.path
	}
	if len(b.times) > 0 {
		for p, to := range map[float64]**int64{50: &s.P50, 95: &s.P95, 99: &s.P99} {
			millis := percentile(b.times, p).Milliseconds()
			*to = &millis
		}
	}
	return s
}

// percentile returns the least of sorted times that so many percent of them don't
// exceed.
func percentile(sorted []time.Duration, percent float64) time.Duration {
	rank := int(math.Ceil(percent / 100 * float64(len(sorted))))
	return sorted[max(0, rank-1)]
}

// outcome is the error of the whole, nil if everything was answered with success.
func (b *bulk) outcome(ctx context.Context, err error) error {
	failed := len(b.times) - b.success
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %d requests are not answered yet, %d were not sent", errInterrupted, b.unanswered, b.rest)
	case errors.Is(err, errNoAnswer):
		return fmt.Errorf("%w: nothing was heard for %v of %d requests; 'tebra status' tells how everything stands", errNoAnswer, b.options.timeout, b.unanswered+b.rest)
	case err != nil:
		return err
	case failed > 0:
		return fmt.Errorf("%d of %d requests ended in an error", failed, len(b.times))
	}
	return nil
}
