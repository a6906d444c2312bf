package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// misshapen are entries of each kind that is no request, by what is wrong. What
// names neither id nor correlationId can't be answered.
var misshapen = []struct {
	name       string
	fields     []string
	code       tebra.ErrorCode
	answerable bool
}{
	{"no action", []string{"id", "bad-1", "userId", "u", "params", "{}"}, tebra.Malformed, true},
	{"no user", []string{"id", "bad-2", "action", "quick"}, tebra.Malformed, true},
	{"params that are an object's name", []string{"id", "bad-3", "action", "quick", "userId", "u", "params", "[object Object]"}, tebra.Malformed, true},
	{"params that are an array", []string{"id", "bad-4", "action", "quick", "userId", "u", "params", "[1]"}, tebra.Malformed, true},
	{"a field twice", []string{"id", "bad-5", "action", "quick", "userId", "u", "userId", "v"}, tebra.Malformed, true},
	{"a user that is not UTF-8", []string{"id", "bad-6", "action", "quick", "userId", "u\xff"}, tebra.Malformed, true},
	{"a name that is not UTF-8", []string{"correlationId", "bad-7", "action", "quick", "userId", "u", "\xfe", "x"}, tebra.Malformed, true},
	{"an ID that is too long", []string{"id", strings.Repeat("i", 257), "action", "quick", "userId", "u"}, tebra.Malformed, true},
	{"an action that is much too long", []string{"id", "bad-9", "action", strings.Repeat("é", 1500), "userId", "u"}, tebra.Malformed, true},
	{"no name at all", []string{"action", "quick", "userId", "u", "params", "x"}, tebra.Malformed, false},
	{"nothing that we know", []string{"foo", "bar"}, tebra.Malformed, false},
	{"data that is not JSON", []string{"data", `{"id":"bad-12","action":`}, tebra.Malformed, true},
	{"two whole requests", []string{"data", `{"id":"bad-13"}`, "message", `{"id":"bad-13"}`}, tebra.Malformed, true},
	{"more than MAX_REQUEST_BYTES", []string{"id", "bad-14", "action", "quick", "userId", "u", "params", `{"secret":"` + strings.Repeat("s", 5000) + `"}`}, tebra.TooLarge, true},
	{"more than MAX_REQUEST_BYTES, whole", []string{"payload", `{"id":"bad-15","action":"quick","userId":"u","params":{"secret":"` + strings.Repeat("s", 5000) + `"}}`}, tebra.TooLarge, true},
}

func TestOneBadEntryOfEachKindStopsNoneOfTheGood(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	var good []string
	bad := map[string]int{} // entry ID to its place in misshapen
	for i, m := range misshapen {
		good = append(good, b.add(3, "quick")...)
		bad[b.addFields(m.fields...)] = i
		good = append(good, b.add(1, "slow")...)
	}
	r := b.start("MAX_REQUEST_BYTES=4096")
	b.checkPromises(good)
	letters := map[string]*pubsubpb.PubsubMessage{}
	for _, m := range b.sink.deadLetters() {
		letters[m.Attributes[tebra.AttrEntryID]] = m
	}
	if len(b.sink.deadLetters()) != len(bad) || len(letters) != len(bad) {
		t.Errorf("%d dead letters of %d entries, want one of each of %d", len(b.sink.deadLetters()), len(letters), len(bad))
	}
	answers, statuses := b.byRequest(b.responses()), b.statuses()
	answered := 0
	for id, i := range bad {
		m := misshapen[i]
		letter := letters[id]
		if letter == nil {
			t.Errorf("%s: no dead letter", m.name)
			continue
		}
		b.checkLetter(m.name, m.code, letter)
		answer := answers[letter.Attributes[tebra.AttrRequestID]]
		if !m.answerable {
			if answer != nil {
				t.Errorf("%s: answer %v, want none", m.name, answer)
			}
			continue
		}
		answered++
		if answer == nil {
			t.Errorf("%s: no answer", m.name)
			continue
		}
		resp, err := tebra.ParseResponse(answer)
		if err != nil || resp.ErrorCode != m.code || resp.Error == "" || resp.ID == "" {
			t.Errorf("%s: answer %+v, %v, want error %s with a text", m.name, resp, err, m.code)
		}
		if got := statuses[resp.RequestID]; !slices.Equal(got, []tebra.State{tebra.Failed}) {
			t.Errorf("%s: statuses %v, want error alone", m.name, got)
		}
	}
	if got := len(b.responses()); got != answered {
		t.Errorf("%d answers, want %d", got, answered)
	}
	peertest.Eventually(t, wait, "all to be counted", func() bool { return r.counts.rejected.Load() == int64(len(bad)) })
}

