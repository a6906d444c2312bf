package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

func TestMain(m *testing.M) {
	logging.Disable() // as main does
	peertest.Main(m)
}

var update = flag.Bool("update", false, "write the golden files anew")

// output is a writer that may be read while it is written to.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// command is one use of the command line.
type command struct {
	args     []string
	env      []string
	stdin    string
	terminal bool
	now      time.Time // a clock that stands still, if it is set
	local    func(context.Context, local.Options, io.Writer) error
	change   func(string) string // of what is compared with a golden file
	stdout   output
	stderr   output
}

// run runs the command to its end and returns the exit code.
func (c *command) run(t *testing.T, ctx context.Context) int {
	t.Helper()
	return c.prepare(t)(ctx)
}

// start runs the command beside the test, which must call the function that is
// returned for its exit code.
func (c *command) start(t *testing.T, ctx context.Context) (wait func() int) {
	t.Helper()
	run := c.prepare(t)
	exit := make(chan int, 1)
	go func() { exit <- run(ctx) }()
	return func() int {
		t.Helper()
		select {
		case code := <-exit:
			return code
		case <-time.After(20 * time.Second):
			t.Fatalf("%q did not end; stderr:\n%s", c.args, c.stderr.String())
			return 0
		}
	}
}

// prepare returns what runs the command: [Run], unless the test changes
// something inside. A local pipeline is found only if the test says where.
func (c *command) prepare(t *testing.T) func(context.Context) int {
	t.Helper()
	env := append(slices.Clone(c.env), local.DiscoveryVariable+"="+filepath.Join(t.TempDir(), "none.json"))
	stdin := strings.NewReader(c.stdin)
	if !c.terminal && c.local == nil && c.now.IsZero() {
		return func(ctx context.Context) int { return Run(ctx, c.args, env, stdin, &c.stdout, &c.stderr) }
	}
	now := time.Now
	if !c.now.IsZero() {
		now = func() time.Time { return c.now }
	}
	a := &app{
		environ: env, env: newEnvironment(env), stdin: stdin, stdout: &c.stdout, stderr: &c.stderr,
		now: now, zone: time.UTC, newID: newIDs(),
		isTerminal:   func(io.Writer) bool { return c.terminal },
		terminalSize: func(io.Writer) (int, int) { return 120, 40 }, runLocal: c.local,
	}
	return func(ctx context.Context) int { return a.run(ctx, c.args) }
}

// newIDs returns a source of IDs: new-id, new-id-2, and so on.
func newIDs() func() string {
	n := 0
	return func() string {
		if n++; n == 1 {
			return "new-id"
		}
		return fmt.Sprintf("new-id-%d", n)
	}
}

// expect checks the exit code and what stderr holds.
func (c *command) expect(t *testing.T, got, want int, stderr ...string) {
	t.Helper()
	if got != want {
		t.Errorf("tebra %q = exit code %d, want %d; stderr:\n%s", c.args, got, want, c.stderr.String())
	}
	for _, text := range stderr {
		if !strings.Contains(c.stderr.String(), text) {
			t.Errorf("tebra %q printed to stderr:\n%s\nwant %q in it", c.args, c.stderr.String(), text)
		}
	}
}

var (
	elapsedText = regexp.MustCompile(`\s+\+[0-9.]+ m?s`)
	elapsedJSON = regexp.MustCompile(`"elapsedMs":\d+`)
	entryID     = regexp.MustCompile(`\d{13}-\d+`)
	traceID     = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
)

// golden compares all that the command printed, and its exit code, with a file.
func (c *command) golden(t *testing.T, name string, exit int) {
	t.Helper()
	c.compare(t, name, c.printed(exit))
}

