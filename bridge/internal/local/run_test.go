package local

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
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
