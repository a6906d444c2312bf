package cli

import (
	"context"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/tebra"
)

// twoWays is a PHP API and a pipeline whose answers differ where a test wants it.
type twoWays struct {
	*testing.T
	redis *peertest.RedisServer
	api   *phptest.Server
	url   string
}

// newTwoWays starts both. play is the pipeline; the API is phptest's.
func newTwoWays(t *testing.T, play func(*fakePipeline, tebra.Request)) *twoWays {
	t.Helper()
	w := &twoWays{T: t, redis: peertest.Redis(t), api: phptest.New(phptest.Config{APIKey: "key"})}
	server := httptest.NewServer(w.api)
	t.Cleanup(server.Close)
	w.url = server.URL + "/api"
	answering(t, w.redis, "tebra", play)
	return w
}

func (w *twoWays) compare(args ...string) *command {
	return &command{args: append([]string{"compare", "--user", "u1", "--operator", "ada@desk"}, args...), env: []string{
		"REDIS_URL=" + w.redis.URL(), "TEBRA_PHP_API_URL=" + w.url, "TEBRA_INTERNAL_API_KEY=key",
	}}
}

// changed is a pipeline that gives the API's own answers, but for what is changed.
func changed(t *testing.T, change func(string) string) func(*fakePipeline, tebra.Request) {
	t.Helper()
	server := httptest.NewServer(phptest.New(phptest.Config{APIKey: "key"}))
	t.Cleanup(server.Close)
	client, err := php.New(php.Config{URL: server.URL + "/api", APIKey: "key"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return func(p *fakePipeline, r tebra.Request) {
		answer := client.Call(context.Background(), php.Request{Action: r.Action, Params: r.Params})
		p.answer(r, tebra.Response{Data: []byte(change(string(answer.Data))), Attempts: 1})
	}
}

var (
	uuidText   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	tookText   = regexp.MustCompile(` +[+-]?\d+(\.\d+)? m?s\b`)
	headerText = regexp.MustCompile(`RESULT +DIRECT +STREAMS +ADDED`)
	tookJSON   = regexp.MustCompile(`"(direct|streams|p50|p95)Ms":\d+`)
)

func unhurried(text string) string {
	text = uuidText.ReplaceAllString(text, "REQUEST-ID")
	text = strings.ReplaceAll(text, "+TIME", "+1 ms") // of which the golden files know already
	text = tookText.ReplaceAllString(text, "  N ms")
	text = headerText.ReplaceAllString(text, "RESULT  DIRECT  STREAMS  ADDED")
	return tookJSON.ReplaceAllString(text, `"${1}Ms":N`)
}

// TestCompareSaysWhatAnAnswerWaitsFor.
func TestCompareSaysWhatAnAnswerWaitsFor(t *testing.T) {
	t.Parallel()
	w := newTwoWays(t, func(*fakePipeline, tebra.Request) {})
	c := w.compare("getProviders", "--timeout", "4s")
	c.expect(t, c.run(t, t.Context()), exitFailed, "waiting: no bridge lives (never heard of): requests wait unread\n")
}

func TestCompareShowsWhereAnswersDiffer(t *testing.T) {
	t.Parallel()
	other := func(data string) string { return strings.ReplaceAll(data, "Testa", secretText) }
	for _, test := range []struct {
		golden string
		change func(string) string
		args   []string
		stdin  string
		exit   int
	}{
		{"same", strings.Clone, []string{"searchPatients", "lastName=Smith"}, "", exitOK},
		{"differs", other, []string{"getPatient", "patientId=7"}, "", exitFailed},
		{"json", other, []string{"getPatient", "patientId=7", "--output", "json"}, "", exitFailed},
		{"payloads", other, []string{"getPatient", "patientId=7", "--show-payloads"}, "", exitFailed},
		{"file", other, []string{"--file", "-"}, `{"action":"getProviders"}` + "\n\n" + `{"action":"getPatient","params":{"patientId":"7"}}` + "\n", exitFailed},
		{"file-json", strings.Clone, []string{"--file", "-", "--output", "json"}, `{"action":"getProviders"}` + "\n", exitOK},
	} {
		t.Run(test.golden, func(t *testing.T) {
			t.Parallel()
			w := newTwoWays(t, changed(t, test.change))
			c := w.compare(test.args...)
			c.stdin, c.change = test.stdin, unhurried
			exit := c.run(t, t.Context())
			c.expect(t, exit, test.exit)
			c.golden(t, "compare-"+test.golden, exit)
			shown := slices.Contains(test.args, "--show-payloads")
			if got := strings.Contains(c.stdout.String()+c.stderr.String(), secretText); got != shown {
				t.Errorf("what stands there is shown: %v, want %v", got, shown)
			}
			want := 0
			if shown {
				want = 1
			}
			if got := entries(t, w.redis, "tebra:audit"); len(got) != want {
				t.Errorf("on record is %v, want %d", got, want)
			}
		})
	}
}

func TestCompareIgnoresWhatItIsTold(t *testing.T) {
	t.Parallel()
	w := newTwoWays(t, changed(t, func(data string) string { return strings.ReplaceAll(data, "Testa", "X") }))
	plainly := w.compare("getPatient", "patientId=7", "--output", "json")
	plainly.expect(t, plainly.run(t, t.Context()), exitFailed)
	args := []string{"getPatient", "patientId=7"}
	for _, path := range regexp.MustCompile(`"path":"([^"]+)"`).FindAllStringSubmatch(plainly.stdout.String(), -1) {
		args = append(args, "--ignore", path[1])
	}
	c := w.compare(args...)
	c.expect(t, c.run(t, t.Context()), exitOK)
}

func TestCompareMakesReadsOnly(t *testing.T) {
	t.Parallel()
	w := newTwoWays(t, succeeds)
	for _, test := range []struct {
		args  []string
		stdin string
		want  string
	}{
		{[]string{"createAppointment"}, "", "createAppointment changes something"},
		{[]string{"deleteEverything"}, "", "the policy does not know the action"},
		{[]string{"--file", "-"}, `{"action":"getProviders"}` + "\n" + `{"action":"updateAppointment"}`, "line 2 of -: updateAppointment changes something, and would be made twice; only reads are compared; nothing was asked"},
		{[]string{"--file", "-"}, "\n", "there is no request"},
		{[]string{"--file", "/nowhere"}, "", "no such file"},
		{[]string{"--file", "-", "--params", "{}"}, "{}", "--params is about one request"},
		{nil, "", "want either ACTION"},
		{[]string{"health", "--file", "-"}, "", "want either ACTION"},
		{[]string{"health", "--timeout", "0s"}, "", "--timeout"},
	} {
		c := w.compare(test.args...)
		c.stdin = test.stdin
		c.expect(t, c.run(t, t.Context()), exitUsage, test.want)
	}
	c := w.compare("health")
	c.env = c.env[:1]
	c.expect(t, c.run(t, t.Context()), exitUsage, "which PHP API? Set TEBRA_PHP_API_URL")
	if calls, requests := w.api.Journal(), entries(t, w.redis, "tebra:requests"); len(calls)+len(requests) > 0 {
		t.Errorf("%v was called and %v put on the stream, want nothing", calls, requests)
	}
}

func TestWhatHasNoAnswerIsNotCalledTheSame(t *testing.T) {
	t.Parallel()
	silent := newTwoWays(t, func(*fakePipeline, tebra.Request) {})
	c := silent.compare("health", "--timeout", "300ms")
	c.expect(t, c.run(t, t.Context()), exitFailed, "of 1 compared, 0 differ and 1 can't be")
	if !strings.Contains(c.stdout.String(), "no answer came through the streams within 300ms") {
		t.Errorf("it printed\n%swant why there is nothing to compare", c.stdout.String())
	}
	down := newTwoWays(t, succeeds)
	down.api.Down()
	c = down.compare("health")
	c.expect(t, c.run(t, t.Context()), exitFailed, "1 can't be")

	refused := newTwoWays(t, refuses)
	c = refused.compare("health")
	c.expect(t, c.run(t, t.Context()), exitFailed, "1 differ")
	if out := c.stdout.String(); !strings.Contains(out, "$.status") || strings.Contains(out, "no such date") {
		t.Errorf("it printed\n%swant that one is an error, and not the API's words", out)
	}
}

func TestACompareThatIsInterruptedSaysHowFarItCame(t *testing.T) {
	t.Parallel()
	w := newTwoWays(t, func(*fakePipeline, tebra.Request) {})
	ctx, cancel := context.WithCancel(t.Context())
	c := w.compare("health")
	wait := c.start(t, ctx)
	peertest.Eventually(t, 10*time.Second, "the request to be on the stream", func() bool {
		return len(entries(t, w.redis, "tebra:requests")) > 0
	})
	cancel()
	c.expect(t, wait(), exitInterrupted, "0 of 1 requests were compared")
}

func TestBothWaysAnswerTheSameThroughARealPipeline(t *testing.T) {
	t.Parallel()
	opts := local.DefaultOptions()
	opts.Redis = peertest.Redis(t).URL()
	_, tebra := startLocal(t, opts)
	c := tebra("compare", "--file", "-")
	c.stdin = `{"action":"getProviders"}` + "\n" + `{"action":"getPatient","params":{"patientId":"7"}}` + "\n" + `{"action":"getPatient","params":{"_behave":"fail=2"}}`
	c.expect(t, c.run(t, t.Context()), exitOK)
	if !strings.Contains(c.stdout.String(), "3 compared: 3 the same, 0 different, 0 not comparable") {
		t.Errorf("it printed\n%swant three that are the same", c.stdout.String())
	}
}

func TestCompareHidesNamesThatMayBeContents(t *testing.T) {
	t.Parallel()
	w := newTwoWays(t, changed(t, func(data string) string {
		return strings.Replace(data, "{", `{"`+secretText+`, 1961":1,"`+secretText+`, 1962":2,`, 1)
	}))
	for _, test := range []struct {
		args  []string
		shown bool
	}{{nil, false}, {[]string{"--output", "json"}, false}, {[]string{"--show-payloads"}, true}} {
		c := w.compare(append([]string{"getPatient", "patientId=7"}, test.args...)...)
		c.expect(t, c.run(t, t.Context()), exitFailed)
		text := c.stdout.String() + c.stderr.String()
		if got := strings.Contains(text, secretText); got != test.shown {
			t.Errorf("compare %q shows the names: %v, want %v:\n%s", test.args, got, test.shown, text)
		}
	}
}
