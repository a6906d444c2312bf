package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/durationpb"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// What must show nowhere but in payloads, and our keys nowhere at all. All of them
// begin alike, so that a piece of one is found too.
const (
	mark          = "XYZZY"
	inParams      = mark + "-in-params-Jane-Doe"
	inMetadata    = mark + "-in-metadata"
	inData        = mark + "-in-data"
	inError       = mark + "-in-error"
	inHeader      = mark + "-in-header"
	inBadEntry    = mark + "-in-a-bad-entry"
	apiKeyCanary  = mark + "-api-key"
	redisPassword = mark + "-redis-password"
	inOrigin      = mark + "-in-origin"
	inToken       = mark + "-in-a-token"

	// A name from outside is echoed to who asked, in Redis and in Pub/Sub, but must not
	// be in logs, spans and metrics where it is text.
	nameMark = "Plugh"
	inName   = nameMark + " in a name, Jane Doe"
)

// leakyAPI is an API that puts what it was sent, and what it knows, into everything
// that it answers with. The params' member "do" says how.
type leakyAPI struct {
	mu   sync.Mutex
	keys map[string]bool // that it was asked with
}

func (a *leakyAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.keys[r.Header.Get("X-API-Key")] = true
	a.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var call struct{ Params struct{ Do string } }
	_ = json.Unmarshal(body, &call)
	w.Header().Set("X-Patient", inHeader)
	w.Header().Set("Retry-After", inHeader)
	failure := fmt.Sprintf(`{"success":false,"error":%q,"type":%q,"fault_string":%q,"echo":%s}`, inError, inError, inError, body)
	switch call.Params.Do {
	case "400", "403", "404", "418", "429", "500", "503":
		var status int
		fmt.Sscan(call.Params.Do, &status)
		w.WriteHeader(status)
		io.WriteString(w, failure)
	case "refuse":
		io.WriteString(w, failure)
	case "throttle":
		io.WriteString(w, `{"success":true,"data":{"message":"429: GetPatients endpoint requested more than allowed over time interval 1000 milliseconds `+inError+`"}}`)
	case "denied":
		io.WriteString(w, `{"success":true,"data":{"SecurityResponse":{"Authenticated":false,"SecurityResult":"`+inError+`"}}}`)
	case "text":
		io.WriteString(w, "<html>"+inError+"</html>")
	case "half":
		w.Header().Set("Content-Length", "100000")
		io.WriteString(w, `{"success":true,"data":{"name":"`+inData)
	case "redirect":
		http.Redirect(w, r, "http://127.0.0.1:1/"+inHeader, http.StatusFound)
	case "drop", "garbage":
		a.raw(w, call.Params.Do)
	default:
		fmt.Fprintf(w, `{"success":true,"data":{"name":%q,"echo":%s}}`, inData, body)
	}
}

// raw answers with no HTTP at all, or nothing.
func (a *leakyAPI) raw(w http.ResponseWriter, do string) {
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if do == "garbage" {
		fmt.Fprintf(buf, "HTTP/1.1 200 OK\r\n%s without a colon\r\n%s: \x01\r\n\r\n%s", inHeader, inHeader, inData)
		buf.Flush()
	}
}

// leakRun is the whole pipeline with canaries in everything that may hold some.
type leakRun struct {
	*testing.T
	pipeline *local.Pipeline
	redisURL string
	log      *slog.Logger
	logs     output
	std      output // what is printed by package log
	spans    *tracetest.InMemoryExporter
	api      *leakyAPI
	subs     *pubsub.SubscriptionAdminClient
	sent     int
	payloads strings.Builder // what is left out of the search
	answers  string          // what was searched of the responses stream
}

