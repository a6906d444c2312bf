package deploy

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/bridge/internal/local"
	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

var update = flag.Bool("update", false, "write the generated files anew")

func TestMain(m *testing.M) { peertest.Main(m) }

// root is where this repository begins.
const root = "../../.."

// wait is for what should take a second or two.
const wait = 30 * time.Second

const (
	aclUser     = "tebra"
	aclPassword = "not-a-secret"
)

func TestTheACLFileIsWhatTheProgramsNeed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(root, "terraform", "redis.acl")
	want := RedisACL(aclUser, tebra.DefaultPrefix) + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s = %q, %v, want %q: go test ./bridge/internal/deploy -run ACL -update", path, got, err, want)
	}
}

func TestEverythingWorksUnderTheACLAndNothingElseDoes(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t, peertest.WithACL(RedisACL(aclUser, tebra.DefaultPrefix)+" >"+aclPassword))
	runEverything(t, server)
	rdb := aclClient(t, server)
	admin := server.Client()
	for _, args := range [][]any{
		{"CONFIG", "GET", "maxmemory-policy"}, {"FLUSHALL"}, {"FLUSHDB"}, {"KEYS", "*"}, {"SCAN", "0"}, {"ACL", "WHOAMI"},
		{"CLIENT", "LIST"}, {"XGROUP", "DESTROY", "tebra:requests", "bridge"}, {"SCRIPT", "FLUSH"},
		{"PUBLISH", "tebra:x", "y"}, {"SHUTDOWN"}, {"MONITOR"},
		{"GET", "another:key"}, {"XADD", "another:requests", "*", "a", "b"}, {"EVAL", "return redis.call('GET', 'another:key')", "0"},
		{"EVAL", "return redis.call('FLUSHALL')", "0"},
	} {
		err := rdb.Do(t.Context(), args...).Err()
		if refused := refusedCommands(t, admin); err == nil || len(refused) != 1 {
			t.Errorf("%v = %v, refused %v, want it refused", args, err, refused)
		}
		if err := admin.ACLLogReset(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAChangeIsCalledOnceReplicasKnowOfItUnderTheACL: with LEDGER_REPLICAS the ledger
// holds on to a connection.
func TestAChangeIsCalledOnceReplicasKnowOfItUnderTheACL(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t, peertest.WithACL(RedisACL(aclUser, tebra.DefaultPrefix)+" >"+aclPassword))
	peertest.RealRedis(t, peertest.WithReplicaOf(server))
	peertest.Eventually(t, wait, "the replica to follow", func() bool {
		info, err := server.Client().Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "state=online")
	})
	keys, err := tebra.NewKeys(tebra.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	l := ledger.New(aclClient(t, server), keys, ledger.Config{Replicas: 1})
	d := ledger.Delivery{Write: true, Fingerprint: "f", Envelope: tebra.Envelope{
		EntryID: "1-1", RequestID: "r", CorrelationID: "r", UserID: "u", Action: "createAppointment",
		Lane: tebra.DefaultLane, Ledger: tebra.LedgerHash("u", "r"), AdmittedAt: time.Now()}}
	d.Envelope.Epoch, _, err = l.Admit(t.Context(), []ledger.Admission{{Hash: d.Envelope.Ledger, EntryID: d.Envelope.EntryID, Fingerprint: d.Fingerprint}})
	if err != nil {
		t.Fatal(err)
	}
	claim, err := l.Claim(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context(), claim, time.Second); err != nil {
		t.Errorf("Start() = %v, want nil", err)
	}
	if refused := refusedCommands(t, server.Client()); len(refused) > 0 {
		t.Errorf("the server refused %v", refused)
	}
}

func TestAFreshACLLetsNobodyIn(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t, peertest.WithACL(RedisACL(aclUser, tebra.DefaultPrefix)))
	for _, password := range []string{"", aclPassword} {
		if err := server.Client().Do(t.Context(), "AUTH", aclUser, password).Err(); !redis.HasErrorPrefix(err, "WRONGPASS") {
			t.Errorf("AUTH with password %q = %v, want it refused", password, err)
		}
	}
}