func (b *bundle) byRequest(entries []map[string]string) map[string]map[string]string {
	m := map[string]map[string]string{}
	for _, e := range entries {
		if m[e["requestId"]] != nil {
			b.Errorf("request %s has two answers", e["requestId"])
		}
		m[e["requestId"]] = e
	}
	return m
}

// checkLetter holds a dead letter of ours against Pub/Sub's rules and DESIGN
// section 4.
func (b *bundle) checkLetter(name string, code tebra.ErrorCode, m *pubsubpb.PubsubMessage) {
	b.Helper()
	if got := m.Attributes[tebra.AttrReason]; got != string(code) {
		b.Errorf("%s: reason %q, want %q", name, got, code)
	}
	for k, v := range m.Attributes {
		if !utf8.ValidString(v) || len(v) > tebra.MaxAttributeBytes || v == "" {
			b.Errorf("%s: attribute %s has %d bytes, valid UTF-8: %v, want 1 to %d bytes of UTF-8", name, k, len(v), utf8.ValidString(v), tebra.MaxAttributeBytes)
		}
	}
	if _, err := tebra.ParseEnvelope(m.Attributes); err != nil {
		b.Errorf("%s: ParseEnvelope() = %v, want none", name, err)
	}
	var body struct {
		Entry, Reason string
		Bytes         int
		Fields        [][2]string
	}
	if err := json.Unmarshal(m.Data, &body); err != nil || body.Entry == "" || body.Reason == "" || body.Bytes == 0 {
		b.Errorf("%s: body %s, %v, want entry, reason and size", name, m.Data, err)
	}
	if tooLarge := code == tebra.TooLarge; tooLarge != (len(body.Fields) == 0) {
		b.Errorf("%s: %d fields in the letter, want some unless it is about size", name, len(body.Fields))
	}
	if strings.Contains(string(m.Data), "secret") {
		b.Errorf("%s: a letter about size holds params", name)
	}
}

func TestWhileDeadLettersCantBePublishedOnlyTheBadWait(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	away := func(_ context.Context, req *pubsubpb.PublishRequest) error {
		if req.GetTopic() == deadLetterTopic {
			return status.Error(codes.NotFound, "the topic does not exist")
		}
		return nil
	}
	b.sink.onPublish(away)
	r := b.start("BATCH_SIZE=10", "CLAIM_IDLE=4s", "MAX_IN_FLIGHT=10000")
	var good, bad []string
	for range 40 { // in every batch of ten some bad ones, in many more batches than rejects have room for
		good = append(good, b.add(8, "quick")...)
		bad = append(bad, b.addFields("id", "bad-"+good[len(good)-1], "action", "quick"), b.addFields("nonsense", "x"))
	}
	b.waitPublished(good)
	peertest.Eventually(t, wait, "several tries", func() bool { return r.tries("deadletters") > 8 })
	peertest.Eventually(t, wait, "all but the bad to be acknowledged", func() bool {
		return slices.Equal(b.pending(tebra.GroupBridge, ""), bad)
	})
	if got := len(b.responses()); got != 0 {
		t.Errorf("%d answers before the dead letters were confirmed, want none", got)
	}
	more := b.add(10, "quick")
	b.waitPublished(more)
	b.sink.onPublish(nil)
	b.checkPromises(append(good, more...))
	seen := map[string]bool{}
	for _, m := range b.sink.deadLetters() {
		seen[m.Attributes[tebra.AttrEntryID]] = true
	}
	if len(seen) != len(bad) {
		t.Errorf("%d entries are in the dead letters, want %d", len(seen), len(bad))
	}
	if got, want := len(b.byRequest(b.responses())), len(bad)/2; got != want {
		t.Errorf("%d answers, want %d", got, want)
	}
}

