package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/fleet"
	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// evidence is everything that a run left behind.
type evidence struct {
	entries  []entry
	answers  map[string][]answer // by correlation ID
	statuses map[string][]tebra.StatusUpdate
	journal  []phptest.Entry
	letters  []letter
	records  map[string]string // state by ledger hash
	keys     []string
	waiting  stream.Waiting
	left     []leftover
	standing []string // of bridges and breaker, at the end
}

// entry is an entry of the requests stream with what it was meant to be.
type entry struct {
	planned
	entryID string
	key     string // the correlation ID of its answer
}

// request names the request that an entry asks for: the same for all entries of
// one user with one ID.
func (e entry) request() string {
	if e.id == "" {
		return e.user + "|" + e.key
	}
	return e.user + "|" + e.id
}

type answer struct {
	tebra.Response
	entryID string // of the responses stream
}

// letter is a dead letter.
type letter struct {
	attributes map[string]string
	data       []byte
}

func (l letter) entryID() string { return l.attributes[tebra.AttrEntryID] }

// byPolicy is the attribute of the letters that Pub/Sub itself gave up on.
const byPolicy = "CloudPubSubDeadLetterSourceSubscription"

// derivedID is the ID that a bridge gives a request without one.
func derivedID(keys tebra.Keys, entryID string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("redis-stream:"+keys.Requests()+"/"+entryID)).String()
}

// gather collects the evidence. What can't be read is the test's failure.
func gather(t *testing.T, f *fleet.Fleet, all []planned, dir string) *evidence {
	t.Helper()
	ev := &evidence{answers: map[string][]answer{}, statuses: map[string][]tebra.StatusUpdate{}, records: map[string]string{}}
	each(t, f.Client, f.Keys.Requests(), func(m redis.XMessage) {
		n, err := strconv.Atoi(fmt.Sprint(m.Values[noteField]))
		if err != nil || n < 0 || n >= len(all) {
			t.Fatalf("entry %s is none of ours", m.ID)
		}
		ev.entries = append(ev.entries, entry{planned: all[n], entryID: m.ID, key: all[n].key(f.Keys, m.ID)})
	})
	each(t, f.Client, f.Keys.Responses(), func(m redis.XMessage) {
		r, err := tebra.ParseResponse(texts(m))
		if err != nil {
			t.Errorf("answer %s: %v", m.ID, err)
		}
		ev.answers[r.CorrelationID] = append(ev.answers[r.CorrelationID], answer{r, m.ID})
	})
	each(t, f.Client, f.Keys.Status(), func(m redis.XMessage) {
		s, err := tebra.ParseStatus(texts(m))
		if err != nil {
			t.Errorf("status %s: %v", m.ID, err)
		}
		ev.statuses[s.CorrelationID] = append(ev.statuses[s.CorrelationID], s)
	})
	ev.left, ev.standing = findLeft(t, f, ev.entries, dir), standing(t, f)
	ev.readJournal(t, f.Journal)
	ev.readKeys(t, f)
	ev.pullLetters(t, f)
	var err error
	if ev.waiting, err = stream.New(f.Client, f.Keys).Waiting(t.Context()); err != nil {
		t.Fatal(err)
	}
	return ev
}

// each reads a stream from its beginning to its end.
func each(t *testing.T, rdb *redis.Client, key string, visit func(redis.XMessage)) {
	t.Helper()
	for from := "-"; ; {
		page, err := rdb.XRangeN(t.Context(), key, from, "+", 5000).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page {
			visit(m)
			from = "(" + m.ID
		}
		if len(page) == 0 {
			return
		}
	}
}

func texts(m redis.XMessage) map[string]string {
	fields := make(map[string]string, len(m.Values))
	for name, value := range m.Values {
		fields[name], _ = value.(string)
	}
	return fields
}

func (ev *evidence) readJournal(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var e phptest.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("a line of the journal is not whole: %v", err)
		}
		ev.journal = append(ev.journal, e)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// readKeys lists all keys, and the state of every record.
func (ev *evidence) readKeys(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	record := f.Keys.Ledger("")
	scan := f.Client.Scan(t.Context(), 0, "*", 5000).Iterator()
	for scan.Next(t.Context()) {
		key := scan.Val()
		ev.keys = append(ev.keys, key)
		if hash, ok := cut(key, record); ok {
			state, err := f.Client.HGet(t.Context(), key, "state").Result()
			if err != nil && !errors.Is(err, redis.Nil) { // a rejection leaves no state
				t.Fatalf("record %s: %v", key, err)
			}
			if state != "" {
				ev.records[hash] = state
			}
		}
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
}

// cut is strings.CutPrefix for a prefix that something must follow.
func cut(s, prefix string) (rest string, ok bool) {
	if len(s) <= len(prefix) || s[:len(prefix)] != prefix {
		return "", false
	}
	return s[len(prefix):], true
}

// pullLetters pulls all dead letters, as an operator would, until none has come for
// a while.
func (ev *evidence) pullLetters(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	const quiet = 2 * time.Second
	subs := f.Subscriptions(t)
	seen := map[string]bool{}
	for last := time.Now(); time.Since(last) < quiet; {
		ctx, cancel := context.WithTimeout(t.Context(), quiet)
		got, err := subs.Pull(ctx, &pubsubpb.PullRequest{Subscription: f.InspectSubscription(), MaxMessages: 500})
		cancel()
		if err != nil || len(got.GetReceivedMessages()) == 0 {
			continue // nothing came in time
		}
		last = time.Now()
		var acks []string
		for _, m := range got.GetReceivedMessages() {
			acks = append(acks, m.GetAckId())
			if id := m.GetMessage().GetMessageId(); !seen[id] {
				seen[id] = true
				ev.letters = append(ev.letters, letter{m.GetMessage().GetAttributes(), m.GetMessage().GetData()})
			}
		}
		if err := subs.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: f.InspectSubscription(), AckIds: acks}); err != nil {
			t.Fatal(err)
		}
	}
}

// leaks returns the files in dir that hold the canary.
func leaks(t *testing.T, dir string, except ...string) []string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		if slices.Contains(except, file.Name()) || file.IsDir() {
			continue
		}
		text, err := os.ReadFile(dir + "/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(canary)) {
			found = append(found, file.Name())
		}
	}
	return found
}
