package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// to returns args with what makes it a request to server with known IDs.
func to(server *peertest.RedisServer, args ...string) []string {
	return append(args, "--redis", server.URL(), "--user", "u1", "--id", "r1", "--correlation-id", "c1")
}

func TestSendShowsWhatBecomesOfARequest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		golden   string
		play     func(*fakePipeline, tebra.Request)
		args     []string
		env      []string
		terminal bool
		want     int
	}{
		{"success", succeeds, nil, nil, false, exitOK},
		{"success-json", succeeds, []string{"--output", "json"}, nil, false, exitOK},
		{"success-terminal", succeeds, nil, nil, true, exitOK},
		{"success-terminal-no-color", succeeds, nil, []string{"NO_COLOR=1"}, true, exitOK},
		{"success-terminal-no-color", succeeds, nil, []string{"TERM=dumb"}, true, exitOK},
		{"retried", recovers, nil, nil, false, exitOK},
		{"retried-json", recovers, []string{"-o", "json"}, nil, false, exitOK},
		{"refused", refuses, nil, nil, false, exitFailed},
		{"refused-json", refuses, []string{"-o", "json"}, nil, false, exitFailed},
		{"refused-terminal", refuses, nil, nil, true, exitFailed},
	}
	for _, test := range tests {
		t.Run(test.golden, func(t *testing.T) {
			t.Parallel()
			server := peertest.Redis(t)
			answering(t, server, "tebra", test.play)
			c := &command{args: append(to(server, "send", "syncSchedule", "date=2026-11-23"), test.args...), env: test.env, terminal: test.terminal}
			got := c.run(t, t.Context())
			if got != test.want {
				t.Errorf("exit code = %d, want %d", got, test.want)
			}
			c.golden(t, test.golden, got)
		})
	}
}

func TestSendPrintsDataThatIsNotJSON(t *testing.T) {
	t.Parallel()
	tests := []struct {
		data, format, want string
	}{
		{"plain \"text\"", "table", "plain \"text\"\n"},
		{"plain \"text\"", "json", `"data":"plain \"text\""`},
		{"", "table", "null\n"},
		{"", "json", `"data":null`},
	}
	for _, test := range tests {
		t.Run(test.data+" as "+test.format, func(t *testing.T) {
			t.Parallel()
			server := peertest.Redis(t)
			answering(t, server, "tebra", func(p *fakePipeline, r tebra.Request) {
				p.answer(r, tebra.Response{Data: []byte(test.data), Attempts: 1})
			})
			c := &command{args: to(server, "send", "health", "--output", test.format)}
			c.expect(t, c.run(t, t.Context()), exitOK)
			if got := c.stdout.String(); !strings.Contains(got, test.want) {
				t.Errorf("stdout = %q, want %q in it", got, test.want)
			}
		})
	}
}

func TestSendWritesTheFlatForm(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	c := &command{args: to(server, "send", "syncSchedule", "date=2026-11-23", "--no-wait")}
	before := time.Now().Truncate(time.Millisecond)
	c.expect(t, c.run(t, t.Context()), exitOK)
	c.golden(t, "no-wait", exitOK)

	all := entries(t, server, "tebra:requests")
	if len(all) != 1 {
		t.Fatalf("the stream has %d entries, want 1", len(all))
	}
	got := all[0]
	sent, err := time.Parse(time.RFC3339, got[9])
	if err != nil || sent.Before(before) || sent.After(time.Now()) {
		t.Errorf("timestamp = %q, want the time of sending", got[9])
	}
	got[9] = "T"
	want := []string{"id", "r1", "action", "syncSchedule", "params", `{"date":"2026-11-23"}`, "userId", "u1", "timestamp", "T", "correlationId", "c1"}
	if !slices.Equal(got, want) {
		t.Errorf("entry = %q, want %q", got, want)
	}
	if _, err := tebra.DecodeEntry(all[0], tebra.DefaultMaxRequestBytes); err != nil {
		t.Errorf("DecodeEntry() of the entry = %v, want nil", err)
	}
}

