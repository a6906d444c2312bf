package load

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// infoNumber returns a number from a section of Redis's INFO.
func infoNumber(ctx context.Context, rdb *redis.Client, section, name string) (float64, error) {
	info, err := rdb.Info(ctx, section).Result()
	if err != nil {
		return 0, fmt.Errorf("INFO %s: %w", section, err)
	}
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("INFO %s has no %s", section, name)
}

func redisPID(ctx context.Context, rdb *redis.Client) (int, error) {
	pid, err := infoNumber(ctx, rdb, "server", "process_id")
	return int(pid), err
}

// shortener gives records of requests that were answered a shorter time to live
// than functions accept as LEDGER_TTL.
type shortener struct {
	client *client
	ttl    time.Duration

	mu  sync.Mutex
	due []record
}

type record struct {
	n  int
	at time.Time
}

// settled is how long after the answer nobody writes a record any more.
const settled = 5 * time.Second

// add takes the n-th request, which was just answered.
func (s *shortener) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due = append(s.due, record{n, time.Now().Add(settled)})
}

// run works until ctx ends. A record without a time to live is an error.
func (s *shortener) run(ctx context.Context) error {
	for sleepUntil(ctx, time.Now().Add(time.Second)) {
		if err := s.shorten(ctx, s.take()); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (s *shortener) take() []record {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, n := time.Now(), 0
	for n < len(s.due) && s.due[n].at.Before(now) {
		n++
	}
	taken := s.due[:n:n]
	s.due = s.due[n:]
	return taken
}

func (s *shortener) shorten(ctx context.Context, records []record) error {
	if len(records) == 0 {
		return nil
	}
	pipe := s.client.rdb.Pipeline()
	done := make([]*redis.Cmd, len(records))
	for i, r := range records {
		f := fieldMap(s.client.fields(r.n))
		key := s.client.keys.Ledger(tebra.LedgerHash(f["userId"], f["id"]))
		done[i] = pipe.Do(ctx, "PEXPIRE", key, s.ttl.Milliseconds(), "XX") // XX: only where it has one
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("shortening records' time to live: %w", err)
	}
	for i, cmd := range done {
		if n, err := cmd.Int(); err != nil || n != 1 {
			return fmt.Errorf("the record of request %d has no time to live, or is not there (%v)", records[i].n, err)
		}
	}
	return nil
}

func fieldMap(fields []string) map[string]string {
	m := make(map[string]string, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		m[fields[i]] = fields[i+1]
	}
	return m
}
