package functions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// benchAnswer is what the API answers with in a benchmark, at once.
const benchAnswer = `{"success":true,"data":{"success":true,"appointments":[],"count":0}}`

// benchWorkers is how many requests are under way at a time: process_concurrency's
// default, which is what Cloud Run gives an instance.
const benchWorkers = 20

// bareHandler does the least that has to be done about a push: it decodes the
// envelope, makes the same call over a connection that is kept, and writes one
// entry. It says nothing of what came before and keeps no promise.
type bareHandler struct {
	url    string
	client *http.Client
	rdb    redis.UniversalClient
	stream string
}

func (h *bareHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := h.call(r)
	if err == nil {
		err = h.rdb.XAdd(r.Context(), &redis.XAddArgs{Stream: h.stream, Values: data}).Err()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *bareHandler) call(r *http.Request) ([]string, error) {
	var envelope struct {
		Message struct {
			Data       []byte            `json:"data"`
			Attributes map[string]string `json:"attributes"`
			MessageID  string            `json:"messageId"`
		} `json:"message"`
	}
	if err := json.NewDecoder(r.Body).Decode(&envelope); err != nil {
		return nil, err
	}
	var request struct {
		ID            string          `json:"id"`
		Action        string          `json:"action"`
		Params        json.RawMessage `json:"params"`
		UserID        string          `json:"userId"`
		CorrelationID string          `json:"correlationId"`
	}
	if err := json.Unmarshal(envelope.Message.Data, &request); err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"action": request.Action, "params": request.Params})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-API-Key", testKey)
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return []string{"requestId", request.ID, "correlationId", request.CorrelationID, "status", "success", "data", string(answer)}, err
}

