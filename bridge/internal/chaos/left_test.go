package chaos

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge"
	"tebraproxy/bridge/internal/fleet"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// leftover is an entry that is still somewhere in Redis where nothing should be.
type leftover struct {
	entryID string
	places  []string // where, since when, and who takes it out when
	record  string   // of its request in the ledger
	lines   []string // the last that the parts logged about it
}

func (l leftover) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "entry %s", l.entryID)
	for _, p := range l.places {
		fmt.Fprintf(&out, "\n      %s", p)
	}
	fmt.Fprintf(&out, "\n      record: %s", l.record)
	for _, line := range l.lines {
		fmt.Fprintf(&out, "\n      %s", line)
	}
	return out.String()
}

// mostLeft bounds how many leftovers are looked at.
const mostLeft = 100

// findLeft says of each entry that is unread, in hand, parked, open or being
// retried, why that is so, as far as Redis and the logs can tell.
func findLeft(t *testing.T, f *fleet.Fleet, entries []entry, dir string) []leftover {
	t.Helper()
	byID := map[string]*leftover{}
	note := func(id, format string, args ...any) {
		l := byID[id]
		if l == nil {
			if len(byID) == mostLeft {
				return
			}
			l = &leftover{entryID: id}
			byID[id] = l
		}
		l.places = append(l.places, fmt.Sprintf(format, args...))
	}
	leftInGroups(t, f, note)
	leftInLanes(t, f, note)
	left := make([]leftover, 0, len(byID))
	ids := slices.Sorted(maps.Keys(byID))
	lines := linesAbout(t, dir, ids)
	for _, id := range ids {
		l := byID[id]
		for _, e := range entries {
			if e.entryID == id {
				l.record = recordOf(t, f, e)
			}
		}
		l.lines = lines[id]
		left = append(left, *l)
	}
	return left
}

// leftInGroups notes what is unread, in hand or parked.
func leftInGroups(t *testing.T, f *fleet.Fleet, note func(id, format string, args ...any)) {
	t.Helper()
	ctx := t.Context()
	unread, err := stream.New(f.Client, f.Keys).Waiting(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if unread.Oldest != "" {
		note(unread.Oldest, "unread, the oldest of %d: any bridge reads it at once, unless the breaker is open", unread.Lag)
	}
	whose := map[string]string{
		tebra.GroupBridge: "in hand of %s, idle %v, delivered %d times: its holder publishes and acknowledges it, or any bridge claims it once it is idle for CLAIM_IDLE",
		tebra.GroupParked: "parked for lane %s, for %v, delivered %d times: any bridge takes it out within a second of the lane having room, unless it is in hand too",
	}
	for group, text := range whose {
		pending, err := f.Client.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: f.Keys.Requests(), Group: group, Start: "-", End: "+", Count: mostLeft,
		}).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pending {
			note(p.ID, text, p.Consumer, p.Idle, p.RetryCount)
		}
	}
}

// leftInLanes notes what is open or being retried.
func leftInLanes(t *testing.T, f *fleet.Fleet, note func(id, format string, args ...any)) {
	t.Helper()
	lanes, err := f.Client.SMembers(t.Context(), f.Keys.Lanes()).Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lanes)
	for _, lane := range lanes {
		for key, text := range map[string]string{
			f.Keys.Open(lane):     "open in lane %s, arrived %s: the function that its message reaches closes it, and else the sweep, in twice ANSWER_DEADLINE",
			f.Keys.Retrying(lane): "being retried in lane %s, released %s: its message comes again after Pub/Sub's backoff",
		} {
			members, err := f.Client.ZRangeWithScores(t.Context(), key, 0, mostLeft).Result()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range members {
				note(fmt.Sprint(m.Member), text, lane, clockTime(time.UnixMilli(int64(m.Score))))
			}
		}
	}
}

// recordOf returns the fields of the record of an entry's request, sorted.
func recordOf(t *testing.T, f *fleet.Fleet, e entry) string {
	t.Helper()
	id := e.id
	if id == "" {
		id = e.key
	}
	fields, err := f.Client.HGetAll(t.Context(), f.Keys.Ledger(tebra.LedgerHash(e.user, id))).Result()
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		if ms, err := strconv.ParseInt(value, 10, 64); err == nil && ms > 1e12 {
			value = clockTime(time.UnixMilli(ms))
		}
		parts = append(parts, name+"="+value)
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// linesAbout returns the last lines of each log that name an entry, by entry.
func linesAbout(t *testing.T, dir string, entryIDs []string) map[string][]string {
	t.Helper()
	const most = 4 // of each part
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range entryIDs {
			var lines []string
			for rest := text; len(lines) < most; {
				at := bytes.LastIndex(rest, []byte(id))
				if at < 0 {
					break
				}
				start := bytes.LastIndexByte(rest[:at], '\n') + 1
				line, _, _ := bytes.Cut(text[start:], []byte("\n"))
				lines = append(lines, filepath.Base(log)+": "+string(line))
				rest = rest[:start]
			}
			slices.Reverse(lines)
			found[id] = append(found[id], lines...)
		}
	}
	return found
}

// standing returns what the bridges and the breaker are at.
func standing(t *testing.T, f *fleet.Fleet) []string {
	t.Helper()
	alive, _, err := bridge.Heartbeats(t.Context(), f.Client, f.Keys)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, h := range alive {
		lines = append(lines, fmt.Sprintf("%s: started %s, heartbeat %s, gate %q, %d published, %d claimed",
			h.Consumer, clockTime(h.Started), clockTime(h.At), h.Gate, h.Published, h.Claimed))
	}
	breaker, err := f.Client.HGetAll(t.Context(), f.Keys.Breaker()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return append(lines, fmt.Sprintf("breaker: %v", breaker))
}

// clockTime writes a time as the logs and the schedule do.
func clockTime(at time.Time) string { return at.UTC().Format("15:04:05.000") }
