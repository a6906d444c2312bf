package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// scene is an installation at a time that stands still, but for what Redis's own
// clock decides.
type scene struct {
	t      *testing.T
	server *peertest.RedisServer
	rdb    *redis.Client
	keys   tebra.Keys
	now    time.Time
	seq    int // keeps IDs of one millisecond apart
}

func newScene(t *testing.T) *scene {
	t.Helper()
	keys, err := tebra.NewKeys("tebra")
	if err != nil {
		t.Fatal(err)
	}
	server := peertest.Redis(t)
	s := &scene{t: t, server: server, rdb: server.Client(), keys: keys, now: time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC)}
	if _, err := stream.New(s.rdb, keys).EnsureGroups(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// command is a use of the command line that looks at the scene.
func (s *scene) command(args ...string) *command {
	return &command{args: append(args, "--redis", s.server.URL()), now: s.now}
}

// add adds an entry that is so old at the scene's time, by Redis's clock if it is
// negative.
func (s *scene) add(stream string, ago time.Duration, fields ...string) string {
	s.t.Helper()
	id := "*"
	if ago >= 0 {
		id = s.id(ago)
	}
	entry, err := s.rdb.XAdd(s.t.Context(), &redis.XAddArgs{Stream: stream, ID: id, Values: fields}).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	return entry
}

// id is an entry's ID so long before the scene's time.
func (s *scene) id(ago time.Duration) string {
	s.seq++
	return fmt.Sprintf("%d-%d", s.now.Add(-ago).UnixMilli(), s.seq)
}

const atRedisTime = time.Duration(-1)

func (s *scene) ask(ago time.Duration, id, user, action string) string {
	s.t.Helper()
	return s.add(s.keys.Requests(), ago, "id", id, "correlationId", "c-"+id, "userId", user, "action", action, "params", `{"lastName":"Testa"}`)
}

func (s *scene) say(ago time.Duration, id, user, action string, state tebra.State, attempt int, code tebra.ErrorCode) {
	s.t.Helper()
	s.add(s.keys.Status(), ago, tebra.StatusUpdate{
		RequestID: id, CorrelationID: "c-" + id, UserID: user, Action: action, State: state, Timestamp: s.now, Attempt: attempt, ErrorCode: code,
	}.Fields()...)
}

// someRequests is a small history.
func (s *scene) someRequests() {
	s.t.Helper()
	s.ask(25*time.Hour, "r0", "u1", "health")
	s.ask(10*time.Minute, "r1", "u1", "getPatient")
	s.say(10*time.Minute, "r0", "u1", "health", tebra.Success, 1, "")
	s.say(10*time.Minute-3*time.Millisecond, "r1", "u1", "getPatient", tebra.Pending, 0, "")
	s.say(10*time.Minute-10*time.Millisecond, "r1", "u1", "getPatient", tebra.Processing, 1, "")
	s.say(10*time.Minute-86*time.Millisecond, "r1", "u1", "getPatient", tebra.Success, 1, "")
	s.ask(5*time.Minute, "r2", "u2", "createAppointment")
	s.say(5*time.Minute, "r2", "u2", "createAppointment", tebra.Failed, 2, tebra.OutcomeUnknown)
	s.ask(time.Minute, "r3", "u1\x1b[2J", "searchPatients")
	s.say(time.Minute, "r3", "u1\x1b[2J", "searchPatients", tebra.Processing, 3, "")
	s.ask(time.Second, "r4", "u1", "searchPatients")
}

func TestHistoryIsATable(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.someRequests()
	for _, test := range []struct {
		golden   string
		args     []string
		terminal bool
	}{
		{"history", nil, false},
		{"history-terminal", nil, true},
		{"history-json", []string{"--output", "json"}, false},
		{"history-payloads", []string{"--user", "u1", "--since", "1d", "--show-payloads"}, false},
		{"history-limit", []string{"--action", "searchPatients", "--limit", "1"}, false},
		{"history-none", []string{"--user", "nobody"}, false},
	} {
		t.Run(test.golden, func(t *testing.T) {
			t.Parallel()
			c := s.command(append([]string{"history"}, test.args...)...)
			c.terminal = test.terminal
			c.golden(t, test.golden, c.run(t, t.Context()))
			if !strings.Contains(test.golden, "payloads") && strings.Contains(c.stdout.String(), "Testa") {
				t.Errorf("stdout holds params, want none without --show-payloads:\n%s", c.stdout.String())
			}
		})
	}
}

// aLife is a write that fails, is replayed, and succeeds.
func (s *scene) aLife() {
	s.t.Helper()
	ctx, ids := s.t.Context(), 0
	l := ledger.New(s.rdb, s.keys, ledger.Config{})
	do := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	deliver := func(entry string) ledger.Delivery {
		e := tebra.Envelope{
			RequestID: "r1", CorrelationID: "c-r1", UserID: "u1", Action: "createAppointment", EntryID: entry,
			Lane: tebra.DefaultLane, Ledger: tebra.LedgerHash("u1", "r1"), AdmittedAt: time.Now(),
		}
		print := tebra.Fingerprint(e.Action, []byte(`{"lastName":"Testa"}`))
		var err error
		e.Epoch, _, err = l.Admit(ctx, []ledger.Admission{{Hash: e.Ledger, EntryID: entry, Fingerprint: print}})
		do(err)
		do(s.rdb.ZAdd(ctx, s.keys.Open(e.Lane), redis.Z{Score: float64(time.Now().UnixMilli()), Member: entry}).Err())
		_, err = stream.New(s.rdb, s.keys).Read(ctx, "b1", 10, time.Second)
		do(err)
		s.say(atRedisTime, "r1", "u1", e.Action, tebra.Pending, 0, "")
		do(s.rdb.XAck(ctx, s.keys.Requests(), tebra.GroupBridge, entry).Err())
		return ledger.Delivery{Envelope: e, Fingerprint: print, Write: true}
	}
	claim := func(d ledger.Delivery) *ledger.Claim {
		ids++
		c, err := l.Claim(ctx, d)
		do(err)
		return c
	}
	entry := s.ask(atRedisTime, "r1", "u1", "createAppointment")
	d := deliver(entry)
	do(l.Release(ctx, claim(d), tebra.Unavailable))
	do(l.Complete(ctx, claim(d), tebra.Response{ErrorCode: tebra.DeadLettered, Error: "the API says Testa"}))
	replayed, err := l.Replay(ctx, ledger.Replay{
		Request: tebra.Request{ID: "r1", CorrelationID: "c-r1", UserID: "u1", Action: "createAppointment", Params: []byte(`{"lastName":"Testa"}`)},
		EntryID: entry, Lane: tebra.DefaultLane, Write: true,
	})
	do(err)
	d = deliver(replayed.EntryID)
	do(l.Complete(ctx, claim(d), tebra.Response{Data: json.RawMessage(`{"patient":"Testa"}`)}))
}

func TestTraceTellsALifeInOrder(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.aLife()
	s.ask(atRedisTime, "waiting", "u1", "health")
	for _, test := range []struct {
		golden string
		args   []string
		want   int
	}{
		{"trace", []string{"r1"}, exitOK},
		{"trace-payloads", []string{"c-r1", "--user", "u1", "--show-payloads"}, exitOK},
		{"trace-json", []string{"c-r1", "--output", "json"}, exitOK},
		{"trace-unread", []string{"waiting"}, exitOK},
		{"trace-unknown", []string{"nobody's"}, exitFailed},
	} {
		t.Run(test.golden, func(t *testing.T) {
			t.Parallel()
			c := s.command(append([]string{"trace"}, test.args...)...)
			got := c.run(t, t.Context())
			if got != test.want {
				t.Errorf("exit code = %d, want %d", got, test.want)
			}
			c.goldenButTimes(t, test.golden, got)
			if !strings.Contains(test.golden, "payloads") && strings.Contains(c.stdout.String(), "Testa") {
				t.Errorf("stdout holds payloads, want none without --show-payloads:\n%s", c.stdout.String())
			}
		})
	}
}

// trouble is an installation in which much needs a person.
func (s *scene) trouble() {
	s.t.Helper()
	s.ask(atRedisTime, "r1", "u1", "getProviders")
	for range 6 {
		s.say(atRedisTime, "r1", "u1", "getProviders", tebra.Failed, 2, tebra.BadResponse)
		s.say(atRedisTime, "r1", "u1", "getProviders", tebra.Pending, 1, tebra.Unavailable)
	}
	for range 4 {
		s.say(atRedisTime, "r1", "u1", "getProviders", tebra.Failed, 1, tebra.Rejected)
	}
	s.say(atRedisTime, "r2", "u1", "health", tebra.Success, 1, "")
	b := breaker.New(s.rdb, s.keys, breaker.Config{Interval: time.Hour}) // else it might be half-open by then
	for range 10 {
		if _, err := b.Record(s.t.Context(), false); err != nil {
			s.t.Fatal(err)
		}
	}
	old := float64(time.Now().Add(-90 * time.Minute).UnixMilli())
	_, err := s.rdb.Pipelined(s.t.Context(), func(p redis.Pipeliner) error {
		p.SAdd(s.t.Context(), s.keys.Lanes(), "providers", tebra.DefaultLane)
		p.ZAdd(s.t.Context(), s.keys.Open("providers"), redis.Z{Score: old, Member: "1-0"}, redis.Z{Score: old, Member: "2-0"})
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// bridge lets a bridge be heard of.
func (s *scene) bridge() {
	s.t.Helper()
	now := time.Now().UnixMilli()
	_, err := s.rdb.Pipelined(s.t.Context(), func(p redis.Pipeliner) error {
		p.ZAdd(s.t.Context(), s.keys.Bridges(), redis.Z{Score: float64(now), Member: "b1"})
		p.HSet(s.t.Context(), s.keys.Heartbeat("b1"), "consumer", "b1", "version", "v1.2.3", "started", now-3_600_000, "at", now,
			"read", 1200, "published", 1190, "rejected", 10, "claimed", 3, "gate", "", "memory", 17<<20, "cpuMillis", 2500)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestStatusIsOneScreen(t *testing.T) {
	t.Parallel()
	empty, well, trouble := newScene(t), newScene(t), newScene(t)
	well.bridge()
	well.say(atRedisTime, "r2", "u1", "health", tebra.Success, 1, "")
	trouble.trouble()
	for _, test := range []struct {
		golden string
		scene  *scene
		args   []string
	}{
		{"status-empty", empty, nil},
		{"status", well, nil},
		{"status-json", well, []string{"--output", "json"}},
		{"status-trouble", trouble, []string{"--last", "1h"}},
		{"status-trouble-json", trouble, []string{"-o", "json"}},
	} {
		t.Run(test.golden, func(t *testing.T) {
			t.Parallel()
			c := test.scene.command(append([]string{"status"}, test.args...)...)
			c.goldenButTimes(t, test.golden, c.run(t, t.Context()))
		})
	}
}

func TestStatusWatchedIsShownAgainUntilInterrupted(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.bridge()
	for _, test := range []struct {
		terminal bool
		args     []string
		again    string // what stands before the second look
	}{
		{false, nil, "\n\ntebra at "},
		{false, []string{"-o", "json"}, "}\n{"},
		{true, nil, "A\r\x1b[J"},
	} {
		c := s.command(append([]string{"status", "--watch", "--interval", "100ms"}, test.args...)...)
		c.terminal = test.terminal
		ctx, interrupt := context.WithCancel(t.Context())
		wait := c.start(t, ctx)
		peertest.Eventually(t, 10*time.Second, "a second look", func() bool { return strings.Contains(c.stdout.String(), test.again) })
		interrupt()
		c.expect(t, wait(), exitOK)
	}
}

func TestLookingRefusesBadUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"history", "--limit", "0"}, "--limit is 0: want 1 to 10000"},
		{[]string{"history", "--since", "yesterday"}, "want how long ago"},
		{[]string{"history", "u1"}, `"u1" is one too many`},
		{[]string{"trace"}, "which request?"},
		{[]string{"trace", "a", "b"}, `"b" is one too many`},
		{[]string{"watch", "--status", "done"}, `--status is "done": want pending, processing, success or error`},
		{[]string{"status", "--last", "0s"}, "--last is 0s"},
		{[]string{"status", "--interval", "5s"}, "--interval says how often --watch looks"},
		{[]string{"status", "--watch", "--interval", "1ms"}, "--interval is 1ms: want at least 100ms"},
		{[]string{"status"}, "no local pipeline is running"},
	} {
		c := &command{args: test.args}
		c.expect(t, c.run(t, t.Context()), exitUsage, test.want)
	}
}

func TestLookingSaysWhatToDoWhenRedisCannotBeLookedAt(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"history"}, {"trace", "r1"}, {"watch"}, {"status"}} {
		c := &command{args: append(args, "--redis", "redis://127.0.0.1:1")}
		c.expect(t, c.run(t, t.Context()), exitFailed, "is Redis running there, and may this user read it? 'tebra doctor' looks into it")
	}
}

func TestWatchShowsEachChange(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		golden   string
		args     []string
		terminal bool
		want     string // of the last change
	}{
		{"watch", nil, false, "r2  attempt 1"},
		{"watch-error", []string{"--status", "error", "--user", "u1"}, false, "rejected"},
		{"watch-json", []string{"--output", "json", "--action", "getPatient"}, false, `"status":"success"`},
		{"watch-terminal", nil, true, "r2  attempt 1"},
	} {
		t.Run(test.golden, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.ask(10*time.Minute, "before", "u1", "health")
			c := s.command(append([]string{"watch"}, test.args...)...)
			c.terminal = test.terminal
			ctx, interrupt := context.WithCancel(t.Context())
			wait := c.start(t, ctx)
			// Nobody can see when a watch begins, so it is sent something until it
			// shows, which the golden file leaves out.
			s.sendUntilSeen(c, test.args)
			_, err := s.rdb.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
				for _, e := range s.changes() {
					p.XAdd(t.Context(), &redis.XAddArgs{Stream: e.stream, ID: e.id, Values: e.fields})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			peertest.Eventually(t, 10*time.Second, "the last change", func() bool { return strings.Contains(c.stdout.String(), test.want) })
			interrupt()
			got := wait()
			c.expect(t, got, exitOK)
			shown := c.stdout.String()
			if test.terminal {
				shown = screenOf(shown)
			}
			only := &command{args: c.args}
			for line := range strings.Lines(shown) {
				if !strings.Contains(line, "begin") && !strings.Contains(line, "begun") { // of the watch's beginning
					_, _ = only.stdout.Write([]byte(line))
				}
			}
			only.golden(t, test.golden, got)
		})
	}
}

