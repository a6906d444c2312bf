package local

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/tebra"
)

// printed takes what a run prints.
type printed struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(b)
}

func (p *printed) lines() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Split(bytes.Clone(bytes.TrimSpace(p.buf.Bytes())), []byte("\n"))
}

func TestARunForProgramsPrintsOneObjectALine(t *testing.T) {
	t.Parallel()
	opts := DefaultOptions()
	opts.JSON, opts.Environ = true, []string{DiscoveryVariable + "=" + filepath.Join(t.TempDir(), "local.json")}
	ctx, stop := context.WithCancel(t.Context())
	var out printed
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, opts, &out) }()
	peertest.Eventually(t, startTimeout, "what was started", func() bool { return len(out.lines()[0]) > 0 })
	var began struct{ Event, RedisURL, FunctionsURL string }
	if err := json.Unmarshal(out.lines()[0], &began); err != nil || began.Event != "started" || began.FunctionsURL == "" {
		t.Fatalf("the first line = %s (%v), want what was started", out.lines()[0], err)
	}
	at, err := redis.ParseURL(began.RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(at)
	defer rdb.Close()
	if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: "tebra:requests", Values: []string{"id", "r1", "action", "health", "userId", "u1"}}).Err(); err != nil {
		t.Fatal(err)
	}
	peertest.Eventually(t, 20*time.Second, "three changes of the request's state", func() bool { return len(out.lines()) == 4 })
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
	var last struct{ Event, RequestID, Status string }
	if err := json.Unmarshal(out.lines()[3], &last); err != nil || last.Event != "status" || last.RequestID != "r1" || last.Status != "success" {
		t.Errorf("the last line = %s (%v), want that r1 ended in success", out.lines()[3], err)
	}
}

// TestASecondRunSaysThatItHidesTheFirst, which is found again afterwards.
func TestASecondRunSaysThatItHidesTheFirst(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "local.json")
	first := Info{PID: os.Getpid(), Started: time.Now(), RedisURL: peertest.Redis(t).URL(), Prefix: "tebra"}
	if err := WriteDiscovery(path, first); err != nil {
		t.Fatal(err)
	}
	opts := DefaultOptions()
	opts.Environ = []string{DiscoveryVariable + "=" + path}
	ctx, stop := context.WithCancel(t.Context())
	var out printed
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, opts, &out) }()
	peertest.Eventually(t, startTimeout, "what was started", func() bool { return len(out.lines()) > 10 })
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
	want := fmt.Sprintf("Another local pipeline is running, process %d.", os.Getpid())
	if got := string(out.lines()[0]); !strings.HasPrefix(got, want) {
		t.Errorf("the first line = %q, want %q", got, want)
	}
	if found, err := Discover(t.Context(), path); err != nil || !found.same(first) {
		t.Errorf("afterwards Discover() = %+v, %v, want the first run", found, err)
	}
}

// TestNoLineIsWiderThanATerminal of those that tell of a known action's request whose
// ID is a UUID, as 'tebra send' makes them; and an ID is never broken in two.
func TestNoLineIsWiderThanATerminal(t *testing.T) {
	t.Parallel()
	const id = "de17645b-46b1-4b7c-8d2c-9f2f3d1f7a10"
	var all bytes.Buffer
	for _, action := range policy.Default().Actions() {
		for _, s := range []tebra.StatusUpdate{
			{State: tebra.Pending}, {State: tebra.Processing, Attempt: 1}, {State: tebra.Success, Attempt: 1},
			{State: tebra.Processing, Attempt: 12}, {State: tebra.Pending, Attempt: 12, ErrorCode: tebra.Unavailable},
			{State: tebra.Failed, Attempt: 12, ErrorCode: tebra.ResponseTooLarge},
		} {
			s.Action, s.RequestID = action.Name, id
			printStatus(&all, s)
		}
	}
	for line := range strings.Lines(all.String()) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) > 80 || (!strings.Contains(line, id) && !strings.Contains(line, "attempt 12")) {
			t.Errorf("line %q has %d columns, want at most 80 with the ID or the attempt", line, len(line))
		}
	}
	var short bytes.Buffer
	printStatus(&short, tebra.StatusUpdate{Action: "health", RequestID: "r1", State: tebra.Failed, Attempt: 1, ErrorCode: tebra.Rejected})
	if want := "  health            error      r1  attempt 1, rejected\n"; !strings.HasSuffix(short.String(), want) || strings.Count(short.String(), "\n") != 1 {
		t.Errorf("a short one = %q, want one line that ends in %q", short.String(), want)
	}
}

// TestFunctionsTellOfErrorsOnlyWhereLogsAreBrief, and all others of everything.
func TestFunctionsTellOfErrorsOnlyWhereLogsAreBrief(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(brief{Handler: slog.NewTextHandler(&out, nil)})
	functions := log.With(partKey, functionsPart).With("attempt", 1)
	functions.Warn("theirs")
	functions.WithGroup("g").Warn("theirs")
	functions.Error("an error")
	log.With(partKey, "bridge").Warn("the bridge's")
	log.Info("somebody's")
	for _, want := range []string{"an error", "the bridge's", "somebody's"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("logs =\n%s\nwant %q in them", out.String(), want)
		}
	}
	if strings.Contains(out.String(), "theirs") {
		t.Errorf("logs =\n%s\nwant no line of an attempt in them", out.String())
	}
}
