package local

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
)

// running returns what a local run of this very process would note.
func running(t *testing.T) Info {
	t.Helper()
	return Info{
		PID:      os.Getpid(),
		Started:  time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC),
		RedisURL: peertest.Redis(t).URL(), Prefix: "tebra",
		Project: "tebra-local", PubSubEmulator: "127.0.0.1:8085",
		RequestsTopic: "tebra-requests", DeadLettersTopic: "tebra-dead-letters",
		InspectSubscription: "tebra-dead-letters-inspect",
		PHPAPI:              "http://127.0.0.1:8000/api", FunctionsURL: "http://127.0.0.1:8090",
	}
}

func notePath(t *testing.T) string { return filepath.Join(t.TempDir(), "tebra", "local.json") }

func mustWrite(t *testing.T, path string, info Info) {
	t.Helper()
	if err := WriteDiscovery(path, info); err != nil {
		t.Fatal(err)
	}
}

// deadPID returns the ID of a process that has ended.
func deadPID(t *testing.T) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// deadAddress returns an address of this machine where nothing listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func TestDiscoverReturnsWhatARunningPipelineWrote(t *testing.T) {
	t.Parallel()
	path, want := notePath(t), running(t)
	mustWrite(t, path, want)
	got, err := Discover(t.Context(), path)
	if err != nil || got != want {
		t.Errorf("Discover() = %+v, %v, want %+v, nil", got, err, want)
	}
}

func TestTheLastPipelineWins(t *testing.T) {
	t.Parallel()
	path, first := notePath(t), running(t)
	second := first
	second.Started = first.Started.Add(time.Minute)
	mustWrite(t, path, first)
	mustWrite(t, path, second)
	got, err := Discover(t.Context(), path)
	if err != nil || got != second {
		t.Errorf("Discover() = %+v, %v, want the second run's %+v", got, err, second)
	}
}

func TestDiscoverSaysWhenNothingIsRunning(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    string
	}{
		{"no file", func(*testing.T, string) {}, "no local pipeline is running"},
		{"the process has ended", func(t *testing.T, path string) {
			info := running(t)
			info.PID = deadPID(t)
			mustWrite(t, path, info)
		}, "has ended"},
		{"Redis has ended", func(t *testing.T, path string) {
			info := running(t)
			info.RedisURL = "redis://:secret@" + deadAddress(t)
			mustWrite(t, path, info)
		}, "doesn't answer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := notePath(t)
			test.prepare(t, path)
			_, err := Discover(t.Context(), path)
			if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Discover() error = %v, want ErrNotRunning with %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("Discover() error = %v holds the password", err)
			}
		})
	}
}

func TestDiscoverRefusesAFileThatNoPipelineWrote(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"not JSON", "pid=1", 0o600, "not what a local pipeline writes"},
		{"no Redis", `{"pid":1,"prefix":"tebra"}`, 0o600, "no pid, redisURL or prefix"},
		{"no process", `{"redisURL":"redis://127.0.0.1:1","prefix":"tebra"}`, 0o600, "no pid, redisURL or prefix"},
		{"process 0, which would be our own group", `{"pid":0,"redisURL":"redis://127.0.0.1:1","prefix":"tebra"}`, 0o600, "no pid"},
		{"others may read it", `{"pid":1,"redisURL":"redis://127.0.0.1:1","prefix":"tebra"}`, 0o644, "want 0600"},
		{"empty", "", 0o600, "not what a local pipeline writes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if runtime.GOOS == "windows" && test.mode != 0o600 {
				t.Skip("Windows has no such modes")
			}
			path := filepath.Join(t.TempDir(), "local.json")
			if err := os.WriteFile(path, []byte(test.text), test.mode); err != nil {
				t.Fatal(err)
			}
			_, err := Discover(t.Context(), path)
			if err == nil || errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Discover() error = %v, want one with %q that is not ErrNotRunning", err, test.want)
			}
		})
	}
}

func TestTheNoteIsReadableByItsOwnerOnly(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	path := notePath(t)
	mustWrite(t, path, Info{PID: 1, RedisURL: "redis://:secret@127.0.0.1:1", Prefix: "tebra"})
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		stat, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := stat.Mode().Perm(); got != want {
			t.Errorf("mode of %s = %v, want %v", name, got, want)
		}
	}
}

func TestWriteDiscoveryLeavesNothingBehindWhenItFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "local.json")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := WriteDiscovery(path, Info{PID: 1})
	if err == nil || !strings.Contains(err.Error(), DiscoveryVariable) {
		t.Errorf("WriteDiscovery() error = %v, want one that names %s", err, DiscoveryVariable)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("ReadDir() = %v, %v, want only what was there before", left, err)
	}
}

func TestRemoveTakesOnlyItsOwnNote(t *testing.T) {
	t.Parallel()
	path, mine := notePath(t), running(t)
	theirs := mine
	theirs.Started = mine.Started.Add(time.Minute)

	mustWrite(t, path, theirs)
	if err := Remove(path, mine); err != nil {
		t.Errorf("Remove() of another's note = %v, want nil", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("another's note after Remove(): %v, want it still there", err)
	}
	if err := Remove(path, theirs); err != nil {
		t.Errorf("Remove() = %v, want nil", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the note after Remove(): %v, want it gone", err)
	}
	if err := Remove(path, theirs); err != nil {
		t.Errorf("Remove() again = %v, want nil", err)
	}
}

func TestDiscoveryPathPrefersTheVariable(t *testing.T) {
	t.Parallel()
	set := func(string) (string, bool) { return "/somewhere/local.json", true }
	if got, want := DiscoveryPath(set), "/somewhere/local.json"; got != want {
		t.Errorf("DiscoveryPath() = %q, want %q", got, want)
	}
	for _, value := range []struct {
		text string
		set  bool
	}{{"", false}, {"", true}} {
		unset := func(string) (string, bool) { return value.text, value.set }
		got := DiscoveryPath(unset)
		if !filepath.IsAbs(got) || !strings.HasSuffix(got, filepath.Join("tebra", "local.json")) {
			t.Errorf("DiscoveryPath() without the variable = %q, want an absolute path to tebra/local.json", got)
		}
	}
}

func TestDiscoverEndsWithItsContext(t *testing.T) {
	t.Parallel()
	path := notePath(t)
	mustWrite(t, path, running(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Discover(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("Discover() with an ended context = %v, want context.Canceled", err)
	}
}

func FuzzParseInfo(f *testing.F) {
	f.Add([]byte(`{"pid":1,"redisURL":"redis://127.0.0.1:1","prefix":"tebra","started":"2026-11-23T08:00:00Z"}`))
	f.Add([]byte(`{"pid":-1}`))
	f.Add([]byte(`{"pid":1e99}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		info, err := parseInfo(text)
		if err != nil {
			return
		}
		if info.PID <= 0 || info.RedisURL == "" || info.Prefix == "" {
			t.Errorf("parseInfo(%q) = %+v, want nothing unusable without an error", text, info)
		}
		if _, err := json.Marshal(info); err != nil {
			t.Errorf("Marshal(parseInfo(%q)) = %v, want nil", text, err)
		}
	})
}
