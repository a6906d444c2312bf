package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// byAction is a pipeline that does with a request what its action says: an error
// code, "quiet" for no answer, else a success.
func byAction(p *fakePipeline, r tebra.Request) {
	p.status(r, tebra.Pending, 0, "")
	if r.Action == "quiet" {
		return
	}
	code, err := tebra.ParseErrorCode(r.Action)
	if err != nil {
		p.answer(r, tebra.Response{Data: []byte(`{"patient":"Testa"}`), Attempts: 1})
		return
	}
	p.answer(r, tebra.Response{ErrorCode: code, Error: "the API says Testa", Attempts: 2})
}

// file writes lines into a file of the test's own.
func file(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "requests.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// bulkArgs sends the requests of a file to server.
func bulkArgs(server *peertest.RedisServer, path string, args ...string) []string {
	return append([]string{"send", "--file", path, "--redis", server.URL(), "--user", "u1"}, args...)
}

// goldenBulk compares what the command printed, but for the file's directory.
func (c *command) goldenBulk(t *testing.T, name, path string, exit int) {
	t.Helper()
	got := strings.ReplaceAll(c.printed(exit), filepath.Dir(path)+"/", "")
	for _, v := range volatile {
		got = v.text.ReplaceAllString(got, v.word)
	}
	c.compare(t, name, got)
}

// linesOf returns the requests in a file of failures.
func linesOf(t *testing.T, path string) []bulkLine {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []bulkLine
	for line := range strings.Lines(string(text)) {
		l, err := parseBulkLine([]byte(line))
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		lines = append(lines, l)
	}
	return lines
}

func TestManyAreSentAndWhatFailedIsKept(t *testing.T) {
	t.Parallel()
	lines := []string{
		`{"action":"rejected","params":{"lastName":"Testa"},"id":"a","correlationId":"ca"}`, ``,
		`{"action":"outcome_unknown","userId":"u2","id":"b"}`,
		`  {"action":"health"}  `,
	}
	for range 250 {
		lines = append(lines, `{"action":"health","params":{}}`)
	}
	for _, test := range []struct {
		golden   string
		args     []string
		terminal bool
	}{{"bulk", nil, false}, {"bulk-terminal", nil, true}, {"bulk-json", []string{"--output", "json"}, false}} {
		t.Run(test.golden, func(t *testing.T) {
			t.Parallel()
			server := peertest.Redis(t)
			answering(t, server, "tebra", byAction)
			path := file(t, lines...)
			c := &command{args: append(bulkArgs(server, path, "--in-flight", "40"), test.args...), env: []string{"NO_COLOR=1"}, terminal: test.terminal}
			got := c.run(t, t.Context())
			c.expect(t, got, exitFailed, "2 of 253 requests ended in an error")
			if strings.Contains(c.stdout.String()+c.stderr.String(), "Testa") {
				t.Errorf("something was printed that is a payload:\n%s%s", c.stdout.String(), c.stderr.String())
			}
			if test.terminal {
				if !strings.Contains(c.stderr.String(), "of 253") || !strings.HasPrefix(screenOf(c.stderr.String()), "tebra: ") {
					t.Errorf("stderr = %q, want a bar that is gone in the end", c.stderr.String())
				}
				return
			}
			if test.golden == "bulk-json" {
				c.keepLast(t, 1)
			}
			c.goldenBulk(t, test.golden, path, got)

			failed := strings.TrimSuffix(path, ".jsonl") + ".failed.jsonl"
			want := []bulkLine{
				{Action: "rejected", Params: []byte(`{"lastName":"Testa"}`), UserID: "u1", CorrelationID: "ca", Failed: "rejected"},
				{Action: "outcome_unknown", Params: []byte(`{}`), UserID: "u2", ID: "b", Failed: "outcome_unknown"},
			}
			if kept := linesOf(t, failed); fmt.Sprint(kept) != fmt.Sprint(want) {
				t.Errorf("failures = %s, want %s: a new request where the old one had no effect, else the same", kept, want)
			}
			if stat, err := os.Stat(failed); err != nil || stat.Mode().Perm() != 0o600 {
				t.Errorf("the file of failures = %v, %v, want mode 0600", stat.Mode(), err)
			}
			if n := len(entries(t, server, "tebra:requests")); n != 253 {
				t.Errorf("the stream has %d requests, want 253", n)
			}
		})
	}
}

// keepLast leaves only the last n lines of stdout.
func (c *command) keepLast(t *testing.T, n int) {
	t.Helper()
	lines := strings.SplitAfter(c.stdout.String(), "\n")
	answers := lines[:len(lines)-1-n]
	for _, line := range answers {
		var e bulkEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Event != "answer" || e.DurationMillis == nil {
			t.Errorf("line %q (%v), want an answer", line, err)
		}
	}
	c.stdout.buf.Reset()
	c.stdout.buf.WriteString(strings.Join(lines[len(lines)-1-n:], ""))
}

func TestWhatMayHaveHadAnEffectKeepsItsIDHoweverOftenItIsSentAgain(t *testing.T) {
	t.Parallel()
	for code, keeps := range map[tebra.ErrorCode]bool{
		"": true, tebra.OutcomeUnknown: true, tebra.NoAnswer: true, tebra.DeadLettered: true, tebra.Duplicate: true,
		tebra.Rejected: false, tebra.Malformed: false, tebra.UnknownAction: false, tebra.Unauthorized: false,
	} {
		if got := again(tebra.Request{ID: "a", Action: "createAppointment"}, bulkLine{}, code).ID == "a"; got != keeps {
			t.Errorf("after %q it keeps its ID: %v, want %v", code, got, keeps)
		}
	}
}

func TestSoManyAreUnderWayAtATime(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	path := file(t, slices.Repeat([]string{`{"action":"quiet"}`}, 12)...)
	c := &command{args: bulkArgs(server, path, "--in-flight", "5")}
	ctx, interrupt := context.WithCancel(t.Context())
	wait := c.start(t, ctx)
	peertest.Eventually(t, 10*time.Second, "5 requests", func() bool { return len(entries(t, server, "tebra:requests")) == 5 })
	interrupt()
	c.expect(t, wait(), exitInterrupted, "interrupted: 5 requests are not answered yet, 7 were not sent")
	if n := len(entries(t, server, "tebra:requests")); n != 5 {
		t.Errorf("the stream has %d requests, want 5", n)
	}
	sent, rest := 0, 0
	for _, l := range linesOf(t, strings.TrimSuffix(path, ".jsonl")+".failed.jsonl") {
		if l.ID != "" {
			sent++
		} else {
			rest++
		}
	}
	if sent != 5 || rest != 7 {
		t.Errorf("failures = %d with their ID and %d without, want the 5 that were sent and the 7 that were not", sent, rest)
	}
}

func TestManyWithoutNewsEnd(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	answering(t, server, "tebra", byAction)
	path := file(t, `{"action":"health"}`, `{"action":"quiet"}`)
	c := &command{args: bulkArgs(server, path, "--timeout", "500ms", "--failures", filepath.Join(t.TempDir(), "later.jsonl"))}
	got := c.run(t, t.Context())
	c.expect(t, got, exitNoAnswer, "no answer in time: nothing was heard for 500ms of 1 requests")
	if !strings.Contains(c.stdout.String(), "no answer yet") || !strings.Contains(c.stdout.String(), "later.jsonl") {
		t.Errorf("stdout = %s, want the request without an answer, and where it is", c.stdout.String())
	}
}

// TestManySayOnceWhatTheyWaitFor while nothing is answered.
func TestManySayOnceWhatTheyWaitFor(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.bridge()
	if _, err := breaker.New(s.rdb, s.keys, breaker.Config{MinFailures: 1}).Record(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	path := file(t, `{"action":"health"}`, `{"action":"health"}`)
	c := &command{args: bulkArgs(s.server, path, "--timeout", "7s")} // time for two looks
	c.expect(t, c.run(t, t.Context()), exitNoAnswer, "waiting: the breaker has been open for 3s: the API fails as a whole, and requests wait in Redis\n")
	if n := strings.Count(c.stderr.String(), "waiting: "); n != 1 {
		t.Errorf("said %d times what they wait for, want once:\n%s", n, c.stderr.String())
	}
}

func TestManyFromStdinWithoutWaiting(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for _, format := range []string{"table", "json"} {
		c := &command{args: bulkArgs(server, "-", "--no-wait", "--output", format), stdin: strings.Repeat(`{"action":"health"}`+"\n", 150)}
		got := c.run(t, t.Context())
		c.expect(t, got, exitOK)
		if format == "json" {
			if n := strings.Count(c.stdout.String(), `"event":"sent"`); n != 150 {
				t.Errorf("stdout has %d sent requests, want 150", n)
			}
			continue
		}
		c.goldenButTimes(t, "bulk-no-wait", got)
	}
	if n := len(entries(t, server, "tebra:requests")); n != 300 {
		t.Errorf("the stream has %d requests, want 300", n)
	}
}

func TestManyAreRefusedBeforeAnyIsSent(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	good := `{"action":"health"}`
	for _, test := range []struct {
		name  string
		lines []string
		args  []string
		want  string
	}{
		{"no JSON", []string{good, "health"}, nil, "line 2 of"},
		{"an unknown member", []string{`{"action":"health","parms":{}}`}, nil, `unknown field "parms"; known are action, params`},
		{"two objects", []string{good + good}, nil, "something follows its JSON object"},
		{"another kind", []string{`{"action":7}`}, nil, "action is a JSON number, want string"},
		{"params that are no object", []string{`{"action":"health","params":[1]}`}, nil, "nothing was sent"},
		{"no action", []string{`{"params":{}}`}, nil, "line 1 of"},
		{"an ID twice", []string{`{"action":"health","id":"a"}`, good, `{"action":"health","id":"a"}`}, nil, "has the same id as line 1"},
		{"nothing", []string{"", " "}, nil, "there is no request in"},
		{"an action as well", []string{good}, []string{"health"}, "with --file, actions and params are in the lines"},
		{"an ID for all", []string{good}, []string{"--id", "a"}, "--id is about one request"},
		{"none under way", []string{good}, []string{"--in-flight", "0"}, "--in-flight is 0: want 1 to 1000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := &command{args: bulkArgs(server, file(t, test.lines...), test.args...)}
			c.expect(t, c.run(t, t.Context()), exitUsage, test.want)
		})
	}
	t.Cleanup(func() {
		if server.Client().Exists(context.Background(), "tebra:requests").Val() != 0 {
			t.Error("something was sent, want nothing")
		}
	})
}

func TestFailuresThatAreThereAreNotWrittenOver(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	path := file(t, `{"action":"health"}`)
	c := &command{args: bulkArgs(server, path, "--failures", path)}
	c.expect(t, c.run(t, t.Context()), exitUsage, "which is there already; remove it, or name another file with --failures")
	c = &command{args: bulkArgs(server, filepath.Join(t.TempDir(), "none.jsonl"))}
	c.expect(t, c.run(t, t.Context()), exitUsage, "no such file")
	c = &command{args: []string{"send", "health", "--in-flight", "3"}}
	c.expect(t, c.run(t, t.Context()), exitUsage, "--in-flight is about many requests; give --file as well")
}

func TestManyWaitOutAnOutageOfRedis(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t, peertest.WithArgs("--appendonly", "yes", "--appendfsync", "always"))
	path := file(t, slices.Repeat([]string{`{"action":"quiet"}`}, 3)...)
	c := &command{args: bulkArgs(server, path)}
	wait := c.start(t, t.Context())
	peertest.Eventually(t, 10*time.Second, "3 requests", func() bool { return len(entries(t, server, "tebra:requests")) == 3 })
	server.Kill()
	peertest.Eventually(t, 10*time.Second, "a word about it", func() bool { return strings.Contains(c.stderr.String(), "Redis fails") })
	server.Start()
	answering(t, server, "tebra", func(p *fakePipeline, r tebra.Request) { p.answer(r, tebra.Response{Data: []byte("{}"), Attempts: 1}) })
	c.expect(t, wait(), exitOK)
	// What was added when the reply was lost is added again, under its ID.
	ids := map[string]bool{}
	for _, entry := range entries(t, server, "tebra:requests") {
		ids[entry[1]] = true
	}
	if !strings.Contains(c.stdout.String(), "success      3") || len(ids) != 3 {
		t.Errorf("stdout = %s, and %d requests, want 3 that ended in success", c.stdout.String(), len(ids))
	}
}