func TestALetterThatIsOutGoesOutOnceThoughRedisCantTakeTheAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	r := b.start()
	b.waitPublished(b.add(1, "quick"))
	// In one transaction, so that the bridge can read it but not answer it.
	if _, err := b.rdb.TxPipelined(t.Context(), func(tx redis.Pipeliner) error {
		tx.XAdd(t.Context(), &redis.XAddArgs{Stream: b.keys.Requests(), Values: []string{"id", "bad", "action", "quick", "params", "[object Object]", "userId", "u"}})
		return tx.ConfigSet(t.Context(), "maxmemory", "1").Err()
	}); err != nil {
		t.Fatal(err)
	}
	peertest.Eventually(t, wait, "several tries", func() bool { return r.tries("deadletters") > 3 })
	b.configure("maxmemory", "0")
	b.waitSettled()
	if n := len(b.sink.deadLetters()); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
	if n := len(b.responses()); n != 1 {
		t.Errorf("%d answers, want 1", n)
	}
}

func TestManyBadEntriesAtOnceAreAllRejected(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const all = 600
	for i := range all {
		b.addFields("id", fmt.Sprintf("bad-%d", i), "action", "quick", "params", "[object Object]", "userId", "u")
	}
	good := b.add(10, "quick")
	b.start("BATCH_SIZE=20")
	b.checkPromises(good)
	if got := len(b.byRequest(b.responses())); got != all {
		t.Errorf("%d answers, want %d", got, all)
	}
	if got := len(b.sink.deadLetters()); got != all {
		t.Errorf("%d dead letters, want %d", got, all)
	}
}

func TestAnEntryThatWouldBeTooLargeALetterIsDescribedInstead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// In JSON each of these takes six times the room.
	id := b.addFields("id", "escapes", "action", "quick", "junk", strings.Repeat("\x01", 2<<20))
	b.start("MAX_REQUEST_BYTES=4194304")
	b.waitSettled()
	letters := b.sink.deadLetters()
	if len(letters) != 1 || letters[0].Attributes[tebra.AttrEntryID] != id {
		t.Fatalf("%d dead letters, want one of %s", len(letters), id)
	}
	if size := proto.Size(letters[0]); size > 1000 {
		t.Errorf("the letter has %d bytes, want no fields in it", size)
	}
	if got := len(b.responses()); got != 1 {
		t.Errorf("%d answers, want 1", got)
	}
}

func TestABatchLargerThanARequestToPubSubIsSplit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	const limit = 10_000_000
	b.sink.onPublish(func(_ context.Context, req *pubsubpb.PublishRequest) error {
		if size := proto.Size(req); size > limit {
			t.Errorf("a publish request has %d bytes, want at most %d", size, limit)
		}
		return nil
	})
	text := strings.Repeat("x", 900_000)
	var ids []string
	// Small ones first, so that the bridge asks for many at once.
	ids = append(ids, b.add(500, "quick")...)
	for range 20 {
		ids = append(ids, b.addFields(append(request("quick")[:4], "params", `{"x":"`+text+`"}`, "userId", "u")...))
	}
	big := b.addFields(append(request("quick"), "junk", strings.Repeat("x", 1<<20))...)
	ids = append(ids, b.add(10, "quick")...)
	b.start()
	b.checkPromises(ids)
	letters := b.sink.deadLetters()
	if len(letters) != 1 || letters[0].Attributes[tebra.AttrEntryID] != big || letters[0].Attributes[tebra.AttrReason] != string(tebra.TooLarge) {
		t.Errorf("dead letters = %v, want one of %s with reason %s", letters, big, tebra.TooLarge)
	}
}

func TestARequestWithoutIDIsNamedAfterItsEntry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.addFields("action", "quick", "userId", "u")
	b.start()
	b.checkPromises([]string{id})
	env, err := tebra.ParseEnvelope(b.sink.requests()[0].Attributes)
	if err != nil {
		t.Fatal(err)
	}
	req, err := tebra.DecodeMessage(b.sink.requests()[0].Data)
	if err != nil || req.ID == "" || req.ID != env.RequestID || req.CorrelationID != req.ID {
		t.Errorf("request = %+v, %v, want an ID of its own in all places", req, err)
	}
	if again := b.assemble(); again.deriveID(id) != req.ID {
		t.Errorf("another bridge would name the entry %s, want %s", again.deriveID(id), req.ID)
	}
}