// screenOf is what a terminal shows in the end of what was printed to it by [live].
func screenOf(text string) string {
	var screen []string
	for line := range strings.Lines(text) {
		for {
			code, rest, ok := strings.Cut(line, "\r\x1b[J")
			if !ok {
				break
			}
			var up int
			if _, err := fmt.Sscanf(code, "\x1b[%dA", &up); err == nil {
				screen = screen[:len(screen)-up]
			}
			line = rest
		}
		if line != "" {
			screen = append(screen, line)
		}
	}
	return strings.Join(screen, "")
}

type change struct {
	stream, id string
	fields     []string
}

// changes is what a watch is to show.
func (s *scene) changes() []change {
	ask := func(ago time.Duration, name, action string) change {
		return change{s.keys.Requests(), s.id(ago), []string{"id", name, "userId", "u1", "action", action, "params", `{"lastName":"Testa"}`}}
	}
	say := func(ago time.Duration, name, action string, state tebra.State, attempt int, code tebra.ErrorCode) change {
		return change{s.keys.Status(), s.id(ago), tebra.StatusUpdate{
			RequestID: name, CorrelationID: name, UserID: "u1", Action: action, State: state, Timestamp: s.now, Attempt: attempt, ErrorCode: code,
		}.Fields()}
	}
	return []change{
		ask(20*time.Second, "r1", "getPatient"),
		ask(19*time.Second, "r2", "health"),
		say(18*time.Second, "r1", "getPatient", tebra.Pending, 0, ""),
		say(17*time.Second, "r1", "getPatient", tebra.Processing, 1, ""),
		say(16*time.Second, "r1", "getPatient", tebra.Pending, 1, tebra.Unavailable),
		say(15*time.Second, "r1", "getPatient", tebra.Processing, 2, ""),
		say(14*time.Second, "r3", "health", tebra.Failed, 1, tebra.Rejected),
		say(13*time.Second, "r1", "getPatient", tebra.Success, 2, ""),
		say(12*time.Second, "r2", "health", tebra.Processing, 1, ""),
	}
}