// BenchmarkAgainstBare alternates between ProcessRequest and the bare handler, both
// behind the same kind of server and over one real Redis, and reports how many
// requests a second each does, and the ratio of the two: the price of the promises.
// net/http-ratio is the same against the bare handler behind net/http's server
// without a timeout and without the framework's routes.
func BenchmarkAgainstBare(b *testing.B) {
	server := peertest.RealRedis(b)
	f := newFixture(b, server, func(f *fixture) {
		f.url = f.serveAPI(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, benchAnswer) }))
		f.deps.Log = telemetry.NewLogger(io.Discard, slog.LevelInfo)
	})
	options, err := stream.Options(server.URL(), "")
	f.must(err)
	rdb := redis.NewClient(options)
	b.Cleanup(func() { rdb.Close() })
	bare := &bareHandler{
		url: f.url, rdb: rdb, stream: "bare",
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchWorkers}},
	}
	b.Cleanup(bare.client.CloseIdleConnections)
	ours := start(b, defaultTiming(time.Minute), map[string]http.Handler{ProcessRequest: f.processor()})
	theirs := start(b, defaultTiming(time.Minute), map[string]http.Handler{ProcessRequest: bare})
	plain := httptest.NewServer(bare)
	b.Cleanup(plain.Close)

	pusher := &pusher{b: b, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchWorkers}}}
	b.Cleanup(pusher.client.CloseIdleConnections)
	const chunk = 400
	pusher.push(theirs.url+"/"+ProcessRequest, chunk) // warm them
	pusher.push(plain.URL, chunk)
	pusher.push(ours.url+"/"+ProcessRequest, chunk)
	var ourTime, theirTime, plainTime time.Duration
	n := 0
	for b.Loop() {
		theirTime += pusher.push(theirs.url+"/"+ProcessRequest, chunk)
		plainTime += pusher.push(plain.URL, chunk)
		ourTime += pusher.push(ours.url+"/"+ProcessRequest, chunk)
		n += chunk
	}
	b.ReportMetric(float64(n)/theirTime.Seconds(), "bare-req/s")
	b.ReportMetric(float64(n)/ourTime.Seconds(), "handler-req/s")
	b.ReportMetric(theirTime.Seconds()/ourTime.Seconds(), "ratio")
	b.ReportMetric(plainTime.Seconds()/ourTime.Seconds(), "net/http-ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkTelemetryCost alternates between ProcessRequest without telemetry and with
// all of it, metrics for two readers and one trace in a hundred, and reports how many
// requests a second each does, and the ratio of the two.
func BenchmarkTelemetryCost(b *testing.B) {
	server := peertest.RealRedis(b)
	f := newFixture(b, server, func(f *fixture) {
		f.url = f.serveAPI(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, benchAnswer) }))
		f.deps.Log = telemetry.NewLogger(io.Discard, slog.LevelInfo)
	})
	silent := start(b, defaultTiming(time.Minute), map[string]http.Handler{ProcessRequest: f.processor()})
	tel, err := telemetry.New(b.Context(), telemetry.Config{Sampler: "parentbased_traceidratio", SamplerArg: "0.01"},
		telemetry.Options{Service: "bench", Spans: tracetest.NewNoopExporter(), Metrics: sdkmetric.NewManualReader()})
	f.must(err)
	f.deps.Telemetry = tel.Functions([]string{"syncSchedule"}, []string{tebra.DefaultLane})
	observed := start(b, defaultTiming(time.Minute), map[string]http.Handler{
		ProcessRequest: f.deps.Telemetry.Handler(ProcessRequest, f.processor()),
	})

	pusher := &pusher{b: b, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchWorkers}}}
	b.Cleanup(pusher.client.CloseIdleConnections)
	const chunk = 400
	pusher.push(silent.url+"/"+ProcessRequest, chunk) // warm both
	pusher.push(observed.url+"/"+ProcessRequest, chunk)
	var without, with []float64
	var ratios []float64
	for n := 0; b.Loop(); n++ {
		var s, o time.Duration
		if n%2 == 0 { // neither always comes second
			s = pusher.push(silent.url+"/"+ProcessRequest, chunk)
		}
		o = pusher.push(observed.url+"/"+ProcessRequest, chunk)
		if n%2 == 1 {
			s = pusher.push(silent.url+"/"+ProcessRequest, chunk)
		}
		without, with = append(without, chunk/s.Seconds()), append(with, chunk/o.Seconds())
		ratios = append(ratios, s.Seconds()/o.Seconds())
	}
	slices.Sort(ratios)
	slices.Sort(without)
	slices.Sort(with)
	b.ReportMetric(without[len(without)/2], "silent-req/s")
	b.ReportMetric(with[len(with)/2], "observed-req/s")
	b.ReportMetric(ratios[len(ratios)/2], "observed/silent")
	b.ReportMetric(0, "ns/op")
}

// pusher pushes messages that never came before.
type pusher struct {
	b      *testing.B
	client *http.Client
	sent   int
}

// push pushes n messages with benchWorkers at a time, and returns how long that took.
func (p *pusher) push(url string, n int) time.Duration {
	bodies := make(chan []byte, n)
	for range n {
		p.sent++
		bodies <- benchBody(fmt.Sprint("request-", p.sent))
	}
	close(bodies)
	began := time.Now()
	var workers sync.WaitGroup
	for range benchWorkers {
		workers.Go(func() {
			for body := range bodies {
				p.one(url, body)
			}
		})
	}
	workers.Wait()
	return time.Since(began)
}

func (p *pusher) one(url string, body []byte) {
	resp, err := p.client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		p.b.Error(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(resp.Body)
		p.b.Errorf("push = %d %s, want 204", resp.StatusCode, text)
	}
}

func benchBody(id string) []byte {
	now := time.Now()
	req := tebra.Request{
		ID: id, CorrelationID: id, Action: "syncSchedule", UserID: testUser, Timestamp: "2026-01-02T03:04:05Z",
		Params: []byte(`{"date":"2026-01-02","note":"` + strings.Repeat("x", 200) + `"}`),
	}
	env := tebra.Envelope{
		RequestID: id, CorrelationID: id, Action: req.Action, UserID: req.UserID, Lane: tebra.DefaultLane, Epoch: "e",
		EntryID: fmt.Sprintf("%d-0", now.UnixNano()), Ledger: tebra.LedgerHash(req.UserID, id), AdmittedAt: now,
	}
	return message{env, req.AppendJSON(nil)}.body()
}