func TestEveryMessageIsWhatFunctionsCanRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := []string{
		b.addFields(append(request("change"), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "_metadata", `{"publishedBy":"user-1"}`)...),
		b.addFields("message", `{"id":7,"action":"slow","userId":"ü","params":"{\"q\":\"\\u2028\"}"}`),
		b.addFields(request("unheard-of")...),
	}
	b.start()
	b.checkPromises(ids)
	for _, m := range b.sink.requests() {
		env, err := tebra.ParseEnvelope(m.Attributes)
		if err != nil {
			t.Errorf("ParseEnvelope(%v) = %v", m.Attributes, err)
			continue
		}
		req, err := tebra.DecodeMessage(m.Data)
		if err != nil || req.ID != env.RequestID || req.UserID != env.UserID || req.Action != env.Action || req.Traceparent != env.Traceparent {
			t.Errorf("DecodeMessage(%s) = %+v, %v, want what the envelope says: %+v", m.Data, req, err, env)
		}
		if age := time.Since(env.AdmittedAt); age < -time.Minute || age > time.Minute {
			t.Errorf("admittedAt is %v ago, want now", age)
		}
	}
}

func TestWhatAnotherBridgePublishedIsAnsweredOnceThoughThisOneRejectsIt(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"quick", "change"} {
		for name, c := range map[string]struct {
			function func(l *ledger.Ledger, d ledger.Delivery) error // before this bridge comes
			want     []string
		}{
			"nobody has begun it": {
				func(*ledger.Ledger, ledger.Delivery) error { return nil },
				[]string{string(tebra.TooLarge)},
			},
			"a function has begun it": {
				func(l *ledger.Ledger, d ledger.Delivery) error {
					_, err := l.Claim(t.Context(), d)
					return err
				},
				nil,
			},
			"a function has put it back into its line": {
				func(l *ledger.Ledger, d ledger.Delivery) error {
					claim, err := l.Claim(t.Context(), d)
					if err != nil {
						return err
					}
					if err := l.Start(t.Context(), claim, time.Second); err != nil {
						return err
					}
					return l.Return(t.Context(), claim, tebra.Unavailable)
				},
				[]string{string(tebra.TooLarge)},
			},
			"a function has answered it": {
				func(l *ledger.Ledger, d ledger.Delivery) error {
					claim, err := l.Claim(t.Context(), d)
					if err != nil {
						return err
					}
					return l.Complete(t.Context(), claim, tebra.Response{Data: []byte(`{}`)})
				},
				[]string{""},
			},
		} {
			t.Run(action+", "+name, func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				id := b.addFields("id", "large", "action", action, "userId", "u", "params", `{"q":"`+strings.Repeat("x", 5000)+`"}`)
				generous := b.start()
				b.waitPublished([]string{id})
				b.waitSettled()
				generous.stop(t)
				// Its acknowledgement never came.
				if err := b.rdb.Do(t.Context(), "XCLAIM", b.keys.Requests(), tebra.GroupBridge, "dead", 0, id, "IDLE", 3_600_000, "FORCE", "JUSTID").Err(); err != nil {
					t.Fatal(err)
				}
				l := ledger.New(b.rdb, b.keys, ledger.Config{})
				d := b.delivery(b.sink.requests()[0], action == "change")
				if err := c.function(l, d); err != nil {
					t.Fatal(err)
				}
				b.start("MAX_REQUEST_BYTES=4096", "CLAIM_IDLE=1s")
				b.waitSettled()
				claim, err := l.Claim(t.Context(), d) // Pub/Sub delivers
				if err != nil {
					t.Fatal(err)
				}
				if claim.Verdict == ledger.Run {
					t.Errorf("the function is told to call the API, want not to")
				}
				var got []string
				for _, answer := range b.responses() {
					got = append(got, answer["errorCode"])
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("answers have error codes %q, want %q", got, c.want)
				}
				if n := len(b.sink.requests()); n != 1 {
					t.Errorf("it was published %d times, want once", n)
				}
			})
		}
	}
}
