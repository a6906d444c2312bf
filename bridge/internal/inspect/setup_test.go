package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

func TestMain(m *testing.M) { peertest.Main(m) }

// installation is a Redis of one test with the parts that write into it.
type installation struct {
	*testing.T
	*Inspector
	ctx    context.Context
	rdb    *redis.Client
	keys   tebra.Keys
	stream *stream.Stream
	ledger *ledger.Ledger
}

func setup(t *testing.T) *installation {
	t.Helper()
	keys, err := tebra.NewKeys("tebra")
	if err != nil {
		t.Fatal(err)
	}
	rdb := peertest.Redis(t).Client()
	i := &installation{
		T: t, Inspector: New(rdb, keys, policy.Default()), ctx: t.Context(), rdb: rdb, keys: keys,
		stream: stream.New(rdb, keys), ledger: ledger.New(rdb, keys, ledger.Config{}),
	}
	_, err = i.stream.EnsureGroups(i.ctx)
	i.must(err)
	return i
}

func (i *installation) must(err error) {
	i.Helper()
	if err != nil {
		i.Fatal(err)
	}
}

// add adds an entry; id may be "*".
func (i *installation) add(stream, id string, fields ...string) string {
	i.Helper()
	entry, err := i.rdb.XAdd(i.ctx, &redis.XAddArgs{Stream: stream, ID: id, Values: fields}).Result()
	i.must(err)
	return entry
}

func (i *installation) ask(id, requestID, userID, action string) string {
	i.Helper()
	return i.add(i.keys.Requests(), id, "id", requestID, "correlationId", "c-"+requestID, "userId", userID, "action", action, "params", `{"secret":1}`)
}

func (i *installation) say(id, requestID, userID, action string, state tebra.State, attempt int, code tebra.ErrorCode) {
	i.Helper()
	i.add(i.keys.Status(), id, tebra.StatusUpdate{
		RequestID: requestID, CorrelationID: "c-" + requestID, UserID: userID, Action: action, State: state, Timestamp: time.Now(), Attempt: attempt, ErrorCode: code,
	}.Fields()...)
}

// deliver takes the entry as a bridge does, and returns it as a function gets it.
func (i *installation) deliver(entry, requestID string, write bool) ledger.Delivery {
	i.Helper()
	_, err := i.stream.Read(i.ctx, "b1", 100, time.Second)
	i.must(err)
	e := tebra.Envelope{
		RequestID: requestID, CorrelationID: "c-" + requestID, UserID: "u1", Action: "createAppointment", EntryID: entry,
		Lane: tebra.DefaultLane, Ledger: tebra.LedgerHash("u1", requestID), AdmittedAt: time.Now(),
	}
	print := tebra.Fingerprint(e.Action, []byte(`{"secret":1}`))
	var writes []ledger.Admission
	if write {
		writes = append(writes, ledger.Admission{Hash: e.Ledger, EntryID: entry, Fingerprint: print})
	}
	e.Epoch, _, err = i.ledger.Admit(i.ctx, writes)
	i.must(err)
	i.must(i.rdb.ZAdd(i.ctx, i.keys.Open(e.Lane), redis.Z{Score: float64(time.Now().UnixMilli()), Member: entry}).Err())
	i.say("*", requestID, "u1", e.Action, tebra.Pending, 0, "")
	i.must(i.stream.Ack(i.ctx, []string{entry}))
	return ledger.Delivery{Envelope: e, Fingerprint: print, Write: write}
}

func (i *installation) claim(d ledger.Delivery) *ledger.Claim {
	i.Helper()
	c, err := i.ledger.Claim(i.ctx, d)
	i.must(err)
	return c
}

func (i *installation) complete(d ledger.Delivery, code tebra.ErrorCode) {
	i.Helper()
	resp := tebra.Response{ErrorCode: code}
	if code == "" {
		resp.Data = json.RawMessage(`{"secret":2}`)
	} else {
		resp.Error = "secret text"
	}
	i.must(i.ledger.Complete(i.ctx, i.claim(d), resp))
}

// events writes a trace's steps, a word or two each.
func events(t Trace) []string {
	var all []string
	for _, s := range t.Steps {
		text := string(s.Event)
		if s.Event == Attempted {
			text += fmt.Sprint(" ", s.Attempt)
		}
		if s.ErrorCode != "" {
			text += " " + string(s.ErrorCode)
		}
		all = append(all, text)
	}
	return all
}
