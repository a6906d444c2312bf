package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// readme returns the section of README.md under a heading, up to the next.
func readme(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("README.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

var (
	testName = regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`")
	runName  = regexp.MustCompile("`([a-z]+)\\.tftest\\.hcl`: `([a-z0-9_]+)`")
	testFunc = regexp.MustCompile(`(?m)^func (Test[A-Z][A-Za-z0-9]*)\(\w+ \*testing\.T\)`)
)

// goTests returns how many tests have each name, in all packages.
func goTests(t *testing.T) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, dir := range []string{"bridge", "functions", "pkg"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
				found[m[1]]++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// TestTheThreatTableNamesTestsThatExist reads the threat table in README.md: every row
// must name a test, and every test that it names must be there.
func TestTheThreatTableNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	exist := goTests(t)
	rows := 0
	for line := range strings.Lines(readme(t, "Threats")) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| who forges") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		if len(cells) != 3 {
			t.Errorf("the row %q has %d cells, want 3", line, len(cells))
			continue
		}
		tests, runs := testName.FindAllStringSubmatch(cells[2], -1), runName.FindAllStringSubmatch(cells[2], -1)
		if len(tests)+len(runs) == 0 {
			t.Errorf("the row %q names no test", line)
		}
		for _, m := range tests {
			if exist[m[1]] == 0 {
				t.Errorf("the row about %s names %s, which no package has", strings.TrimSpace(cells[0]), m[1])
			}
		}
		for _, m := range runs {
			text, err := os.ReadFile(filepath.Join(root, "terraform", "tests", m[1]+".tftest.hcl"))
			if err != nil || !strings.Contains(string(text), `run "`+m[2]+`" {`) {
				t.Errorf("the row about %s names run %q of %s.tftest.hcl, which it has not (%v)", strings.TrimSpace(cells[0]), m[2], m[1], err)
			}
		}
	}
	if rows < 10 {
		t.Errorf("the table has %d rows, want the ten or more that there were", rows)
	}
}

func TestTheThreatsShowTheACLOfApplications(t *testing.T) {
	t.Parallel()
	if want := ApplicationACL("app", tebra.DefaultPrefix); !strings.Contains(readme(t, "Threats"), want) {
		t.Errorf("README.md does not show %q", want)
	}
}

// TestAnApplicationCanOnlyAskAndListen holds the ACL of an application against a real
// server: all that forging an answer, a status or an audit record would take is refused.
func TestAnApplicationCanOnlyAskAndListen(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t, peertest.WithACL(ApplicationACL("app", tebra.DefaultPrefix)+" >"+aclPassword))
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), Username: "app", Password: aclPassword, DisableIdentity: true})
	t.Cleanup(func() { rdb.Close() })
	for _, args := range [][]any{
		{"PING"}, {"XADD", "tebra:requests", "*", "action", "health", "userId", "u"},
		{"XADD", "tebra:requests", "MAXLEN", "1000000", "*", "action", "health", "userId", "u"}, // README.md says so
		{"XRANGE", "tebra:responses", "-", "+"}, {"XREVRANGE", "tebra:status", "+", "-"}, {"XLEN", "tebra:responses"},
	} {
		if err := rdb.Do(t.Context(), args...).Err(); err != nil {
			t.Errorf("%v = %v, want it allowed", args, err)
		}
	}
	if err := rdb.XRead(t.Context(), &redis.XReadArgs{Streams: []string{"tebra:responses", "tebra:status", "0", "0"}, Block: -1}).Err(); err != nil && err != redis.Nil {
		t.Errorf("XREAD = %v, want it allowed", err)
	}
	for _, args := range [][]any{
		{"XADD", "tebra:responses", "*", "status", "success"}, {"XADD", "tebra:status", "*", "status", "success"},
		{"XADD", "tebra:audit", "*", "operation", "replay"}, {"XADD", "another:requests", "*", "a", "b"},
		{"XRANGE", "tebra:requests", "-", "+"}, {"XREAD", "STREAMS", "tebra:requests", "0"},
		{"XTRIM", "tebra:requests", "MAXLEN", "0"}, {"XDEL", "tebra:requests", "1-1"}, {"XGROUP", "DESTROY", "tebra:requests", "bridge"},
		{"XREADGROUP", "GROUP", "bridge", "me", "STREAMS", "tebra:requests", ">"}, {"XACK", "tebra:requests", "bridge", "1-1"},
		{"HGETALL", "tebra:ledger:x"}, {"HSET", "tebra:ledger:x", "state", "done"}, {"DEL", "tebra:epoch"}, {"SET", "tebra:breaker", "x"},
		{"EVAL", "return redis.call('XADD', 'tebra:responses', '*', 'a', 'b')", "0"}, {"KEYS", "*"}, {"FLUSHALL"}, {"CONFIG", "GET", "*"},
	} {
		if err := rdb.Do(t.Context(), args...).Err(); !redis.HasErrorPrefix(err, "NOPERM") {
			t.Errorf("%v = %v, want it refused", args, err)
		}
	}
}
