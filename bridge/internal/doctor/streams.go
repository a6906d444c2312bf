package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge"
	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/tebra"
)

const (
	// stuckAfter is longer than any bridge holds an entry that it still works on:
	// others take over after CLAIM_IDLE, 150 s unless set otherwise.
	stuckAfter = 10 * time.Minute
	// longLag is how many unread entries are more than a moment's.
	longLag = 10_000
)

// streams checks what goes on in Redis.
func (e *examination) streams(ctx context.Context) {
	a := e.area("streams")
	if e.deaf {
		a.skip("groups", "Redis can't be asked")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*checkTimeout)
	defer cancel()
	if e.groups(ctx, a) {
		e.stuck(ctx, a)
		e.bridges(ctx, a)
	}
	e.breaker(ctx, a)
}

// groups reports whether the group of bridges is there.
func (e *examination) groups(ctx context.Context, a area) bool {
	const remedy = "start a bridge with this REDIS_URL and STREAM_PREFIX: it makes the groups, and serves what is there already"
	groups, err := e.Redis.XInfoGroups(ctx, e.Keys.Requests()).Result()
	if err != nil {
		if strings.Contains(err.Error(), "no such key") {
			a.fail("groups", fmt.Sprintf("there is no stream %s", e.Keys.Requests()), remedy)
			return false
		}
		a.skip("groups", "%s can't be looked at: %s", e.Keys.Requests(), errText(err))
		return false
	}
	found := map[string]redis.XInfoGroup{}
	for _, g := range groups {
		found[g.Name] = g
	}
	for _, name := range []string{tebra.GroupBridge, tebra.GroupParked} {
		if _, ok := found[name]; !ok {
			a.fail("groups", fmt.Sprintf("%s has no group %s", e.Keys.Requests(), name), remedy)
			return false
		}
	}
	a.ok("groups", "%s and %s", tebra.GroupBridge, tebra.GroupParked)
	e.lag(ctx, a, found[tebra.GroupBridge], found[tebra.GroupParked])
	return true
}

func (e *examination) lag(ctx context.Context, a area, bridge, parked redis.XInfoGroup) {
	stream, err := e.Redis.XInfoStream(ctx, e.Keys.Requests()).Result()
	if err != nil {
		a.skip("lag", "%s can't be looked at: %s", e.Keys.Requests(), errText(err))
		return
	}
	held := fmt.Sprintf("%d in hand, %d parked", bridge.Pending, parked.Pending)
	switch {
	case stream.LastGeneratedID == bridge.LastDeliveredID:
		a.ok("lag", "nothing unread, %s", held)
	case bridge.Lag > longLag:
		a.warn("lag", fmt.Sprintf("%d entries are unread, %s", bridge.Lag, held), "is the breaker open, or are too few bridges running? 'tebra status' tells more")
	case bridge.Lag > 0:
		a.ok("lag", "%d entries unread, %s", bridge.Lag, held)
	default: // Redis before 7.0 does not count them
		a.ok("lag", "some entries unread, %s", held)
	}
}

// stuck looks for entries that somebody took and nobody goes on with.
func (e *examination) stuck(ctx context.Context, a area) {
	old, err := e.Redis.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: e.Keys.Requests(), Group: tebra.GroupBridge, Idle: stuckAfter, Start: "-", End: "+", Count: 100,
	}).Result()
	switch {
	case err != nil && !errors.Is(err, redis.Nil):
		a.skip("stuck", "the pending entries can't be looked at: %s", errText(err))
	case len(old) > 0:
		a.fail("stuck", fmt.Sprintf("%s are held by bridges that have not touched them for %v; the oldest is %s of %s",
			atLeast(len(old)), stuckAfter, old[0].ID, old[0].Consumer), "is a bridge running? It takes over what others hold for longer than CLAIM_IDLE")
	default:
		a.ok("stuck", "no entry is held by a silent bridge")
	}
}

func atLeast(n int) string {
	if n == 100 {
		return "100 entries or more"
	}
	return fmt.Sprintf("%d entries", n)
}

// bridges looks for a bridge that shows a sign of life.
func (e *examination) bridges(ctx context.Context, a area) {
	alive, _, err := bridge.Heartbeats(ctx, e.Redis, e.Keys)
	switch {
	case err != nil:
		a.skip("bridges", "the heartbeats can't be looked at: %s", errText(err))
	case len(alive) == 0:
		a.fail("bridges", "no bridge shows a sign of life", "start one, or look into its log; nothing is taken from the stream without one")
	default:
		a.ok("bridges", "%d running", len(alive))
	}
}

func (e *examination) breaker(ctx context.Context, a area) {
	now, err := breaker.New(e.Redis, e.Keys, breaker.Config{}).State(ctx)
	switch {
	case err != nil:
		a.skip("breaker", "it can't be asked: %s", errText(err))
	case now.State != breaker.Closed:
		a.warn("breaker", now.State.String()+": the API failed too often, and requests wait", "see what is found about the API; the breaker closes by itself when it answers")
	default:
		a.ok("breaker", "closed")
	}
}
