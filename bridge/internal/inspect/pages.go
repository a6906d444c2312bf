package inspect

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Sizes of a page.
const (
	firstPage = 100
	mostPage  = 2000
	pageBytes = 4 << 20 // what a page is meant to hold at most
)

// pager is XRANGE or XREVRANGE of a client, with COUNT.
type pager func(ctx context.Context, stream, start, stop string, count int64) *redis.XMessageSliceCmd

// scan calls each for the entries of a stream from start to stop, both included,
// in the order of page, until it returns false. One page is in memory at a time.
func scan(ctx context.Context, page pager, stream, start, stop string, each func(redis.XMessage) bool) error {
	return scanFrom(ctx, page, stream, start, stop, firstPage, each)
}

// scanFrom is scan with the number of entries to read at first.
func scanFrom(ctx context.Context, page pager, stream, start, stop string, count int, each func(redis.XMessage) bool) error {
	for {
		entries, err := page(ctx, stream, start, stop, int64(count)).Result()
		if err != nil {
			return fmt.Errorf("reading %s: %w", stream, err)
		}
		for _, entry := range entries {
			if !each(entry) {
				return nil
			}
		}
		if len(entries) < count {
			return nil
		}
		start = "(" + entries[len(entries)-1].ID
		count = nextCount(entries)
	}
}

// nextCount returns how many entries to read after these.
func nextCount(entries []redis.XMessage) int {
	return min(mostPage, fitting(entries), 2*len(entries))
}

// fitting returns how many entries like these make a page, 1 at least.
func fitting(entries []redis.XMessage) int {
	size := 0
	for _, entry := range entries {
		size += sizeOf(entry)
	}
	return max(1, len(entries)*pageBytes/max(size, 1))
}

// sizeOf is how many bytes an entry's fields have.
func sizeOf(entry redis.XMessage) (size int) {
	for name, value := range entry.Values {
		text, _ := value.(string)
		size += len(name) + len(text)
	}
	return size
}

// texts returns an entry's fields; Redis has only text in them.
func texts(entry redis.XMessage) map[string]string {
	fields := make(map[string]string, len(entry.Values))
	for name, value := range entry.Values {
		fields[name], _ = value.(string)
	}
	return fields
}