func newLeakRun(t *testing.T) *leakRun {
	t.Helper()
	l := &leakRun{T: t, spans: tracetest.NewInMemoryExporter(), api: &leakyAPI{keys: map[string]bool{}}}
	before := log.Writer()
	log.SetOutput(&l.std)
	t.Cleanup(func() { log.SetOutput(before) })
	server := peertest.RealRedis(t, peertest.WithACL("user tebra on >"+redisPassword+" ~* &* +@all"))
	l.redisURL = "redis://tebra:" + redisPassword + "@" + server.Addr()
	web := httptest.NewServer(l.api)
	t.Cleanup(web.Close)
	opts := local.DefaultOptions()
	opts.MinBackoff, opts.MaxBackoff, opts.MaxAttempts = local.FastMinBackoff, local.FastMaxBackoff, 5
	opts.Redis, opts.PHPAPI, opts.PHPAPIKey, opts.Spans = l.redisURL, web.URL, apiKeyCanary, l.spans
	opts.Environ = []string{"PHP_TIMEOUT=2s", "MAX_REQUEST_BYTES=20000"}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var err error
	l.log = telemetry.NewLogger(&l.logs, slog.LevelDebug, telemetry.InProject("p"))
	l.pipeline, err = local.Start(ctx, opts, l.log)
	if err != nil {
		t.Fatalf("Start() = %v", err)
	}
	t.Cleanup(l.pipeline.Close)
	l.subs, err = pubsub.NewSubscriptionAdminClient(t.Context(), publish.ClientOptions(l.pipeline.Info.PubSubEmulator)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.subs.Close() })
	_, err = l.subs.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name: l.subscription("everything"), Topic: l.topic(l.pipeline.Info.RequestsTopic), AckDeadlineSeconds: 600,
		MessageRetentionDuration: durationpb.New(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *leakRun) topic(name string) string {
	return "projects/" + l.pipeline.Info.Project + "/topics/" + name
}

func (l *leakRun) subscription(name string) string {
	return "projects/" + l.pipeline.Info.Project + "/subscriptions/" + name
}

// send puts an entry on the requests stream.
func (l *leakRun) send(fields ...string) {
	l.Helper()
	l.sent++
	if err := l.pipeline.Redis.XAdd(l.Context(), &redis.XAddArgs{Stream: l.pipeline.Keys.Requests(), Values: fields}).Err(); err != nil {
		l.Fatal(err)
	}
}

// call sends a request with canaries that the API answers in a certain way.
func (l *leakRun) call(action, do string) {
	l.Helper()
	params := fmt.Sprintf(`{"do":%q,"appointmentData":{"patient":%q}}`, do, inParams)
	l.send("id", action+"-"+do, "action", action, "params", params, "userId", "u", "correlationId", "c-"+do,
		"_metadata", `{"note":"`+inMetadata+`"}`, "timestamp", inMetadata, "traceparent", "00-"+inMetadata)
}

// everything sends a request of every kind.
func (l *leakRun) everything() {
	l.Helper()
	for _, action := range []string{"health", inName} { // first, as the first have log lines of their own
		l.send("id", action+inName, "action", action, "userId", "u", "correlationId", inName)
		l.send("id", action+inName+"2", "action", action, "userId", inName, "correlationId", inName)
	}
	l.send("id", inName, "action", inName, "userId", inName, "correlationId", inName, "params", "[")
	for i := range 100 { // so many that the breaker, which counts failures among them, stays closed
		l.send("id", fmt.Sprint("ok-", i), "action", "health", "params", `{"patient":"`+inParams+`"}`, "userId", "u")
	}
	for _, do := range []string{"ok", "refuse", "400", "418", "429", "500", "throttle", "text", "half", "redirect", "drop", "garbage"} {
		l.call("health", do)
		l.call("createAppointment", do)
	}
	l.call("noSuchAction", "ok")
	l.send("message", `{"id":"wrapped","action":"health","params":{"patient":"`+inParams+`"},"userId":"u"}`)
	l.send("id", "object", "action", "health", "params", "[object "+inBadEntry+"]", "userId", "u")
	l.send("id", "twice", "action", "health", "params", `{"a":"`+inBadEntry+`"}`, "params", `{}`, "userId", "u")
	l.send("id", "bytes", "action", "health", "params", `{"a":"`+inBadEntry+"\xff"+`"}`, "userId", "u")
	l.send("id", "large", "action", "health", "params", `{"a":"`+strings.Repeat(inBadEntry, 2000)+`"}`, "userId", "u")
	l.send("id", "metadata", "action", "health", "userId", "u", "_metadata", `{"publishedBy":7,"note":"`+inBadEntry+`"}`)
	l.send("id", "nobody", "action", "health", "params", `{"a":"`+inBadEntry+`"}`)
}

// tokens knows one token, and says of no other what it is.
type tokens struct{}

func (tokens) Verify(_ context.Context, token string) (gateway.Identity, error) {
	if token != "u" {
		return gateway.Identity{}, &gateway.TokenError{Code: "token_invalid", Message: "no such token"}
	}
	return gateway.Identity{UserID: token}, nil
}

