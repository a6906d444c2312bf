package capacity

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/peertest"
)

func TestMain(m *testing.M) { peertest.Main(m) }

// sent is how many requests are measured, of each profile.
const sent = 2000

// policy lets anybody do one read and one write, in the lane without a rate.
const policy = `version: 1
actions:
  health: {roles: [local]}
  createAppointment: {roles: [local], lane: default}
users:
  source: static
  anyone: {roles: [local]}
`

// TestMemoryOfARequestIsWhatTheTablesSay sends requests of each profile through the
// whole pipeline on a real Redis, and then deletes what they left there, kind by kind,
// to see how many bytes each took, the allocator's roundings included. The tables may be
// off by 20%, since versions of Redis differ.
func TestMemoryOfARequestIsWhatTheTablesSay(t *testing.T) {
	t.Parallel()
	for _, p := range profiles {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			got, cpu := measure(t, p)
			t.Logf("%+v bytes, %.0f µs of Redis's CPU a request", got, cpu)
			for _, b := range []struct {
				name      string
				got, want float64
			}{
				{"requests", got.requests, p.bytes.requests}, {"responses", got.responses, p.bytes.responses},
				{"status", got.status, p.bytes.status}, {"ledger", got.ledger, p.bytes.ledger},
			} {
				if b.got < b.want*0.8 || b.got > b.want*1.2 {
					t.Errorf("a request leaves %.0f bytes in %s, the tables say %.0f: measure profiles anew, and -update the document", b.got, b.name, b.want)
				}
			}
		})
	}
}

func measure(t *testing.T, p profile) (left footprint, cpuMicros float64) {
	t.Helper()
	server := peertest.RealRedis(t)
	rdb := server.Client()
	pipeline := start(t, server.URL(), p.answer)
	before := info(t, rdb)
	for n := range sent {
		id := fmt.Sprintf("3f6c1d52-8a5e-4c39-9b1a-%012d", n)
		values := []string{"id", id, "action", p.action, "params", p.params, "userId", "kJ2h4bq8XkZ0mT5vR7yB1nC3dF6g",
			"timestamp", "2026-11-23T08:00:00.000Z", "correlationId", id}
		if err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: pipeline.Keys.Requests(), Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	peertest.Eventually(t, 2*time.Minute, "an answer to every request", func() bool {
		n, err := rdb.XLen(t.Context(), pipeline.Keys.Responses()).Result()
		return err == nil && n == sent
	})
	cpuMicros = (info(t, rdb)["used_cpu_user"] + info(t, rdb)["used_cpu_sys"] - before["used_cpu_user"] - before["used_cpu_sys"]) * 1e6 / sent
	pipeline.Close()
	var records []string
	for iter := rdb.Scan(t.Context(), 0, pipeline.Keys.Ledger("*"), 1000).Iterator(); iter.Next(t.Context()); {
		records = append(records, iter.Val())
	}
	if len(records) != sent {
		t.Fatalf("there are %d records, want %d", len(records), sent)
	}
	return footprint{
		requests:  freed(t, rdb, pipeline.Keys.Requests()),
		responses: freed(t, rdb, pipeline.Keys.Responses()),
		status:    freed(t, rdb, pipeline.Keys.Status()),
		ledger:    freed(t, rdb, records...),
	}, cpuMicros
}

// start starts a pipeline whose API answers with so many bytes.
func start(t *testing.T, redisURL string, answer int) *local.Pipeline {
	t.Helper()
	body := fmt.Sprintf(`{"success":true,"data":%q}`, strings.Repeat("x", answer-2))
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(body)) // the request would show that it did not arrive
	}))
	t.Cleanup(api.Close)
	opts := local.DefaultOptions()
	opts.Redis, opts.PHPAPI, opts.PHPAPIKey = redisURL, api.URL, "made-up"
	opts.PolicyFile = filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(opts.PolicyFile, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := local.Start(ctx, opts, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// freed deletes keys and returns how many bytes a request that gave free.
func freed(t *testing.T, rdb *redis.Client, keys ...string) float64 {
	t.Helper()
	before := info(t, rdb)["used_memory"]
	for len(keys) > 0 {
		n := min(len(keys), 100)
		if err := rdb.Del(t.Context(), keys[:n]...).Err(); err != nil {
			t.Fatal(err)
		}
		keys = keys[n:]
	}
	return (before - info(t, rdb)["used_memory"]) / sent
}

// info returns the numbers that Redis tells of its memory and CPU.
func info(t *testing.T, rdb *redis.Client) map[string]float64 {
	t.Helper()
	text, err := rdb.Info(t.Context(), "memory", "cpu").Result()
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			numbers[name] = number
		}
	}
	return numbers
}
