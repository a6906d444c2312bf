package bridge

import (
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
)

func TestHeartbeatsFindTheBridgesThatLive(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if alive, last, err := Heartbeats(t.Context(), b.rdb, b.keys); err != nil || len(alive) != 0 || !last.IsZero() {
		t.Errorf("Heartbeats() = %v, %v, %v before any bridge, want none", alive, last, err)
	}
	r := b.start()
	b.waitPublished(b.add(3, "quick"))
	var beat Heartbeat
	peertest.Eventually(t, 10*time.Second, "a heartbeat that counts 3 published", func() bool {
		alive, last, err := Heartbeats(t.Context(), b.rdb, b.keys)
		if err != nil || len(alive) != 1 || last.IsZero() {
			return false
		}
		beat = alive[0]
		return beat.Published == 3
	})
	if beat.Consumer != r.Consumer() || beat.Read != 3 || beat.Memory == 0 || beat.Started.After(beat.At) || beat.Gate != "" {
		t.Errorf("heartbeat = %+v, want that of %s, which read 3", beat, r.Consumer())
	}

	// A bridge that dies leaves when it was last heard of.
	if err := b.rdb.Del(t.Context(), b.keys.Heartbeat(r.Consumer())).Err(); err != nil {
		t.Fatal(err)
	}
	if _, last, err := Heartbeats(t.Context(), b.rdb, b.keys); err != nil || last.IsZero() {
		t.Errorf("Heartbeats() = last %v, %v after its heartbeat ended, want when it was", last, err)
	}
	r.stop(t)
	if alive, last, err := Heartbeats(t.Context(), b.rdb, b.keys); err != nil || len(alive) != 0 || !last.IsZero() {
		t.Errorf("Heartbeats() = %v, %v, %v after it left, want none", alive, last, err)
	}
}