func TestWhatWasAddedWhenItsReplyWasLostIsNotAddedAgain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	request := func(id string) *bulkRequest { return &bulkRequest{Request: tebra.Request{ID: id}} }
	b := &bulk{
		app: &app{now: time.Now}, rdb: s.rdb, keys: s.keys, print: &printer{}, asked: "0-0", doubt: true,
		unsent: []*bulkRequest{request("there"), request("lost")}, waiting: map[string]*bulkRequest{},
	}
	for range mostAtOnce { // of others
		s.ask(time.Minute, "other", "u2", "health")
	}
	entry := s.ask(time.Second, "there", "u1", "health")
	if err := b.find(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(b.unsent) != 1 || b.unsent[0].ID != "lost" || b.waiting["there"] == nil || b.waiting["there"].entry != entry || b.doubt {
		t.Errorf("unsent = %d, waiting = %v, in doubt %v, want one that is to be added and one that is", len(b.unsent), b.waiting, b.doubt)
	}
}

func TestPercentilesAreTheNearestRank(t *testing.T) {
	t.Parallel()
	var times []time.Duration
	for n := range 100 {
		times = append(times, time.Duration(n+1))
	}
	for percent, want := range map[float64]time.Duration{50: 50, 95: 95, 99: 99, 100: 100} {
		if got := percentile(times, percent); got != want {
			t.Errorf("percentile(1 to 100, %v) = %d, want %d", percent, got, want)
		}
	}
	if got := percentile(times[:1], 99); got != 1 {
		t.Errorf("percentile of one = %d, want it", got)
	}
}

func FuzzBulkLine(f *testing.F) {
	f.Add([]byte(`{"action":"health","params":{"a":1},"id":"x"}`))
	f.Add([]byte(`{"action":"health"}{}`))
	f.Add([]byte(`{"Action":null,"params":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parseBulkLine(text)
		if err != nil {
			return
		}
		written, err := json.Marshal(l)
		if err != nil {
			t.Fatalf("a line that was read can't be written: %v", err)
		}
		if again, err := parseBulkLine(written); err != nil || again.Action != l.Action || again.ID != l.ID {
			t.Errorf("parseBulkLine(%s) = %+v, %v, want %+v again", written, again, err, l)
		}
	})
}
