package bridge

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tebraproxy/pkg/peertest"
)

func TestPausesBetweenTriesGrowToFiveSecondsAndNoFurther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		wait := newBackoff()
		pause := func() time.Duration {
			began := time.Now()
			wait.sleep(ctx)
			return time.Since(began)
		}
		if got := pause(); got > 63*time.Millisecond {
			t.Errorf("the first pause is %v, want about 50ms", got)
		}
		for range 100 {
			if got := pause(); got > 5*time.Second {
				t.Fatalf("a pause is %v, want at most 5s", got)
			}
		}
		if got := pause(); got < 3750*time.Millisecond {
			t.Errorf("a late pause is %v, want 5s less at most a quarter", got)
		}
		wait.reset()
		if got := pause(); got > 63*time.Millisecond {
			t.Errorf("the first pause after reset is %v, want about 50ms", got)
		}
	})
}

func TestAPauseEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if newBackoff().sleep(ctx) {
		t.Error("sleep() under an ended context = true, want false")
	}
}

func TestTroubleIsSaidOncePerMinuteUntilItIsOverForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logs := &logBook{}
		e := &episodes{log: slog.New(logs)}
		bad := errors.New("bad")
		for range 1000 {
			e.troubleFor("redis", "a", "trouble", bad)
			e.troubleFor("redis", "b", "trouble", bad)
			e.overFor("redis", "b")
		}
		if got := logs.written(); got != 1 {
			t.Errorf("a thousand errors in an instant took %d lines, want 1", got)
		}
		for range 600 {
			time.Sleep(time.Second) // the bubble's clock
			e.troubleFor("redis", "a", "trouble", bad)
		}
		if got := logs.written(); got != 11 {
			t.Errorf("ten more minutes of it took %d lines, want 11 by then", got)
		}
		e.overFor("redis", "a")
		e.overFor("redis", "a")
		if got := logs.count(slog.LevelInfo, "trouble is over"); got != 1 {
			t.Errorf("%d lines say that it is over, want 1", got)
		}
	})
}

func TestABridgeProcessPrintsNothingButItsLogDuringAnOutage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	proxy := newRedisProxy(t, b.server.Addr())
	p := b.startProcess(proxy.url())
	b.waitPublished(b.add(10, "quick"))
	proxy.refuse()
	peertest.Eventually(t, wait, "the bridge to say that Redis can't be used", func() bool {
		return strings.Contains(p.out.String(), "Redis can't be used")
	})
	peertest.Eventually(t, wait, "more tries", func() bool { return proxy.dials.Load() > 30 })
	proxy.accept()
	b.checkPromises(b.add(10, "quick"))
	p.kill()
	lines := strings.Split(strings.TrimSpace(p.out.String()), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "msg="+publishedLine+" ") })
	if len(lines) > 4 {
		t.Errorf("the bridge printed %d lines, want at most 4: start, trouble, its end:\n%s", len(lines), p.out)
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("the bridge printed %q, want only its structured log", line)
		}
	}
}
