package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"tebraproxy/pkg/config"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(peertest.TestingM{M: m}) }

// patience is for what is expected to come by itself.
const patience = 20 * time.Second

const listed = "https://app.example.com"

// fakeTokens believes a token "NAME", and refuses those with a reason in them.
type fakeTokens struct {
	expires time.Duration // from when a token is shown; 0 for never
	revoked atomic.Bool
}

func (f *fakeTokens) Verify(_ context.Context, token string) (Identity, error) {
	switch {
	case f.revoked.Load():
		return Identity{}, &TokenError{"token_revoked", "revoked"}
	case token == "expired":
		return Identity{}, &TokenError{"token_expired", "expired"}
	case token == "nobody-answers":
		return Identity{}, io.ErrUnexpectedEOF
	}
	who := Identity{UserID: token}
	if f.expires > 0 {
		who.Expires = time.Now().Add(f.expires)
	}
	return who, nil
}

// fixture is a gateway over a Redis, served on loopback.
type fixture struct {
	t      testing.TB
	cfg    Config
	g      *Gateway
	rdb    *redis.Client // the test's own
	keys   tebra.Keys
	tokens *fakeTokens
	url    string

	telemetry *telemetry.Telemetry // nil observes nothing
}

var prefixes atomic.Int64

// newFixture makes a gateway; change may alter it before it runs.
func newFixture(t testing.TB, server *peertest.RedisServer, change func(*fixture)) *fixture {
	t.Helper()
	f := &fixture{t: t, rdb: server.Client(), tokens: &fakeTokens{}, cfg: Config{
		Redis: config.Redis{Prefix: fmt.Sprintf("g%d", prefixes.Add(1))}, Origins: []string{listed},
		UserRate: 1000, StreamTime: 50 * time.Minute, MaxStreams: 1000, MaxUserStreams: 20,
		MaxRequestBytes: 1 << 20, Retention: 24 * time.Hour,
	}}
	if change != nil {
		change(f)
	}
	var err error
	f.keys, err = tebra.NewKeys(f.cfg.Prefix)
	f.must(err)
	options, err := stream.Options(server.URL(), "")
	f.must(err)
	rdb := redis.NewClient(options)
	f.g, err = New(f.cfg, Deps{Redis: rdb, Verifier: f.tokens, Log: slog.New(slog.DiscardHandler), Telemetry: f.telemetry})
	f.must(err)
	if change != nil {
		change(f)
	}
	f.url = f.serve(f.g, rdb)
	return f
}