func TestSendMakesIDsOfItsOwn(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for range 2 {
		c := &command{args: []string{"send", "health", "--no-wait", "--redis", server.URL(), "--user", "u1"}}
		c.expect(t, c.run(t, t.Context()), exitOK)
	}
	all := entries(t, server, "tebra:requests")
	if len(all) != 2 || len(all[0][1]) != 36 || all[0][1] == all[1][1] {
		t.Errorf("entries = %q, want two with different UUIDs", all)
	}
	if all[0][11] != all[0][1] {
		t.Errorf("correlationId = %q, want the id %q", all[0][11], all[0][1])
	}
}

func TestSendReadsParams(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "params.json")
	if err := os.WriteFile(file, []byte("\n {\"from\": \"a file\"} \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		args  []string
		stdin string
		want  string
	}{
		{"none", nil, "", `{}`},
		{"text", []string{"a=1", "b=", "c=x=y"}, "", `{"a":"1","b":"","c":"x=y"}`},
		{"typed", []string{"n:=7", "b:=true", `o:={"x":[1]}`, "s:=\"t\""}, "", `{"n":7,"b":true,"o":{"x":[1]},"s":"t"}`},
		{"text that looks typed", []string{"a=b:=c"}, "", `{"a":"b:=c"}`},
		{"the order is kept", []string{"z=1", "a=2"}, "", `{"z":"1","a":"2"}`},
		{"other scripts and quotes", []string{`naïve="ü"<&>`}, "", `{"naïve":"\"ü\"<&>"}`},
		{"a big number keeps its digits", []string{"n:=12345678901234567890.5"}, "", `{"n":12345678901234567890.5}`},
		{"--params", []string{"--params", `{"b": 1, "a": 2}`}, "", `{"b": 1, "a": 2}`},
		{"a file", []string{"--params", "@" + file}, "", `{"from": "a file"}`},
		{"stdin", []string{"--params", "-"}, "{\"from\":\"stdin\"}\n", `{"from":"stdin"}`},
		{"stdin is left alone", []string{"a=1"}, `{"not":"asked for"}`, `{"a":"1"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := peertest.Redis(t)
			c := &command{args: append(to(server, "send", "health", "--no-wait"), test.args...), stdin: test.stdin}
			c.expect(t, c.run(t, t.Context()), exitOK)
			all := entries(t, server, "tebra:requests")
			if len(all) != 1 || all[0][5] != test.want {
				t.Errorf("entries = %q, want one with the params %s", all, test.want)
			}
		})
	}
}

func TestSendRefusesBadUsageAndSendsNothing(t *testing.T) {
	t.Parallel()
	big := filepath.Join(t.TempDir(), "big.json")
	if err := os.WriteFile(big, bytes.Repeat([]byte(" "), maxParams+1), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		args  []string
		stdin string
		want  string
	}{
		{"no action", []string{}, "", "which ACTION?"},
		{"unknown flag", []string{"health", "--bogus"}, "", "unknown flag: --bogus"},
		{"no value", []string{"health", "date"}, "", `argument "date": want key=value`},
		{"no key", []string{"health", "=1"}, "", "the key is empty"},
		{"no typed key", []string{"health", ":=1"}, "", "the key is empty"},
		{"bad JSON", []string{"health", "n:=seven"}, "", `argument "n:=…": what follows := is not JSON; for text use n=`},
		{"not UTF-8", []string{"health", "n=\xff"}, "", "is not UTF-8"},
		{"twice", []string{"health", "a=1", "a:=2"}, "", `"a" is given twice`},
		{"params twice", []string{"health", "a=1", "--params", "{}"}, "", "the params are given twice"},
		{"params are not JSON", []string{"health", "--params", "date=1"}, "", "field params: is not JSON"},
		{"params are a list", []string{"health", "--params", "[1]"}, "", "is a JSON array, not a JSON object"},
		{"an object from JavaScript", []string{"health", "--params", "-"}, "[object Object]", "JSON.stringify"},
		{"no file", []string{"health", "--params", "@/nowhere/params.json"}, "", "no such file"},
		{"too large a file", []string{"health", "--params", "@" + big}, "", "more than 8388608 bytes"},
		{"nothing on stdin", []string{"health", "--params", "-"}, " \n", "there is nothing in it"},
		{"no timeout", []string{"health", "--timeout", "0s"}, "", "--timeout is 0s"},
		{"not a timeout", []string{"health", "--timeout", "soon"}, "", `invalid argument "soon"`},
		{"timeout without waiting", []string{"health", "--timeout", "1s", "--no-wait"}, "", "--no-wait and --timeout exclude each other"},
		{"not a format", []string{"health", "--output", "yaml"}, "", "want table or json"},
		{"no format", []string{"health", "--output", ""}, "", "want table or json"},
		{"empty action", []string{""}, "", "field action: is missing or empty"},
		{"long action", []string{strings.Repeat("a", 257)}, "", "field action: has 257 bytes; at most 256 are allowed"},
		{"long user", []string{"health", "--user", strings.Repeat("u", 257)}, "", "field userId: has 257 bytes"},
		{"empty prefix", []string{"health", "--prefix", ""}, "", "--prefix is empty"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := peertest.Redis(t)
			args := slices.Concat([]string{"send", "--redis", server.URL(), "--user", "u1"}, test.args)
			c := &command{args: args, stdin: test.stdin}
			c.expect(t, c.run(t, t.Context()), exitUsage, test.want, "tebra: ", "See 'tebra send --help'.")
			if lines := strings.Count(c.stderr.String(), "\n"); lines > 2 || c.stdout.String() != "" {
				t.Errorf("printed stdout %q and %d lines of stderr, want no more than the error and a hint", c.stdout.String(), lines)
			}
			if all := entries(t, server, "tebra:requests"); len(all) != 0 {
				t.Errorf("the stream has %q, want nothing", all)
			}
		})
	}
}

func TestSendKeepsValuesOutOfItsErrors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"send", "health", "name:=Secretname"},
		{"send", "health", "name=\xffSecretname"},
		{"send", "health", "name=Secretname", "name=Secretname"},
		{"send", "health", "name=Secretname", "--params", "{}"},
		{"send", "health", "--user", "u1", "--params", `"Secretname"`, "--redis", "redis://127.0.0.1:1"},
		{"send", "health", "--user", "u1", "--redis", "redis://:Secretname@127.0.0.1:1"},
		{"send", "health", "--user", "u1", "--redis", "http://:Secretname@127.0.0.1:1"},
	} {
		c := &command{args: args}
		if got := c.run(t, t.Context()); got == exitOK {
			t.Errorf("tebra %q = exit code 0, want an error", args)
		}
		if strings.Contains(c.stderr.String(), "Secretname") {
			t.Errorf("tebra %q printed %s, want no value or password in it", args, c.stderr.String())
		}
	}
}

// noteRun makes it look as if a local pipeline ran on server.
func noteRun(t *testing.T, server *peertest.RedisServer, prefix string) (env string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "local.json")
	info := local.Info{PID: os.Getpid(), Started: time.Now(), RedisURL: server.URL(), Prefix: prefix}
	if err := local.WriteDiscovery(path, info); err != nil {
		t.Fatal(err)
	}
	return local.DiscoveryVariable + "=" + path
}

func TestSendFindsTheRunningLocalPipeline(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	answering(t, server, "{mine}", succeeds)
	// STREAM_PREFIX is meant for another pipeline.
	c := &command{args: []string{"send", "syncSchedule"}, env: []string{noteRun(t, server, "{mine}"), "STREAM_PREFIX=other", "REDIS_CA_CERT=other.pem"}}
	c.expect(t, c.run(t, t.Context()), exitOK, "syncSchedule for local-user")
	if all := entries(t, server, "{mine}:requests"); len(all) != 1 || all[0][7] != "local-user" {
		t.Errorf("entries = %q, want one by local-user", all)
	}
}

func TestSendPrefersTheFlagToTheEnvironmentToTheLocalPipeline(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		flag   bool
		prefix string // --prefix
		env    bool
		want   string // which server, and the stream
	}{
		{"all three", true, "", true, "flag from-env:requests"},
		{"flag and local", true, "", false, "flag tebra:requests"},
		{"environment and local", false, "", true, "env from-env:requests"},
		{"local only", false, "", false, "local noted:requests"},
		{"--prefix over the environment", true, "given", true, "flag given:requests"},
		{"--prefix over the local pipeline", false, "given", false, "local given:requests"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			servers := map[string]*peertest.RedisServer{"flag": peertest.Redis(t), "env": peertest.Redis(t), "local": peertest.Redis(t)}
			c := &command{args: []string{"send", "health", "--no-wait", "--user", "u1"}, env: []string{noteRun(t, servers["local"], "noted")}}
			if test.flag {
				c.args = append(c.args, "--redis", servers["flag"].URL())
			}
			if test.prefix != "" {
				c.args = append(c.args, "--prefix", test.prefix)
			}
			if test.env {
				c.env = append(c.env, "REDIS_URL="+servers["env"].URL(), "STREAM_PREFIX=from-env")
			}
			c.expect(t, c.run(t, t.Context()), exitOK)
			var got []string
			for name, server := range servers {
				keys, err := server.Client().Keys(t.Context(), "*").Result()
				if err != nil {
					t.Fatal(err)
				}
				for _, key := range keys {
					got = append(got, name+" "+key)
				}
			}
			if !slices.Equal(got, []string{test.want}) {
				t.Errorf("written to %q, want %q", got, test.want)
			}
		})
	}
}

func TestSendSaysWhatToDoWithoutAPipeline(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "broken.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		env  []string
		want []string
	}{
		{"nowhere", nil, nil, []string{"no local pipeline is running", "--redis", "REDIS_URL", "tebra local"}},
		{"a broken note", nil, []string{local.DiscoveryVariable + "=" + broken}, []string{"remove " + broken}},
		{"nobody asks", []string{"--redis", "redis://127.0.0.1:1"}, nil, []string{"who asks? Give --user"}},
		{"nobody asks, by the environment", nil, []string{"REDIS_URL=redis://127.0.0.1:1"}, []string{"who asks? Give --user"}},
		{"no URL", []string{"--redis", "127.0.0.1:6379"}, nil, []string{"from --redis, can't be used"}},
		{"no URL in the environment", nil, []string{"REDIS_URL=127.0.0.1:6379"}, []string{"from the environment, can't be used"}},
		{"a certificate for nothing", []string{"--redis", "redis://127.0.0.1:1", "--redis-ca-cert", "ca.pem"}, nil, []string{"rediss://"}},
		{"a bad prefix", []string{"--redis", "redis://127.0.0.1:1", "--prefix", "a b"}, nil, []string{`stream prefix "a b"`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := &command{args: append([]string{"send", "health"}, test.args...), env: test.env}
			c.expect(t, c.run(t, t.Context()), exitUsage, test.want...)
		})
	}
}

func TestSendFailsWhenRedisDoesNotAnswer(t *testing.T) {
	t.Parallel()
	c := &command{args: []string{"send", "health", "--user", "u1", "--redis", "redis://127.0.0.1:1"}}
	c.expect(t, c.run(t, t.Context()), exitFailed, "connection refused", "nothing was sent", "is Redis running")
}

func TestSendSaysWhenRedisRefusedTheRequest(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	if err := server.Client().Set(t.Context(), "tebra:requests", "not a stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	c := &command{args: to(server, "send", "health")}
	c.expect(t, c.run(t, t.Context()), exitFailed, "adding the request to tebra:requests: WRONGTYPE", "tebra: nothing was sent: ")
}

func TestSendSaysHowFarARequestCameThatIsNotAnswered(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		play func(*fakePipeline, tebra.Request)
		want string
	}{
		{"nobody is there", func(*fakePipeline, tebra.Request) {}, "nothing has taken the request: does a bridge run on this Redis, with the prefix tebra?"},
		{"it waits", func(p *fakePipeline, r tebra.Request) {
			p.status(r, tebra.Processing, 1, "")
			p.status(r, tebra.Pending, 1, tebra.Unavailable)
		}, "the request is pending"},
		{"the API hangs", func(p *fakePipeline, r tebra.Request) { p.status(r, tebra.Processing, 1, "") }, "an attempt is under way"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := peertest.Redis(t)
			answering(t, server, "tebra", test.play)
			c := &command{args: to(server, "send", "health", "--timeout", "2s")}
			c.expect(t, c.run(t, t.Context()), exitNoAnswer, "no answer in time: 2s have passed", test.want,
				"The request stays on tebra:requests", "tebra:responses", "--id r1 --correlation-id c1")
			if strings.Contains(c.stderr.String(), "can't be read") {
				t.Errorf("stderr = %s, want nothing about Redis, which was there", c.stderr.String())
			}
		})
	}
}

// TestSendSaysWhyNothingIsHeard while it goes on waiting.
func TestSendSaysWhyNothingIsHeard(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		before func(s *scene)
		want   string
	}{
		{"no bridge", func(*scene) {}, "no bridge lives (never heard of): requests wait unread"},
		{"the API is away", func(s *scene) {
			s.bridge()
			if _, err := breaker.New(s.rdb, s.keys, breaker.Config{MinFailures: 1}).Record(s.t.Context(), false); err != nil {
				s.t.Fatal(err)
			}
		}, "the breaker has been open for"},
		{"nothing else is wrong", (*scene).bridge, "nothing has taken the request"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			test.before(s)
			c := &command{args: to(s.server, "send", "health", "--timeout", "5s")}
			c.expect(t, c.run(t, t.Context()), exitNoAnswer, "waiting  ", "5s have passed and "+test.want)
			if n := strings.Count(c.stderr.String(), "waiting  "); n != 1 {
				t.Errorf("said %d times why it waits, want once:\n%s", n, c.stderr.String())
			}
		})
	}
}

func TestSendStopsWaitingWhenInterrupted(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	ctx, interrupt := context.WithCancelCause(t.Context())
	c := &command{args: to(server, "send", "health")}
	wait := c.start(t, ctx)
	peertest.Eventually(t, 10*time.Second, "the request to be sent", func() bool { return strings.Contains(c.stderr.String(), "sent") })
	interrupt(errors.New("interrupt signal received")) // as signal.NotifyContext does
	c.expect(t, wait(), exitInterrupted, "interrupted while waiting for the answer\nThe request stays on tebra:requests", "--id r1 --correlation-id c1")
}

func TestSendSendsNothingOnceInterrupted(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	for _, env := range []string{"REDIS_URL=" + server.URL(), noteRun(t, server, "tebra")} {
		c := &command{args: []string{"send", "health", "--user", "u1"}, env: []string{env}}
		c.expect(t, c.run(t, ctx), exitInterrupted, "tebra: interrupted")
	}
	if all := entries(t, server, "tebra:requests"); len(all) != 0 {
		t.Errorf("the stream has %q, want nothing", all)
	}
}

func TestSendWaitsOutThatRedisIsAway(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t)
	c := &command{args: to(server, "send", "health")}
	wait := c.start(t, t.Context())
	peertest.Eventually(t, 10*time.Second, "the request to be sent", func() bool { return strings.Contains(c.stderr.String(), "sent") })
	server.Kill()
	peertest.Eventually(t, 10*time.Second, "the trouble to be told", func() bool { return strings.Contains(c.stderr.String(), "trying again") })
	server.Start()
	keys, err := tebra.NewKeys("tebra")
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePipeline{t: t, rdb: server.Client(), keys: keys}
	p.answer(tebra.Request{ID: "r1", CorrelationID: "c1"}, tebra.Response{Data: []byte(`{}`), Attempts: 1})
	c.expect(t, wait(), exitOK)
	if n := strings.Count(c.stderr.String(), "can't be read"); n != 1 {
		t.Errorf("the trouble was told %d times, want once:\n%s", n, c.stderr.String())
	}
}

func TestSendTakesNoOtherRequestsAnswer(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	keys, err := tebra.NewKeys("tebra")
	if err != nil {
		t.Fatal(err)
	}
	earlier := &fakePipeline{t: t, rdb: server.Client(), keys: keys}
	earlier.answer(tebra.Request{ID: "r1", CorrelationID: "c1"}, tebra.Response{ErrorCode: tebra.NoAnswer, Error: "an earlier answer to the same"})
	answering(t, server, "tebra", func(p *fakePipeline, r tebra.Request) {
		sibling, stranger := r, r
		sibling.ID, stranger.CorrelationID = "r2", "c2"
		for _, other := range []tebra.Request{sibling, stranger} {
			p.status(other, tebra.Processing, 9, "")
			p.answer(other, tebra.Response{ErrorCode: tebra.Rejected, Error: "for another"})
		}
		p.add(p.keys.Status(), []string{"correlationId", r.CorrelationID, "requestId", r.ID, "status", "thinking"})
		p.add(p.keys.Responses(), []string{"unrelated", "entry"})
		succeeds(p, r)
	})
	c := &command{args: to(server, "send", "syncSchedule", "date=2026-11-23")}
	got := c.run(t, t.Context())
	c.golden(t, "success", got)
}

func TestSendSaysNothingTwiceAboutAnError(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	answering(t, server, "tebra", func(p *fakePipeline, r tebra.Request) {
		p.answer(r, tebra.Response{ErrorCode: tebra.UnknownAction, Error: tebra.UnknownAction.Meaning()})
	})
	c := &command{args: to(server, "send", "nope")}
	c.expect(t, c.run(t, t.Context()), exitFailed, "tebra: nope ended in an error, unknown_action: the policy knows no action of that name\n")
}

func TestSendFailsOnAnAnswerThatCannotBeRead(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	answering(t, server, "tebra", func(p *fakePipeline, r tebra.Request) {
		p.add(p.keys.Responses(), []string{"correlationId", r.CorrelationID, "requestId", r.ID, "status", "done"})
	})
	c := &command{args: to(server, "send", "health")}
	c.expect(t, c.run(t, t.Context()), exitFailed, "of tebra:responses answers the request but can't be read")
}

func TestSendShowsEveryUpdateOfABusySystem(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	answering(t, server, "tebra", func(p *fakePipeline, r tebra.Request) {
		other := r
		other.ID = "r2"
		p.status(r, tebra.Pending, 0, "")
		for range 3 * readCount {
			p.status(other, tebra.Processing, 1, "")
		}
		p.status(r, tebra.Processing, 1, "")
	})
	c := &command{args: to(server, "send", "health", "--output", "json")}
	ctx, interrupt := context.WithCancel(t.Context())
	wait := c.start(t, ctx)
	peertest.Eventually(t, 10*time.Second, "the last update", func() bool { return strings.Contains(c.stdout.String(), "processing") })
	interrupt()
	c.expect(t, wait(), exitInterrupted)
	var events []string
	for line := range strings.Lines(c.stdout.String()) {
		var e struct{ Event, Status, RequestID string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		events = append(events, e.Event+" "+e.Status+" "+e.RequestID)
	}
	want := []string{"sent  r1", "status pending r1", "status processing r1"}
	if !slices.Equal(events, want) {
		t.Errorf("events = %q, want %q", events, want)
	}
}

// broken is a writer onto a full disk.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestSendFailsWhenItsOutputIsLost(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	answering(t, server, "tebra", succeeds)
	for _, format := range []string{"table", "json"} {
		var stderr bytes.Buffer
		got := Run(t.Context(), to(server, "send", "health", "-o", format), nil, strings.NewReader(""), broken{}, &stderr)
		if got != exitFailed || !strings.Contains(stderr.String(), "printing to stdout: no space left") {
			t.Errorf("exit code = %d, want %d; stderr:\n%s", got, exitFailed, stderr.String())
		}
	}
}

func TestRoundlyIsAsPreciseAsPeopleRead(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                       "0 ms",
		1499 * time.Microsecond: "1 ms",
		999 * time.Millisecond:  "999 ms",
		1234 * time.Millisecond: "1.2 s",
		65 * time.Second:        "1m5s",
	} {
		if got := roundly(d); got != want {
			t.Errorf("roundly(%v) = %q, want %q", d, got, want)
		}
	}
}

func FuzzPairsObject(f *testing.F) {
	f.Add("date=2026-11-23", "n:=7")
	f.Add("a=1", "a=2")
	f.Add("=", ":=")
	f.Add("o:={\"x\":[1]} ", "ü==")
	f.Add("x:=1 2", "y:=")
	f.Fuzz(func(t *testing.T, one, other string) {
		object, err := pairsObject([]string{one, other})
		if err != nil {
			if !isUsage(err) {
				t.Errorf("pairsObject(%q, %q) error = %v, want a usage error", one, other, err)
			}
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(object, &members); err != nil || len(members) != 2 {
			t.Errorf("pairsObject(%q, %q) = %s (%v), want a JSON object with 2 members", one, other, object, err)
		}
		key, _, _ := strings.Cut(one, "=")
		if _, ok := members[strings.TrimSuffix(key, ":")]; !ok {
			t.Errorf("pairsObject(%q, %q) = %s, want a member for the first", one, other, object)
		}
	})
}