// throughTheGateway posts and listens in every way, and searches what the gateway
// counts. Its log and spans are with the others.
func (l *leakRun) throughTheGateway() {
	l.Helper()
	tel, err := telemetry.New(l.Context(), telemetry.Config{}, telemetry.Options{Service: "gateway", Spans: l.spans})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	cfg := gateway.Config{Origins: []string{"https://app.example.com"}, UserRate: 20, StreamTime: time.Minute,
		MaxStreams: 10, MaxUserStreams: 10, MaxRequestBytes: 20000, Retention: time.Hour}
	cfg.Prefix = l.pipeline.Keys.Prefix()
	g, err := gateway.New(cfg, gateway.Deps{Redis: l.pipeline.Redis, Verifier: tokens{}, Log: l.log, Telemetry: tel})
	if err != nil {
		l.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Run(ctx) }()
	web := httptest.NewServer(g)
	l.Cleanup(func() { stop(); <-done; web.Close() })
	do := func(method, path, token, body string, header ...string) *http.Response {
		req, err := http.NewRequestWithContext(l.Context(), method, web.URL+path, strings.NewReader(body))
		if err != nil {
			l.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			l.Fatal(err)
		}
		l.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	const posts = "/v1/requests"
	body := fmt.Sprintf(`{"action":"health","id":%q,"correlationId":%q,"params":{"patient":%q}}`, "posted", inName, inParams)
	if resp := do("POST", posts, "u", body, "traceparent", "00-"+inHeader, "X-Patient", inHeader); resp.StatusCode != 202 {
		l.Fatalf("POST = %d, want 202", resp.StatusCode)
	}
	l.sent++
	for _, bad := range []string{inParams, `{"` + inParams + `":1}`, `{"action":"health","params":"` + inParams + `"}`,
		strings.Replace(body, "patient", "another", 1), `{"action":"health","params":{"a":"` + strings.Repeat(inParams, 2000) + `"}}`} {
		do("POST", posts, "u", bad)
	}
	do("POST", posts, inToken, body)
	do("POST", posts, "u", body, "Origin", "https://"+inOrigin)
	do("POST", posts, "u", body, "Content-Type", inHeader)
	do(strings.ToUpper(mark), posts, "u", "")
	do("GET", "/"+inParams, "u", "")
	do("GET", "/v1/events?since="+inParams, "u", "")
	events := do("GET", "/v1/events?since=status:0-0,responses:0-0", "u", "")
	if text, err := bufio.NewReader(events.Body).ReadString('\n'); err != nil || !strings.Contains(text, "ready") {
		l.Errorf("the event stream begins with %q, %v", text, err)
	}
	for range 30 {
		do("POST", posts, "u", inParams)
	}
	page := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for _, outcome := range []string{"success", "malformed", "duplicate", "too_large", "token_invalid", "origin_not_allowed", "rate_limited", "unsupported_media_type"} {
		if !strings.Contains(page.Body.String(), `outcome="`+outcome+`"`) {
			l.Errorf("the gateway counted no %s", outcome)
		}
	}
	l.search("the gateway's metrics", page.Body.String())
	l.searchNames("the gateway's metrics", page.Body.String())
}

// TestNoHealthDataLeaks runs requests of every kind through the whole pipeline with
// marked words in all that may hold health data, and in our own keys, and searches
// everything that comes out beside the payloads.
func TestNoHealthDataLeaks(t *testing.T) {
	t.Parallel()
	l := newLeakRun(t)
	l.everything()
	l.throughTheGateway()
	peertest.Eventually(t, 90*time.Second, "an answer to every request", func() bool {
		return l.length(l.pipeline.Keys.Responses()) == l.sent
	})
	l.searchCommands()
	l.searchPubSub()
	l.searchMetrics()
	l.searchRedis()
	l.searchSpans()
	l.pipeline.Close() // all has been said then
	l.search("the logs", l.logs.String())
	l.searchNames("the logs", l.logs.String())
	l.search("what package log printed", l.std.String())
	l.searchNames("what package log printed", l.std.String())
	l.wantCanariesInPayloads()
}

func (l *leakRun) length(stream string) int {
	n, err := l.pipeline.Redis.XLen(l.Context(), stream).Result()
	if err != nil {
		l.Fatal(err)
	}
	return int(n)
}

// search fails if a text holds a canary.
func (l *leakRun) search(where, text string) {
	l.Helper()
	if at := strings.Index(text, mark); at >= 0 {
		l.Errorf("%s: …%q", where, text[max(0, at-200):min(len(text), at+60)])
	}
}

// searchNames fails if a text holds a name that somebody outside made up.
func (l *leakRun) searchNames(where, text string) {
	l.Helper()
	if at := strings.Index(text, nameMark); at >= 0 {
		l.Errorf("%s: …%q", where, text[max(0, at-200):min(len(text), at+60)])
	}
}

// searchCommands looks at what the command line prints to who did not ask for
// payloads.
func (l *leakRun) searchCommands() {
	l.Helper()
	env := []string{"REDIS_URL=" + l.redisURL, "GOOGLE_CLOUD_PROJECT=" + l.pipeline.Info.Project, "PUBSUB_EMULATOR_HOST=" + l.pipeline.Info.PubSubEmulator,
		"TEBRA_PHP_API_URL=" + l.pipeline.Info.PHPAPI, "TEBRA_INTERNAL_API_KEY=" + apiKeyCanary}
	letters := func(args ...string) string {
		c := &command{args: append([]string{"deadletters", "--operator", "ada@desk"}, args...), env: env}
		c.run(l.T, l.Context())
		return c.stdout.String() + c.stderr.String()
	}
	id := letterIDs(letters("list", "--output", "json"))
	for _, args := range [][]string{
		{"list"}, {"list", "--output", "json"}, {"show", id["createAppointment-drop"]}, {"show", id["health-500"]}, {"show", id["object"]},
		{"replay", id["health-500"]}, {"replay", id["createAppointment-drop"]}, {"drop", id["object"], "--yes"},
	} {
		got := letters(args...)
		if !strings.Contains(got, "createAppointment-drop") && !strings.Contains(got, args[len(args)-1]) && !strings.Contains(got, id["object"]) {
			l.Errorf("tebra deadletters %v printed %q, want something about it", args, got)
		}
		l.search(fmt.Sprint("tebra deadletters ", args), got)
	}
	letters("drop", id[inName], "--yes")
	shown := letters("show", id["createAppointment-half"], "--show-payloads")
	if !strings.Contains(shown, inParams) {
		l.Errorf("tebra deadletters show --show-payloads = %s, want the params", shown)
	}
	for _, args := range [][]string{
		{"doctor"}, {"status"}, {"status", "--output", "json"}, {"history", "--limit", "500"}, {"history", "--output", "json"},
		{"trace", "createAppointment-drop"}, {"trace", "object", "--output", "json"}, {"watch"},
	} {
		ctx, cancel := context.WithTimeout(l.Context(), 3*time.Second) // watch goes on for ever
		look := &command{args: args, env: env}
		look.run(l.T, ctx)
		cancel()
		if args[0] == "trace" && !strings.Contains(look.stdout.String(), args[1]) {
			l.Errorf("tebra %v printed %q, %q, want the request", args, look.stdout.String(), look.stderr.String())
		}
		l.search(fmt.Sprint("tebra ", args), look.stdout.String()+look.stderr.String())
	}
	peertest.Eventually(l.T, 20*time.Second, "that payloads were shown, and two letters dropped, in the audit log", func() bool {
		return strings.Contains(l.logs.String(), `"operation":"payloads.shown"`) &&
			strings.Count(l.logs.String(), `"operation":"deadletters.drop"`) == 2
	})
}

// letterIDs returns the dead letters' IDs by request, from a list as JSON.
func letterIDs(list string) map[string]string {
	ids := map[string]string{}
	for line := range strings.Lines(list) {
		var letter jsonLetter
		if json.Unmarshal([]byte(line), &letter) == nil {
			ids[letter.RequestID] = letter.ID
		}
	}
	return ids
}

// searchPubSub looks at the attributes of every message.
func (l *leakRun) searchPubSub() {
	l.Helper()
	for _, name := range []string{"everything", l.pipeline.Info.InspectSubscription} {
		seen := 0
		for {
			ctx, cancel := context.WithTimeout(l.Context(), time.Second)
			got, err := l.subs.Pull(ctx, &pubsubpb.PullRequest{Subscription: l.subscription(name), MaxMessages: 100})
			cancel()
			if err != nil || len(got.GetReceivedMessages()) == 0 {
				break
			}
			for _, m := range got.GetReceivedMessages() {
				seen++
				l.search("an attribute of a message in "+name, fmt.Sprint(m.GetMessage().GetAttributes()))
			}
		}
		if seen < 5 {
			l.Errorf("%d messages were found in %s, want most of those that were sent", seen, name)
		}
	}
}

func (l *leakRun) searchMetrics() {
	l.Helper()
	resp, err := http.Get(l.pipeline.Health + "/metrics")
	if err != nil {
		l.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		l.Fatal(err)
	}
	for _, want := range []string{"tebra_requests_answered_total", "tebra_dead_letters_total", "tebra_in_flight_requests", `action="other"`} {
		if !strings.Contains(string(text), want) {
			l.Errorf("the metrics lack %s", want)
		}
	}
	l.search("the metrics", string(text))
	l.searchNames("the metrics", string(text))
}

// payloads are the fields of the streams that may hold what people typed.
var payloads = map[string][]string{
	"tebra:requests":  {"params", "_metadata", "message", "timestamp", "traceparent"},
	"tebra:responses": {"data", "error"},
}

// searchRedis looks at every key, and at everything in it that is no payload.
func (l *leakRun) searchRedis() {
	l.Helper()
	kinds := map[string]int{}
	iter := l.pipeline.Redis.Scan(l.Context(), 0, "*", 1000).Iterator()
	for iter.Next(l.Context()) {
		key := iter.Val()
		l.search("the name of a key", key)
		kind, contents := l.contents(key)
		kinds[kind]++
		if key == l.pipeline.Keys.Responses() {
			l.answers = contents
		}
		l.search("key "+key, contents)
	}
	if err := iter.Err(); err != nil {
		l.Fatal(err)
	}
	for _, kind := range []string{"stream", "hash", "set", "string"} {
		if kinds[kind] == 0 {
			l.Errorf("no %s was found in Redis: %v", kind, kinds)
		}
	}
}

// contents returns what a key holds, without payloads.
func (l *leakRun) contents(key string) (kind, text string) {
	l.Helper()
	ctx, rdb := l.Context(), l.pipeline.Redis
	kind = rdb.Type(ctx, key).Val()
	var all any
	var err error
	switch kind {
	case "stream":
		var entries []redis.XMessage
		entries, err = rdb.XRange(ctx, key, "-", "+").Result()
		for _, e := range entries {
			for name := range e.Values {
				if slices.Contains(payloads[key], name) {
					fmt.Fprintln(&l.payloads, e.Values[name])
					delete(e.Values, name)
				}
			}
		}
		all = entries
	case "hash":
		all, err = rdb.HGetAll(ctx, key).Result()
	case "set":
		all, err = rdb.SMembers(ctx, key).Result()
	case "zset":
		all, err = rdb.ZRange(ctx, key, 0, -1).Result()
	case "string":
		all, err = rdb.Get(ctx, key).Result()
	default:
		l.Errorf("key %s is of type %s, which this test does not know", key, kind)
	}
	if err != nil {
		l.Fatal(err)
	}
	return kind, fmt.Sprint(all)
}

func (l *leakRun) searchSpans() {
	l.Helper()
	spans := l.spans.GetSpans()
	names := map[string]int{}
	for _, s := range spans {
		names[s.Name]++
		text := fmt.Sprint(s.Name, s.Attributes, s.Events, s.Links, s.Status, s.Resource.Attributes(), s.SpanContext.TraceState())
		l.search("span "+s.Name, text)
		l.searchNames("span "+s.Name, text)
	}
	for _, name := range []string{"wait in Redis", "send requests topic", "wait in Pub/Sub", "process requests topic", "POST", "answer", "send dead-letters topic", "POST /v1/requests"} {
		if names[name] == 0 {
			l.Errorf("no span is called %q: %v", name, names)
		}
	}
}

// wantCanariesInPayloads makes sure that the canaries were on their way at all: a test
// that sends none finds none.
func (l *leakRun) wantCanariesInPayloads() {
	l.Helper()
	l.api.mu.Lock()
	defer l.api.mu.Unlock()
	if !l.api.keys[apiKeyCanary] || len(l.api.keys) != 1 {
		l.Errorf("the API was asked with %d keys, want only the canary", len(l.api.keys))
	}
	if !strings.Contains(l.answers, inName) || !strings.Contains(l.logs.String(), tebra.Digest(inName)) {
		l.Errorf("nobody was called %q", inName)
	}
	for _, canary := range []string{inParams, inMetadata, inData, inError, inBadEntry} {
		if !strings.Contains(l.payloads.String(), canary) {
			l.Errorf("no payload holds %s", canary)
		}
	}
}
