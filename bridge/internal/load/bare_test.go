package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"tebraproxy/bridge/internal/fleet"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// bareVariable, in the environment, makes the test binary a bare worker.
const bareVariable = "LOAD_BARE"

// bareSpec says what a bare worker works on. It reads a stream and calls the API
// itself, as the worker in the project's first design did: a status, the call, the
// answer, and nothing that would keep a promise when one of them fails. That one was
// written for Node and called one at a time; and it asked for what comes after "$"
// each time, and so missed what came while it called, which this one does not.
type bareSpec struct {
	Redis   string `json:"redis"`
	Prefix  string `json:"prefix"`
	API     string `json:"api"`
	Key     string `json:"key"`
	AtATime int    `json:"atATime"` // calls
}

// barePrefix is that of a bare worker's streams.
const barePrefix = "bare"

// startBare starts a worker with streams of its own, beside those of f, and returns
// once it reads.
func startBare(t *testing.T, f *fleet.Fleet, atATime int) *peertest.Process {
	t.Helper()
	spec, err := json.Marshal(bareSpec{Redis: f.Redis.URL(), Prefix: barePrefix, API: f.APIURL, Key: f.APIKey, AtATime: atATime})
	if err != nil {
		t.Fatal(err)
	}
	return peertest.Start(t, 0, func([]int) peertest.Part {
		return peertest.Part{
			Name: fmt.Sprint("bare-", atATime), Path: os.Args[0], Dir: t.TempDir(), Ready: "reading",
			Env: []string{bareVariable + "=" + string(spec)},
		}
	})
}

func bareKeys(t *testing.T) tebra.Keys {
	t.Helper()
	keys, err := tebra.NewKeys(barePrefix)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

type bareWorker struct {
	bareSpec
	keys   tebra.Keys
	rdb    *redis.Client
	client *http.Client
}

func runBare(spec string) error {
	var w bareWorker
	if err := json.Unmarshal([]byte(spec), &w.bareSpec); err != nil {
		return fmt.Errorf("%s: %w", bareVariable, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	options, err := redis.ParseURL(w.Redis)
	if err != nil {
		return err
	}
	w.rdb = redis.NewClient(options)
	defer w.rdb.Close()
	if w.keys, err = tebra.NewKeys(w.Prefix); err != nil {
		return err
	}
	w.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: w.AtATime}}
	return w.work(ctx)
}

func (w *bareWorker) work(ctx context.Context) error {
	from := "0"
	last, err := w.rdb.XRevRangeN(ctx, w.keys.Requests(), "+", "-", 1).Result()
	if err != nil {
		return err
	}
	if len(last) > 0 {
		from = last[0].ID
	}
	fmt.Println("reading", w.keys.Requests())
	var calls errgroup.Group
	calls.SetLimit(w.AtATime)
	for ctx.Err() == nil {
		streams, err := w.rdb.XRead(ctx, &redis.XReadArgs{Streams: []string{w.keys.Requests(), from}, Count: int64(w.AtATime), Block: time.Second}).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			break
		}
		for _, m := range streams[0].Messages {
			from = m.ID
			calls.Go(func() error { return w.one(ctx, m) })
		}
	}
	return calls.Wait()
}

func (w *bareWorker) one(ctx context.Context, m redis.XMessage) error {
	began := time.Now()
	text := func(name string) string { s, _ := m.Values[name].(string); return s }
	status := []string{"correlationId", text("correlationId"), "status", "processing", "timestamp", tebra.FormatTime(began)}
	if err := w.rdb.XAdd(ctx, &redis.XAddArgs{Stream: w.keys.Status(), Values: status}).Err(); err != nil {
		return err
	}
	answer := []string{"id", uuid.NewString(), "requestId", text("id"), "correlationId", text("correlationId")}
	data, err := callAPI(ctx, w.client, w.API, w.Key, text("action"), text("params"))
	if err != nil {
		answer = append(answer, "status", "error", "error", err.Error())
	} else {
		answer = append(answer, "status", "success", "data", string(data))
	}
	now := time.Now()
	answer = append(answer, "timestamp", tebra.FormatTime(now), "duration", strconv.FormatInt(now.Sub(began).Milliseconds(), 10))
	return w.rdb.XAdd(ctx, &redis.XAddArgs{Stream: w.keys.Responses(), Values: answer}).Err()
}

// callAPI makes one call and returns the answer.
func callAPI(ctx context.Context, client *http.Client, url, key, action, params string) ([]byte, error) {
	body, err := json.Marshal(map[string]any{"action": action, "params": json.RawMessage(params)})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", key)
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the API answered %s", resp.Status)
	}
	return answer, err
}
