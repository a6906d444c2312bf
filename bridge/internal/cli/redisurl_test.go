package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/peertest"
)

const withPassword = "redis://:Secretname@127.0.0.1:1"

func TestNoPasswordIsTakenFromTheArguments(t *testing.T) {
	t.Parallel()
	for _, url := range []string{withPassword, "rediss://tebra:Secretname@h:6378/0", "redis://:@127.0.0.1:1", "http://u:Secretname@h", "redis://:Secret%name@h"} {
		for _, args := range [][]string{{"status"}, {"send", "health", "--user", "u"}, {"doctor"}, {"local"}} {
			c := &command{args: append(args, "--redis", url)}
			c.local = func(context.Context, local.Options, io.Writer) error {
				t.Errorf("tebra %q ran", args)
				return nil
			}
			c.expect(t, c.run(t, t.Context()), exitUsage, "--redis holds a password", "--redis @FILE")
			if strings.Contains(c.stderr.String(), "Secret") {
				t.Errorf("tebra %q printed %s, want no password in it", args, c.stderr.String())
			}
		}
	}
}

func TestTheURLOfRedisComesFromAFile(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	path := filepath.Join(t.TempDir(), "redis-url")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(server.URL() + "\n")
	c := &command{args: []string{"send", "health", "--user", "u", "--no-wait", "--redis", "@" + path}}
	c.expect(t, c.run(t, t.Context()), exitOK)
	if got := entries(t, server, "tebra:requests"); len(got) != 1 {
		t.Errorf("the stream has %q, want the request", got)
	}
	write(withPassword)
	var got local.Options
	c = &command{args: []string{"local", "--redis", "@" + path}}
	c.local = func(_ context.Context, o local.Options, _ io.Writer) error { got = o; return nil }
	c.expect(t, c.run(t, t.Context()), exitOK)
	if got.Redis != withPassword {
		t.Errorf("local runs with Redis %q, want what the file holds", got.Redis)
	}
	write(" \n")
	for _, file := range []string{path, path + "-none"} {
		c = &command{args: []string{"status", "--redis", "@" + file}}
		c.expect(t, c.run(t, t.Context()), exitUsage, "--redis", file)
	}
}
