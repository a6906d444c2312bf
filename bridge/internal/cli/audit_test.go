package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
)

func TestWhoSawContentsIsOnRecord(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	rdb := server.Client()
	add := &redis.XAddArgs{Stream: "tebra:requests", Values: []string{
		"id", "r1", "action", "getPatient", "params", `{"note":"` + secretText + `"}`, "userId", "u1", "correlationId", "c1",
	}}
	if err := rdb.XAdd(t.Context(), add).Err(); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) *command {
		t.Helper()
		c := &command{args: args, env: []string{"REDIS_URL=" + server.URL()}}
		c.run(t, t.Context())
		return c
	}
	for _, args := range [][]string{{"history"}, {"trace", "c1"}} {
		if c := run(args...); strings.Contains(c.stdout.String(), secretText) || len(entries(t, server, "tebra:audit")) > 0 {
			t.Errorf("tebra %q printed\n%sand left %v on record, want no contents and nothing", args, c.stdout.String(), entries(t, server, "tebra:audit"))
		}
	}
	for n, args := range [][]string{{"history", "--show-payloads", "--operator", "ada@desk"}, {"trace", "c1", "--show-payloads", "--operator", "ada@desk"}} {
		c := run(args...)
		onRecord := entries(t, server, "tebra:audit")
		if !strings.Contains(c.stdout.String(), secretText) || len(onRecord) != n+1 {
			t.Fatalf("tebra %q printed\n%s%s and left %v on record, want contents and one record more", args, c.stdout.String(), c.stderr.String(), onRecord)
		}
		for _, want := range []string{"ada@desk", "payloads.shown", "r1", "getPatient", "u1", args[0]} {
			if !slices.Contains(onRecord[n], want) {
				t.Errorf("on record is %q, want %q in it", onRecord[n], want)
			}
		}
	}
	if err := rdb.Del(t.Context(), "tebra:audit").Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.Set(t.Context(), "tebra:audit", "in the way", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"history", "--show-payloads"}, {"trace", "c1", "--show-payloads"}} {
		c := &command{args: args, env: []string{"REDIS_URL=" + server.URL()}}
		c.expect(t, c.run(t, t.Context()), exitFailed, "nothing is shown, because that can't be put on record")
		if c.stdout.String() != "" {
			t.Errorf("tebra %q printed\n%swant nothing", args, c.stdout.String())
		}
	}
}