// sendUntilSeen sends requests that come to their end until a watch shows one.
func (s *scene) sendUntilSeen(c *command, args []string) {
	s.t.Helper()
	action := "health" // what all but one of the watches let through
	if strings.Contains(strings.Join(args, " "), "getPatient") {
		action = "getPatient"
	}
	n := 0
	peertest.Eventually(s.t, 10*time.Second, "a watch that has begun", func() bool {
		n++
		s.say(9*time.Minute-time.Duration(n)*time.Millisecond, "begin", "u1", action, tebra.Failed, 1, tebra.Expired)
		return strings.Contains(c.stdout.String(), "begin")
	})
	// What was sent last has been shown as well before anything else is sent.
	s.say(8*time.Minute, "begun", "u1", action, tebra.Failed, 1, tebra.Expired)
	peertest.Eventually(s.t, 10*time.Second, "the watch's beginning", func() bool { return strings.Contains(c.stdout.String(), "begun") })
}

func TestStatusCountsDeadLettersAndLeavesThemWhereTheyWere(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.fail("createAppointment", tebra.OutcomeUnknown)
	i.fail("getPatient", tebra.DeadLettered)
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "! 2 dead letters wait for an operator: see 'tebra deadletters list'"},
		{nil, "DEAD LETTERS  2 waiting"}, // as before
		{[]string{"--output", "json"}, `"deadLetters":{"waiting":2,"more":false}`},
		{[]string{"--dead-letters=false"}, "DEAD LETTERS  not counted\n"},
		{[]string{"--subscription", "nobody-made-it"}, "DEAD LETTERS  not counted: there is no subscription nobody-made-it"},
	} {
		c := i.tebra(append([]string{"status"}, test.args...)...)
		c.expect(t, c.run(t, t.Context()), exitOK)
		if !strings.Contains(c.stdout.String(), test.want) {
			t.Errorf("tebra %q printed:\n%s\nwant %q in it", c.args, c.stdout.String(), test.want)
		}
	}
}
