package gateway

import (
	"context"
	"errors"
	"math"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// entries returns a stream's next entries, until there are enough of them or of their
// bytes: COUNT alone bounds no memory, as one may be a hundred bytes and the next
// one megabytes.
//
//	KEYS  1 stream
//	ARGV  1 after which ID, 2 up to and with which, 3 most entries, 4 most bytes,
//	      which the last entry may go beyond
//	returns them as XRANGE does
var entries = redis.NewScript(`
local found, bytes, from = {}, 0, '(' .. ARGV[1]
while #found < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local entry = redis.call('XRANGE', KEYS[1], from, ARGV[2], 'COUNT', 1)[1]
  if not entry then break end
  found[#found + 1], from = entry, '(' .. entry[1]
  for i = 1, #entry[2] do bytes = bytes + #entry[2][i] end
end
return found
`)

// mostID is later than any entry's.
var mostID = tebra.EntryID{Millis: math.MaxUint64, Seq: math.MaxUint64}

var errNoEntries = errors.New("unexpected reply instead of a stream's entries")

// page returns a stream's entries after an ID, up to and with another: at most count,
// and bytes of them in all but for the last. None means that there are none.
func page(ctx context.Context, rdb redis.Scripter, key string, after, to tebra.EntryID, count, bytes int) ([]redis.XMessage, error) {
	reply, err := entries.Run(ctx, rdb, []string{key}, after.String(), to.String(), count, bytes).Slice()
	if err != nil {
		return nil, err
	}
	found := make([]redis.XMessage, 0, len(reply))
	for _, one := range reply {
		entry, ok := one.([]any)
		if !ok || len(entry) != 2 {
			return nil, errNoEntries
		}
		flat, ok := entry[1].([]any)
		if !ok || len(flat)%2 != 0 {
			return nil, errNoEntries
		}
		values := make(map[string]any, len(flat)/2)
		for i := 0; i < len(flat); i += 2 {
			values[text(flat[i])] = flat[i+1]
		}
		found = append(found, redis.XMessage{ID: text(entry[0]), Values: values})
	}
	return found, nil
}