var (
	// volatile is what differs from one run to the next, in the order in which it
	// is replaced.
	volatile = []struct {
		text *regexp.Regexp
		word string
	}{
		{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC)?`), "TIME"},
		{regexp.MustCompile(`\d\d:\d\d:\d\d\.\d{3}`), "TIME"},
		{regexp.MustCompile(`\b\d+(\.\d+)? m?s\b|\b(\d+[dhm])+(\d+s)?\b|\b\d+(\.\d+)?m?s\b`), "DURATION"},
		{regexp.MustCompile(`"(\w+Ms|memoryBytes)":\d+`), `"$1":NUMBER`},
		{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
		{regexp.MustCompile(`  +`), "  "}, // widths of columns
	}
)

// goldenButTimes is golden for output with times and addresses, which leaves how
// columns are aligned to other tests.
func (c *command) goldenButTimes(t *testing.T, name string, exit int) {
	t.Helper()
	got := c.printed(exit)
	for _, v := range volatile {
		got = v.text.ReplaceAllString(got, v.word)
	}
	c.compare(t, name, got)
}

// printed is all that the command printed, and its exit code.
func (c *command) printed(exit int) string {
	return fmt.Sprintf("-- stdout --\n%s-- stderr --\n%s-- exit code %d --\n", c.stdout.String(), c.stderr.String(), exit)
}

// compare holds what a command printed against a file.
func (c *command) compare(t *testing.T, name, got string) {
	t.Helper()
	got = elapsedText.ReplaceAllString(got, "  +TIME")
	got = elapsedJSON.ReplaceAllString(got, `"elapsedMs":TIME`)
	got = entryID.ReplaceAllString(got, "ENTRY")
	got = traceID.ReplaceAllString(got, "TRACE")
	if c.change != nil {
		got = c.change(got)
	}
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("tebra %q printed:\n%s\nwant, as in %s:\n%s", c.args, got, path, want)
	}
}

// fakePipeline plays the part of everything behind the requests stream.
type fakePipeline struct {
	t    *testing.T
	rdb  *redis.Client
	keys tebra.Keys
}

// answering starts a pipeline that does with each request what play says, until
// the test ends.
func answering(t *testing.T, server *peertest.RedisServer, prefix string, play func(p *fakePipeline, r tebra.Request)) {
	t.Helper()
	keys, err := tebra.NewKeys(prefix)
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePipeline{t: t, rdb: server.Client(), keys: keys}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.serve(ctx, play) }()
	t.Cleanup(func() { cancel(); <-done })
}

func (p *fakePipeline) serve(ctx context.Context, play func(*fakePipeline, tebra.Request)) {
	after := "0-0"
	for ctx.Err() == nil {
		streams, err := p.rdb.XRead(ctx, &redis.XReadArgs{Streams: []string{p.keys.Requests(), after}, Block: 50 * time.Millisecond}).Result()
		if err != nil && !errors.Is(err, redis.Nil) && ctx.Err() == nil {
			p.t.Errorf("the test's pipeline can't read: %v", err)
			return
		}
		for _, s := range streams {
			for _, entry := range s.Messages {
				after = entry.ID
				fields := texts(entry)
				play(p, tebra.Request{
					ID: fields["id"], CorrelationID: fields["correlationId"], Action: fields["action"],
					UserID: fields["userId"], Params: []byte(fields["params"]),
				})
			}
		}
	}
}

func (p *fakePipeline) add(stream string, fields []string) {
	if err := p.rdb.XAdd(context.Background(), &redis.XAddArgs{Stream: stream, Values: fields}).Err(); err != nil {
		p.t.Errorf("the test's pipeline can't write to %s: %v", stream, err)
	}
}

func (p *fakePipeline) status(r tebra.Request, state tebra.State, attempt int, code tebra.ErrorCode) {
	p.add(p.keys.Status(), tebra.StatusUpdate{
		CorrelationID: r.CorrelationID, RequestID: r.ID, State: state, Timestamp: time.Now(),
		UserID: r.UserID, Action: r.Action, Attempt: attempt, ErrorCode: code,
	}.Fields())
}

// answer writes the last status and the answer, as the ledger's script does.
func (p *fakePipeline) answer(r tebra.Request, answer tebra.Response) {
	answer.ID, answer.RequestID, answer.CorrelationID = "answer-1", r.ID, r.CorrelationID
	answer.UserID, answer.Action, answer.Timestamp = r.UserID, r.Action, time.Now()
	answer.Duration = 86 * time.Millisecond
	p.add(p.keys.Responses(), answer.Fields())
	p.status(r, answer.State(), answer.Attempts, answer.ErrorCode)
}

const scheduleData = `{"success": true, "data": {"date": "2026-11-23", "note": "9 < 10 & ok"}}`

// succeeds is a pipeline in which all goes well.
func succeeds(p *fakePipeline, r tebra.Request) {
	p.status(r, tebra.Pending, 0, "")
	p.status(r, tebra.Processing, 1, "")
	p.answer(r, tebra.Response{Data: []byte(scheduleData), Attempts: 1})
}

// recovers is a pipeline whose first attempt fails.
func recovers(p *fakePipeline, r tebra.Request) {
	p.status(r, tebra.Pending, 0, "")
	p.status(r, tebra.Processing, 1, "")
	p.status(r, tebra.Pending, 1, tebra.Unavailable)
	p.status(r, tebra.Processing, 2, "")
	p.answer(r, tebra.Response{Data: []byte(`[]`), Attempts: 2})
}

// refuses is a pipeline whose API refuses the request, in words that would clear
// the terminal.
func refuses(p *fakePipeline, r tebra.Request) {
	p.status(r, tebra.Pending, 0, "")
	p.status(r, tebra.Processing, 1, "")
	p.answer(r, tebra.Response{ErrorCode: tebra.Rejected, Error: "no such date\x1b[2J\u009b2J", Attempts: 1})
}

// entries returns the entries of a stream as names and values in turn, as they
// were written.
func entries(t *testing.T, server *peertest.RedisServer, stream string) [][]string {
	t.Helper()
	reply, err := server.Client().Do(t.Context(), "XRANGE", stream, "-", "+").Slice()
	if err != nil {
		t.Fatal(err)
	}
	all := make([][]string, 0, len(reply))
	for _, entry := range reply {
		var fields []string
		for _, field := range entry.([]any)[1].([]any) {
			fields = append(fields, field.(string))
		}
		all = append(all, fields)
	}
	return all
}
