package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/redis/go-redis/v9"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// abyss is a Pub/Sub that accepts everything and keeps nothing. It counts
// messages without decoding them, so that it takes as little as it can of the
// time that is measured.
type abyss struct {
	addr     string
	accepted atomic.Int64
	arrived  chan time.Time // when each request came in, while anybody listens
}

func newAbyss(b testing.TB) *abyss {
	b.Helper()
	a := &abyss{arrived: make(chan time.Time, 1)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(countingCodec{encoding.GetCodecV2(proto.Name)}), grpc.MaxRecvMsgSize(11<<20),
		grpc.UnknownServiceHandler(a.publish))
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }() // it ends with Stop
	b.Cleanup(func() { server.Stop(); <-done })
	a.addr = ln.Addr().String()
	return a
}

// counted is a publish request of which only the number of messages is read.
type counted struct{ messages int }

// countingCodec reads the number of messages of a publish request.
type countingCodec struct{ encoding.CodecV2 }

func (c countingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	req, ok := v.(*counted)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	raw := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer raw.Free()
	const messagesField = 2
	for rest := raw.ReadOnlyData(); len(rest) > 0; {
		num, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if num == messagesField {
			req.messages++
		}
		rest = rest[n:]
	}
	return nil
}

func (a *abyss) publish(_ any, s grpc.ServerStream) error {
	var req counted
	if err := s.RecvMsg(&req); err != nil {
		return err
	}
	select {
	case a.arrived <- time.Now():
	default:
	}
	a.accepted.Add(int64(req.messages))
	return s.SendMsg(&pubsubpb.PublishResponse{MessageIds: make([]string, req.messages)})
}

func (a *abyss) client(b testing.TB) *pubsub.TopicAdminClient {
	b.Helper()
	client, err := pubsub.NewTopicAdminClient(b.Context(), publish.ClientOptions(a.addr)...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { client.Close() })
	return client
}

// workload is how many entries a round drains.
const workload = 50_000

