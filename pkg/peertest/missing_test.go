package peertest

import (
	"strings"
	"testing"
	"time"
)

// These tests change the environment, so they don't run in parallel.

// hideParts makes every real part missing.
func hideParts(t *testing.T, ci string) {
	t.Helper()
	t.Setenv("PATH", t.TempDir())
	t.Setenv("JAVA_HOME", "")
	t.Setenv("CI", ci)
}

func TestMissingPartsSkipWithAReason(t *testing.T) {
	hideParts(t, "")
	for name, test := range map[string]struct {
		use  func(t testing.TB)
		want string
	}{
		"RealRedis":    {func(t testing.TB) { RealRedis(t) }, "redis-server"},
		"Redis option": {func(t testing.TB) { Redis(t, WithArgs("--maxmemory", "10mb")) }, "redis-server"},
		"Redis kill":   {func(t testing.TB) { Redis(t).Kill() }, "redis-server"},
		"Emulator":     {func(t testing.TB) { RealEmulator(t) }, "java"},
		"PHP":          {func(t testing.TB) { PHP(t, "testdata/router.php") }, "php"},
		"FirebaseAuth": {func(t testing.TB) { FirebaseAuth(t) }, "node"},
	} {
		t.Run(name, func(t *testing.T) {
			got := verdictOf(t, test.use)
			if got.failed != "" || !strings.Contains(got.skipped, test.want) {
				t.Errorf("got %+v, want a skip that names %s", got, test.want)
			}
		})
	}
}

func TestMissingPartsFailInCI(t *testing.T) {
	hideParts(t, "true")
	for name, test := range map[string]struct {
		use  func(t testing.TB)
		want string
	}{
		"Redis":        {func(t testing.TB) { Redis(t) }, "redis-server"},
		"RealRedis":    {func(t testing.TB) { RealRedis(t) }, "redis-server"},
		"Emulator":     {func(t testing.TB) { Emulator(t) }, "java"},
		"RealEmulator": {func(t testing.TB) { RealEmulator(t) }, "java"},
		"PHP":          {func(t testing.TB) { PHP(t, "testdata/router.php") }, "php"},
		"FirebaseAuth": {func(t testing.TB) { FirebaseAuth(t) }, "node"},
	} {
		t.Run(name, func(t *testing.T) {
			got := verdictOf(t, test.use)
			if got.skipped != "" || !strings.Contains(got.failed, test.want) || !strings.Contains(got.failed, "CI=true") {
				t.Errorf("got %+v, want a failure that names CI=true and %s", got, test.want)
			}
		})
	}
}

func TestRedisFallsBackToMiniredisWhoseKeysExpire(t *testing.T) {
	hideParts(t, "")
	server := Redis(t)
	if server.Real() {
		t.Fatal("Real() = true, want the stand-in, as PATH is empty")
	}
	client := server.Client()
	if err := client.Set(t.Context(), "lease", "x", 50*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, testTimeout, "the key's end", func() bool {
		return client.Exists(t.Context(), "lease").Val() == 0
	})
}

func TestAScriptOnMiniredisSeesExpiry(t *testing.T) {
	hideParts(t, "")
	client := Redis(t).Client()
	if err := client.Set(t.Context(), "lease", "x", 50*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, testTimeout, "the key's end", func() bool {
		return client.Eval(t.Context(), "return redis.call('EXISTS', KEYS[1])", []string{"lease"}).Val() == int64(0)
	})
}

func TestFirebaseToolsNamesACommand(t *testing.T) {
	t.Setenv("CI", "")
	t.Setenv("FIREBASE_TOOLS", "/nonexistent/firebase")
	got := verdictOf(t, func(t testing.TB) { FirebaseAuth(t) })
	if got.skipped == "" {
		t.Errorf("got %+v, want a skip, as FIREBASE_TOOLS names nothing", got)
	}
}
