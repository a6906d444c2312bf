package local_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/tebra"
)

func TestMain(m *testing.M) {
	// These tests wait far more than they work, so there may be more of them at a
	// time than there are processors. A -parallel of the command line wins.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	peertest.Main(m)
}

// wish is a request and what must become of it.
type wish struct {
	fields     []string
	answer     tebra.ErrorCode // "" is success
	attempts   int             // at least
	deadLetter string          // its reason attribute; "policy" for those that Pub/Sub moved; "" for none
}

const byPolicy = "policy"

// flat returns an entry of flat fields.
func flat(id, action, params string) []string {
	return []string{"id", id, "action", action, "params", params, "userId", "u-1",
		"timestamp", "2026-11-23T08:00:00Z", "correlationId", "corr-" + id}
}

// wishes returns 200 requests of every kind, by request ID.
func wishes() map[string]wish {
	all := map[string]wish{
		"rejected":  {fields: flat("rejected", "health", `{"_behave":"400"}`), answer: tebra.Rejected, attempts: 1},
		"unknown":   {fields: flat("unknown", "noSuchAction", `{}`), answer: tebra.UnknownAction, attempts: 1},
		"failing":   {fields: flat("failing", "health", `{"_behave":"500"}`), answer: tebra.DeadLettered, attempts: 5, deadLetter: byPolicy},
		"malformed": {fields: flat("malformed", "health", `[object Object]`), answer: tebra.Malformed, deadLetter: "malformed"},
		"lost-write": {fields: flat("lost-write", "createAppointment", `{"appointmentData":{"a":1},"_behave":"act-drop"}`),
			answer: tebra.OutcomeUnknown, attempts: 1, deadLetter: "outcome_unknown"},
		"write":    {fields: flat("write", "updateAppointment", `{"appointmentData":{"a":1}}`), attempts: 1},
		"schedule": {fields: flat("schedule", "syncSchedule", `{"date":"2026-11-23"}`), attempts: 1},
		"garbled": {fields: flat("garbled", "health", `{"_behave":"text"}`), answer: tebra.BadResponse, attempts: 3,
			deadLetter: "bad_response"},
	}
	for i := range 200 - len(all) {
		id := fmt.Sprintf("ok-%03d", i)
		fields := flat(id, "getHealthStatus", `{}`)
		if i%3 == 0 {
			fields = []string{"message", fmt.Sprintf(
				`{"id":%q,"action":"health","params":{"n":%d},"userId":"u-2","timestamp":1763884800000,"correlationId":"corr-%s"}`, id, i, id)}
		}
		all[id] = wish{fields: fields, attempts: 1}
	}
	return all
}

func TestEveryRequestIsAnsweredOnceAndEveryFailureIsADeadLetter(t *testing.T) {
	t.Parallel()
	for _, parts := range []struct {
		name string
		real func(*testing.T, *local.Options)
	}{
		{"embedded", func(*testing.T, *local.Options) {}},
		{"real Redis and Google's emulator", func(t *testing.T, o *local.Options) {
			o.Redis = peertest.RealRedis(t).URL()
			emulator := peertest.RealEmulator(t)
			o.PubSubEmulator, o.Project = emulator.Addr(), emulator.Project(t)
		}},
	} {
		t.Run(parts.name, func(t *testing.T) {
			t.Parallel()
			opts := local.DefaultOptions()
			opts.MinBackoff, opts.MaxBackoff, opts.MaxAttempts = local.FastMinBackoff, local.FastMaxBackoff, 5
			parts.real(t, &opts)
			p := startPipeline(t, opts)
			checkWishes(t, p, wishes())
		})
	}
}

func startPipeline(t *testing.T, opts local.Options) *local.Pipeline {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := local.Start(ctx, opts, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatalf("Start() = %v", err)
	}
	t.Cleanup(p.Close)
	return p
}