// preload writes the workload, as a browser application would, to an empty stream.
func preload(b testing.TB, rdb *redis.Client, keys tebra.Keys) {
	b.Helper()
	if err := rdb.FlushDB(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	for n := 0; n < workload; {
		pipe := rdb.Pipeline()
		for range 1000 {
			n++
			id := fmt.Sprintf("3f6c1d52-8a5e-4c39-9b1a-%012d", n)
			pipe.XAdd(b.Context(), &redis.XAddArgs{Stream: keys.Requests(), Values: []string{
				"id", id, "action", "getHealthStatus", "params", `{"date":"2026-11-23","n":` + strconv.Itoa(n) + `}`,
				"userId", "kJ2h4bq8XkZ0", "timestamp", "2026-11-23T08:00:00.000Z", "correlationId", id}})
		}
		if _, err := pipe.Exec(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// floor is the least that any bridge does: it reads a batch, publishes its bytes
// as they are in one request, and acknowledges.
func floor(b testing.TB, rdb *redis.Client, keys tebra.Keys, client *pubsub.TopicAdminClient) {
	s := stream.New(rdb, keys)
	if _, err := s.EnsureGroups(b.Context()); err != nil {
		b.Fatal(err)
	}
	for done := 0; done < workload; {
		entries, err := s.Read(b.Context(), "floor", 500, time.Second)
		if err != nil {
			b.Fatal(err)
		}
		ids := make([]string, len(entries))
		messages := make([]*pubsubpb.PubsubMessage, len(entries))
		for i, e := range entries {
			var data []byte
			for _, f := range e.Fields {
				data = append(append(data, f...), ' ')
			}
			ids[i], messages[i] = e.ID, &pubsubpb.PubsubMessage{Data: data}
		}
		if _, err := client.Publish(b.Context(), &pubsubpb.PublishRequest{Topic: "projects/p/topics/t", Messages: messages}); err != nil {
			b.Fatal(err)
		}
		if err := s.Ack(b.Context(), ids); err != nil {
			b.Fatal(err)
		}
		done += len(entries)
	}
}

// newBenchBridge returns a bridge with everything on and no lane in its way. tel may be
// nil.
func newBenchBridge(b testing.TB, rdb *redis.Client, keys tebra.Keys, client *pubsub.TopicAdminClient, tel *telemetry.Telemetry) *Bridge {
	b.Helper()
	cfg := Config{
		MaxInFlight: 1_000_000, BatchSize: 500, Retention: 24 * time.Hour, AnswerDeadline: 2 * time.Hour,
		ClaimIdle: 150 * time.Second, MaxRequestBytes: tebra.DefaultMaxRequestBytes, LedgerTTL: 48 * time.Hour,
	}
	return New(cfg, Deps{
		Redis: rdb, Keys: keys, Ledger: ledger.New(rdb, keys, ledger.Config{}), Breaker: breaker.New(rdb, keys, breaker.Config{}),
		Policy: policy.Default(), Requests: publish.New(client, "projects/p/topics/t"), DeadLetters: publish.New(client, "projects/p/topics/d"),
		Log: slog.New(slog.DiscardHandler), Telemetry: tel,
	})
}

// drainAll runs a bridge until the workload is published and acknowledged, and
// returns how long that took, its start included and its end not: idle workers
// then wait out their last read.
func drainAll(b testing.TB, rdb *redis.Client, keys tebra.Keys, sink *abyss, client *pubsub.TopicAdminClient, tel *telemetry.Telemetry) (took time.Duration, cpu int64) {
	bridge := newBenchBridge(b, rdb, keys, client, tel)
	ctx, stop := context.WithCancel(b.Context())
	before, began, cpuBefore := sink.accepted.Load(), time.Now(), cpuMillis()
	finished := make(chan error, 1)
	go func() { finished <- bridge.Run(ctx) }()
	for bridge.counts.published.Load() < workload {
		sleep(b.Context(), time.Millisecond)
	}
	took, cpu = time.Since(began), cpuMillis()-cpuBefore
	stop()
	if err := <-finished; err != nil {
		b.Fatal(err)
	}
	if got := sink.accepted.Load() - before; got != workload {
		b.Fatalf("%d messages were published, want %d", got, workload)
	}
	return took, cpu
}

func benchRedis(b testing.TB) (*redis.Client, tebra.Keys) {
	b.Helper()
	TuneMemory()
	options, err := stream.Options(peertest.RealRedis(b).URL(), "")
	if err != nil {
		b.Fatal(err)
	}
	rdb := redis.NewClient(options)
	b.Cleanup(func() { rdb.Close() })
	keys, err := tebra.NewKeys("bench")
	if err != nil {
		b.Fatal(err)
	}
	return rdb, keys
}

// BenchmarkDrainAgainstFloor drains 50,000 waiting requests, in turns with the
// floor, and reports both rates, their ratio, and CPU time of this process (bridge
// and sink) per request.
func BenchmarkDrainAgainstFloor(b *testing.B) {
	rdb, keys := benchRedis(b)
	sink := newAbyss(b)
	client := sink.client(b)
	var floors, bridges, ratios, cpus, floorCPUs []float64
	for b.Loop() {
		preload(b, rdb, keys)
		began, cpuBefore := time.Now(), cpuMillis()
		floor(b, rdb, keys, client)
		floored, floorCPU := time.Since(began), cpuMillis()-cpuBefore
		preload(b, rdb, keys)
		took, cpu := drainAll(b, rdb, keys, sink, client, nil)
		floors, bridges = append(floors, workload/floored.Seconds()), append(bridges, workload/took.Seconds())
		ratios = append(ratios, floored.Seconds()/took.Seconds())
		cpus, floorCPUs = append(cpus, float64(cpu)*1000/workload), append(floorCPUs, float64(floorCPU)*1000/workload)
	}
	b.ReportMetric(median(floors), "floor-req/s")
	b.ReportMetric(median(bridges), "bridge-req/s")
	b.ReportMetric(median(ratios), "bridge/floor")
	b.ReportMetric(median(cpus), "bridge-µs-cpu/req")
	b.ReportMetric(median(floorCPUs), "floor-µs-cpu/req")
}

// BenchmarkTelemetryCost drains 50,000 waiting requests without telemetry and with all
// of it, metrics for two readers and one trace in a hundred, in turns, and reports
// both rates and their ratio.
func BenchmarkTelemetryCost(b *testing.B) {
	rdb, keys := benchRedis(b)
	sink := newAbyss(b)
	client := sink.client(b)
	tel, err := telemetry.New(b.Context(), telemetry.Config{Sampler: "parentbased_traceidratio", SamplerArg: "0.01"},
		telemetry.Options{Service: "bench", Spans: tracetest.NewNoopExporter(), Metrics: sdkmetric.NewManualReader()})
	if err != nil {
		b.Fatal(err)
	}
	var without, with, ratios []float64
	for b.Loop() {
		preload(b, rdb, keys)
		silent, _ := drainAll(b, rdb, keys, sink, client, nil)
		preload(b, rdb, keys)
		observed, _ := drainAll(b, rdb, keys, sink, client, tel)
		without, with = append(without, workload/silent.Seconds()), append(with, workload/observed.Seconds())
		ratios = append(ratios, silent.Seconds()/observed.Seconds())
	}
	b.ReportMetric(median(without), "silent-req/s")
	b.ReportMetric(median(with), "observed-req/s")
	b.ReportMetric(median(ratios), "observed/silent")
}

// BenchmarkDrain drains 50,000 waiting requests a round.
func BenchmarkDrain(b *testing.B) {
	rdb, keys := benchRedis(b)
	sink := newAbyss(b)
	client := sink.client(b)
	b.ReportAllocs()
	var total time.Duration
	for b.Loop() {
		b.StopTimer()
		preload(b, rdb, keys)
		b.StartTimer()
		took, _ := drainAll(b, rdb, keys, sink, client, nil)
		total += took
	}
	b.ReportMetric(float64(b.N)*workload/total.Seconds(), "req/s")
}

// BenchmarkIdleLatency measures from the XADD of one request into an idle bridge
// to its arrival at Pub/Sub.
func BenchmarkIdleLatency(b *testing.B) {
	rdb, keys := benchRedis(b)
	sink := newAbyss(b)
	bridge := newBenchBridge(b, rdb, keys, sink.client(b), nil)
	ctx, stop := context.WithCancel(b.Context())
	finished := make(chan error, 1)
	go func() { finished <- bridge.Run(ctx) }()
	defer func() {
		stop()
		if err := <-finished; err != nil {
			b.Fatal(err)
		}
	}()
	var took []float64
	for n := 0; b.Loop(); n++ {
		began := time.Now()
		if err := rdb.XAdd(b.Context(), &redis.XAddArgs{Stream: keys.Requests(), Values: []string{
			"id", strconv.Itoa(n), "action", "getHealthStatus", "userId", "u"}}).Err(); err != nil {
			b.Fatal(err)
		}
		took = append(took, float64((<-sink.arrived).Sub(began).Microseconds())/1000)
	}
	slices.Sort(took)
	b.ReportMetric(median(took), "p50-ms")
	b.ReportMetric(took[len(took)*99/100], "p99-ms")
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