// serve runs the gateway until the test ends. Its writes are not buffered by the
// kernel as much as usual, so that a slow reader shows.
func (f *fixture) serve(g *Gateway, rdb *redis.Client) string {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	server := httptest.NewUnstartedServer(g)
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if tcp, ok := c.(*net.TCPConn); ok && state == http.StateNew {
			_ = tcp.SetWriteBuffer(4 << 10)
		}
	}
	server.Start()
	f.t.Cleanup(func() {
		stop()
		<-done
		server.Close()
		rdb.Close()
	})
	return server.URL
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// do makes a request in a user's name.
func (f *fixture) do(method, path, user, body string, header ...string) *http.Response {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, strings.NewReader(body))
	f.must(err)
	req.Header.Set("Content-Type", "application/json")
	if user != "" {
		req.Header.Set("Authorization", "Bearer "+user)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	f.must(err)
	f.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// post sends a request, and returns the status and what was answered.
func (f *fixture) post(user, body string, header ...string) (int, accepted, string) {
	f.t.Helper()
	resp := f.do(http.MethodPost, "/v1/requests", user, body, header...)
	raw, err := io.ReadAll(resp.Body)
	f.must(err)
	var ok accepted
	var bad refusal
	if resp.StatusCode == http.StatusAccepted {
		f.must(json.Unmarshal(raw, &ok))
	} else {
		f.must(json.Unmarshal(raw, &bad))
		if bad.Error.Code == "" || bad.Error.Message == "" {
			f.t.Errorf("status %d without code and message: %s", resp.StatusCode, raw)
		}
	}
	return resp.StatusCode, ok, bad.Error.Code
}

// entries returns the requests stream.
func (f *fixture) entries() []redis.XMessage {
	f.t.Helper()
	all, err := f.rdb.XRange(f.t.Context(), f.keys.Requests(), "-", "+").Result()
	f.must(err)
	return all
}

// say writes a status of a user's request; answer writes its answer.
func (f *fixture) say(user, id string) string {
	f.t.Helper()
	entry, err := f.rdb.XAdd(context.WithoutCancel(f.t.Context()), &redis.XAddArgs{Stream: f.keys.Status(), Values: tebra.StatusUpdate{
		CorrelationID: id, RequestID: id, State: tebra.Processing, Timestamp: time.Now(), UserID: user, Action: "health", Attempt: 1,
	}.Fields()}).Result()
	f.must(err)
	return entry
}

func (f *fixture) answer(user, id, data string) string {
	f.t.Helper()
	entry, err := f.rdb.XAdd(context.WithoutCancel(f.t.Context()), &redis.XAddArgs{Stream: f.keys.Responses(), Values: tebra.Response{
		ID: "a-" + id, RequestID: id, CorrelationID: id, Data: json.RawMessage(data), Timestamp: time.Now(), UserID: user, Action: "health",
	}.Fields()}).Result()
	f.must(err)
	return entry
}

// listener reads an event stream.
type listener struct {
	f    *fixture
	resp *http.Response
	in   *bufio.Reader
	last string // the last id
}

// received is one block of an event stream.
type received struct {
	event, data, comment string
	update               struct {
		Type, ID, Timestamp, Stream string
		Data                        map[string]string
	}
}

// listen opens an event stream, and returns it once it is ready.
func (f *fixture) listen(user, last string) *listener {
	f.t.Helper()
	l := &listener{f: f, resp: f.do(http.MethodGet, "/v1/events", user, "", "Last-Event-ID", last)}
	if l.resp.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(l.resp.Body)
		f.t.Fatalf("GET /v1/events = %d: %s", l.resp.StatusCode, raw)
	}
	l.in = bufio.NewReader(l.resp.Body)
	return l
}

// next returns the next block, an error when the stream has ended.
func (l *listener) next() (received, error) {
	var r received
	last := l.last
	for {
		line, err := l.in.ReadString('\n')
		if err != nil {
			return r, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			last = value // it counts once the block is whole, which a lost connection may cut
		case "event":
			r.event = value
		case "data":
			r.data = value
		case "":
			r.comment = value
		}
	}
	l.last = last
	if r.event == "" && r.data != "" {
		if err := json.Unmarshal([]byte(r.data), &r.update); err != nil {
			return r, err
		}
	}
	return r, nil
}

// updates returns the entry IDs of the next n updates.
func (l *listener) updates(n int) []string {
	l.f.t.Helper()
	var ids []string
	timer := time.AfterFunc(patience, func() { l.resp.Body.Close() })
	defer timer.Stop()
	for len(ids) < n {
		r, err := l.next()
		if err != nil {
			l.f.t.Fatalf("after %d of %d updates: %v", len(ids), n, err)
		}
		if r.update.Type == "update" {
			ids = append(ids, r.update.ID)
			timer.Reset(patience) // for each: many large ones take a busy machine long
		}
	}
	return ids
}

func (l *listener) close() { l.resp.Body.Close() }

// padded is JSON text of n bytes.
func padded(n int) string { return `"` + string(bytes.Repeat([]byte("x"), n-2)) + `"` }

// xadd is an XADD of fields and values.
func xadd(key string, values ...string) *redis.XAddArgs {
	return &redis.XAddArgs{Stream: key, Values: values}
}