// checkWishes sends all wishes and waits until each has what it must have.
func checkWishes(t *testing.T, p *local.Pipeline, all map[string]wish) {
	t.Helper()
	entries := map[string]string{} // request ID by entry ID
	for id, w := range all {
		values := make([]any, len(w.fields))
		for i, f := range w.fields {
			values[i] = f
		}
		entry, err := p.Redis.XAdd(t.Context(), &redis.XAddArgs{Stream: p.Keys.Requests(), Values: values}).Result()
		if err != nil {
			t.Fatalf("XADD %s: %v", id, err)
		}
		entries[entry] = id
	}
	peertest.Eventually(t, 2*time.Minute, "an answer to every request", func() bool { return countAnswers(t, p) >= len(all) })
	wantLetters := map[string]string{}
	for id, w := range all {
		if w.deadLetter != "" {
			wantLetters[id] = w.deadLetter
		}
	}
	gotLetters := map[string]string{}
	peertest.Eventually(t, time.Minute, "every dead letter", func() bool {
		pullLetters(t, p, entries, gotLetters)
		return len(gotLetters) >= len(wantLetters)
	})
	if !maps.Equal(gotLetters, wantLetters) {
		t.Errorf("dead letters = %v, want %v", gotLetters, wantLetters)
	}
	peertest.Eventually(t, 30*time.Second, "nothing pending, parked or open", func() bool { return settled(t, p) })
	checkAnswers(t, readAnswers(t, p), all)
}

func checkAnswers(t *testing.T, answers []tebra.Response, all map[string]wish) {
	t.Helper()
	seen := map[string]int{}
	for _, a := range answers {
		w, ok := all[a.RequestID]
		if !ok {
			t.Errorf("an answer to %q, which was never asked", a.RequestID)
			continue
		}
		seen[a.RequestID]++
		if a.ErrorCode != w.answer || a.Attempts < w.attempts || a.CorrelationID != "corr-"+a.RequestID {
			t.Errorf("answer to %s: errorCode %q after %d attempts for %s, want %q after at least %d",
				a.RequestID, a.ErrorCode, a.Attempts, a.CorrelationID, w.answer, w.attempts)
		}
		if w.answer == "" && !json.Valid(a.Data) {
			t.Errorf("answer to %s: data %q is not JSON", a.RequestID, a.Data)
		}
	}
	for id := range all {
		if seen[id] != 1 {
			t.Errorf("%s has %d answers, want 1", id, seen[id])
		}
	}
}

func readAnswers(t *testing.T, p *local.Pipeline) []tebra.Response {
	t.Helper()
	messages, err := p.Redis.XRange(t.Context(), p.Keys.Responses(), "-", "+").Result()
	if err != nil {
		t.Fatalf("XRANGE responses: %v", err)
	}
	var answers []tebra.Response
	for _, m := range messages {
		fields := map[string]string{}
		for k, v := range m.Values {
			fields[k], _ = v.(string)
		}
		a, err := tebra.ParseResponse(fields)
		if err != nil {
			t.Fatalf("response entry %s: %v", m.ID, err)
		}
		answers = append(answers, a)
	}
	return answers
}

// pullLetters takes dead letters from the operators' subscription into got, by
// request ID.
func pullLetters(t *testing.T, p *local.Pipeline, entries, got map[string]string) {
	t.Helper()
	subs, err := pubsub.NewSubscriptionAdminClient(t.Context(), publish.ClientOptions(p.Info.PubSubEmulator)...)
	if err != nil {
		t.Fatalf("subscriber client: %v", err)
	}
	defer subs.Close()
	name := "projects/" + p.Info.Project + "/subscriptions/" + p.Info.InspectSubscription
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	pulled, err := subs.Pull(ctx, &pubsubpb.PullRequest{Subscription: name, MaxMessages: 100})
	if err != nil {
		return // nothing there yet
	}
	for _, m := range pulled.GetReceivedMessages() {
		attrs := m.GetMessage().GetAttributes()
		id, ok := entries[attrs[tebra.AttrEntryID]]
		if !ok {
			t.Errorf("a dead letter of entry %q, which was never written", attrs[tebra.AttrEntryID])
		}
		reason := attrs[tebra.AttrReason]
		if reason == "" {
			reason = byPolicy
		}
		got[id] = reason
		if err := subs.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: []string{m.GetAckId()}}); err != nil {
			t.Errorf("acknowledging a dead letter: %v", err)
		}
	}
}

// settled reports whether nothing is left in any of the places where an entry can
// wait.
func settled(t *testing.T, p *local.Pipeline) bool {
	t.Helper()
	for _, group := range []string{tebra.GroupBridge, tebra.GroupParked} {
		pending, err := p.Redis.XPending(t.Context(), p.Keys.Requests(), group).Result()
		if err != nil || pending.Count > 0 {
			return false
		}
	}
	lanes, err := p.Redis.SMembers(t.Context(), p.Keys.Lanes()).Result()
	if err != nil {
		return false
	}
	for _, lane := range lanes {
		for _, key := range []string{p.Keys.Open(lane), p.Keys.Retrying(lane)} {
			if n, err := p.Redis.ZCard(t.Context(), key).Result(); err != nil || n > 0 {
				return false
			}
		}
	}
	return true
}
