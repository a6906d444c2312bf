package functions

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// believer takes every token for its user's name.
type believer struct{}

func (believer) Verify(_ context.Context, token string) (gateway.Identity, error) {
	return gateway.Identity{UserID: token}, nil
}

// TestAnEventStreamOutlastsTheServersDeadlines: those are for short requests.
func TestAnEventStreamOutlastsTheServersDeadlines(t *testing.T) {
	t.Setenv("FUNCTION_TARGET", "Gateway") // all paths are its own
	rdb := peertest.RealRedis(t).Client()
	g, err := gateway.New(gateway.Config{
		Redis: config.Redis{Prefix: "tebra"}, UserRate: 1, StreamTime: time.Minute, MaxStreams: 1, MaxUserStreams: 1,
		MaxRequestBytes: 1 << 20, Retention: time.Hour,
	}, gateway.Deps{Redis: rdb, Verifier: believer{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	timing := timing{
		readHeader: 5 * time.Second, read: 200 * time.Millisecond, write: 200 * time.Millisecond, idle: time.Minute,
		drain: time.Second, giveBack: time.Second,
	}
	server := start(t, timing, map[string]http.Handler{"Gateway": g})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.url+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer u")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	in := bufio.NewReader(response.Body)
	awaitLine(t, in, "event: ready")
	<-time.After(3 * timing.read)
	rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: "tebra:responses", Values: tebra.Response{
		ID: "a", RequestID: "r", CorrelationID: "r", Timestamp: time.Now(), UserID: "u", Action: "health"}.Fields()})
	awaitLine(t, in, "data: {\"type\":\"update\"")
}

// awaitLine reads up to the line that begins like that.
func awaitLine(t *testing.T, in *bufio.Reader, beginning string) {
	t.Helper()
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended before %q: %v", beginning, err)
		}
		if strings.HasPrefix(line, beginning) {
			return
		}
	}
}