func TestNothingIsSentThatMemorystoreBlocks(t *testing.T) {
	t.Parallel()
	rule := "user " + aclUser + " on ~* &* +@all"
	for _, command := range []string{"acl", "client", "command", "config", "cluster", "object", "monitor", "bgrewriteaof", "bgsave",
		"debug", "failover", "lastsave", "latency", "migrate", "module", "psync", "replicaof", "save", "shutdown", "slaveof", "sync", "swapdb"} {
		rule += " -" + command
	}
	server := peertest.RealRedis(t, peertest.WithACL(rule+" >"+aclPassword))
	runEverything(t, server)
}

// aclURL is how the user of the ACL reaches a server.
func aclURL(server *peertest.RedisServer) string {
	return "redis://" + aclUser + ":" + aclPassword + "@" + server.Addr()
}

// aclClient is a client as the programs make theirs.
func aclClient(t *testing.T, server *peertest.RedisServer) *redis.Client {
	t.Helper()
	options, err := stream.Options(aclURL(server), "")
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(options)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// runEverything sends requests of every kind through bridge, functions and gateway,
// all of them logged in as the ACL's user, and fails if one is not answered as it
// should be, or if the server refused a command.
func runEverything(t *testing.T, server *peertest.RedisServer) {
	t.Helper()
	opts := local.DefaultOptions()
	opts.Redis = aclURL(server)
	opts.MinBackoff, opts.MaxBackoff, opts.MaxAttempts = local.FastMinBackoff, local.FastMaxBackoff, 5
	pipeline := startPipeline(t, opts, wait)
	want := sendEveryKind(t, pipeline)
	throughGateway(t, aclClient(t, server))
	peertest.Eventually(t, 2*wait, "an answer to every request", func() bool { return maps.Equal(answers(t, pipeline.Redis, want), want) })
	lookAround(t, aclClient(t, server), pipeline.Keys)
	pipeline.Close() // with what a bridge does when it leaves
	if refused := refusedCommands(t, server.Client()); len(refused) > 0 {
		t.Errorf("the server refused %v", refused)
	}
}

// lookAround does what the commands that look at an installation do.
func lookAround(t *testing.T, rdb *redis.Client, keys tebra.Keys) {
	t.Helper()
	i := inspect.New(rdb, keys, policy.Default())
	if s, err := i.Status(t.Context(), time.Hour, nil); err != nil || len(s.Bridges) == 0 {
		t.Errorf("Status() = %+v, %v, want a bridge", s, err)
	}
	requests, _, err := i.History(t.Context(), inspect.HistoryQuery{Limit: 10})
	if err != nil || len(requests) == 0 {
		t.Fatalf("History() = %v, %v, want requests", requests, err)
	}
	if traces, err := i.Trace(t.Context(), inspect.TraceQuery{ID: requests[0].RequestID}); err != nil || len(traces) == 0 {
		t.Errorf("Trace() = %v, %v, want one", traces, err)
	}
	watch, err := i.NewWatch(t.Context(), inspect.Filter{})
	if err == nil {
		_, err = watch.Next(t.Context())
	}
	if err != nil {
		t.Errorf("watching: %v", err)
	}
}

func startPipeline(t *testing.T, opts local.Options, within time.Duration) *local.Pipeline {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	p, err := local.Start(ctx, opts, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatalf("Start() = %v", err)
	}
	t.Cleanup(p.Close)
	return p
}

// sendEveryKind sends a request of each kind, and returns which error code, empty
// for success, each must be answered with.
func sendEveryKind(t *testing.T, p *local.Pipeline) map[string]string {
	t.Helper()
	want := map[string]string{}
	send := func(id, action, params string, code tebra.ErrorCode) {
		t.Helper()
		err := p.Redis.XAdd(t.Context(), &redis.XAddArgs{Stream: p.Keys.Requests(), Values: []string{
			"id", id, "action", action, "params", params, "userId", "u-1", "correlationId", id}}).Err()
		if err != nil {
			t.Fatal(err)
		}
		want[id] = string(code)
	}
	send("read", "health", `{}`, "")
	send("write", "createAppointment", `{"appointmentData":{"a":1}}`, "")
	send("lost", "createAppointment", `{"appointmentData":{"a":1},"_behave":"act-drop"}`, tebra.OutcomeUnknown)
	send("rejected", "health", `{"_behave":"400"}`, tebra.Rejected)
	send("failing", "health", `{"_behave":"500"}`, tebra.DeadLettered)
	send("garbled", "health", `{"_behave":"text"}`, tebra.BadResponse)
	send("unknown", "noSuchAction", `{}`, tebra.UnknownAction)
	send("malformed", "health", `[object Object]`, tebra.Malformed)
	for i := range 4 { // more than its lane's rate at once
		send(fmt.Sprint("limited-", i), "getProviders", `{}`, "")
	}
	return want
}

// answers returns the error codes of those requests that are answered.
func answers(t *testing.T, rdb *redis.Client, want map[string]string) map[string]string {
	t.Helper()
	messages, err := rdb.XRange(t.Context(), "tebra:responses", "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range messages {
		id, _ := m.Values["requestId"].(string)
		code, _ := m.Values["errorCode"].(string)
		if _, asked := want[id]; asked {
			got[id] = code
		}
	}
	return got
}

// anyUser believes that a token is its user's name.
type anyUser struct{}

func (anyUser) Verify(_ context.Context, token string) (gateway.Identity, error) {
	return gateway.Identity{UserID: token}, nil
}

// throughGateway posts a request and reads its answer from the event stream, twice:
// as it comes, and from the beginning.
func throughGateway(t *testing.T, rdb *redis.Client) {
	t.Helper()
	cfg, err := config.Load[gateway.Config]([]string{"REDIS_URL=redis://unused", "FUNCTION_TARGET=Gateway", "GOOGLE_CLOUD_PROJECT=p"})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(cfg, gateway.Deps{Redis: rdb, Verifier: anyUser{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	web := httptest.NewServer(g)
	defer func() {
		stop()
		<-done
		web.Close()
	}()
	var posted struct{ Since string }
	for range 2 { // the second is the first repeated
		resp := gatewayDo(t, web.URL+"/v1/requests", `{"id":"from-browser","action":"health"}`)
		if err := json.NewDecoder(resp.Body).Decode(&posted); err != nil || resp.StatusCode != http.StatusAccepted {
			t.Fatalf("POST /v1/requests = %d, %v, want 202", resp.StatusCode, err)
		}
	}
	for range 2 {
		if got := gatewayDo(t, web.URL+"/v1/events?since="+url.QueryEscape(posted.Since), ""); !sees(got, "tebra:responses", "from-browser") {
			t.Fatalf("GET /v1/events = %d without the answer", got.StatusCode)
		}
	}
}

// gatewayDo posts a body, or gets without one, in a user's name.
func gatewayDo(t *testing.T, address, body string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	t.Cleanup(cancel)
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer u-browser")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// sees reads an event stream until a line holds all of parts.
func sees(resp *http.Response, parts ...string) bool {
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		missing := slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(lines.Text(), part) })
		if !missing {
			return true
		}
	}
	return false
}

// refusedCommands returns what a server's ACL has refused, in scripts as well.
func refusedCommands(t *testing.T, admin *redis.Client) []string {
	t.Helper()
	entries, err := admin.ACLLog(t.Context(), 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	var refused []string
	for _, entry := range entries {
		refused = append(refused, fmt.Sprintf("%s %s (%s, %d times)", entry.Reason, entry.Object, entry.Context, entry.Count))
	}
	return refused
}
