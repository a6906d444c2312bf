package load

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// usage is what a process takes, as Linux tells it.
type usage struct {
	CPU time.Duration // since its start, in steps of 10 ms
	RSS int64         // bytes
	FDs int
}

// clockTick is the unit of CPU times in /proc, the same on every Linux that Go
// knows.
const clockTick = 10 * time.Millisecond

// needProc skips t where there is no /proc.
func needProc(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skipf("processes are measured by /proc, which only Linux has (%v)", err)
	}
}

// usageOf returns what the process takes.
func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	u, err := parseStat(stat)
	if err != nil {
		return usage{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	u.FDs = len(fds)
	return u, err
}

// parseStat reads CPU time and memory from a line of proc(5)'s stat.
func parseStat(stat []byte) (usage, error) {
	// The second field is the program's name in brackets and may hold anything.
	_, rest, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(" "))
	fields := strings.Fields(string(rest))
	const user, system, pages = 14 - 3, 15 - 3, 24 - 3 // rest begins with the third
	if !ok || len(fields) <= pages {
		return usage{}, errors.New("too few fields")
	}
	var numbers [3]int64
	for i, field := range []int{user, system, pages} {
		n, err := strconv.ParseInt(fields[field], 10, 64)
		if err != nil {
			return usage{}, err
		}
		numbers[i] = n
	}
	return usage{CPU: time.Duration(numbers[0]+numbers[1]) * clockTick, RSS: numbers[2] * int64(os.Getpagesize())}, nil
}

func TestAProcessIsReadFromItsStat(t *testing.T) {
	t.Parallel()
	const line = `12 (a) b (c)) S 1 12 12 0 -1 4194560 1000 0 0 0 150 50 0 0 20 0 8 0 300 1000000 25 18446744073709551615 1 1`
	got, err := parseStat([]byte(line))
	want := usage{CPU: 2 * time.Second, RSS: 25 * int64(os.Getpagesize())}
	if err != nil || got != want {
		t.Errorf("parseStat = %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "12", "12 (a) S 1", strings.Replace(line, " 150 ", " x ", 1)} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestThisProcessTakesSomething(t *testing.T) {
	t.Parallel()
	needProc(t)
	got, err := usageOf(os.Getpid())
	if err != nil || got.RSS < 1<<20 || got.FDs < 3 {
		t.Errorf("usageOf this process = %+v, %v, want at least a megabyte and three files", got, err)
	}
}
