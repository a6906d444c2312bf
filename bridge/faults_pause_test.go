//go:build unix

package bridge

import (
	"syscall"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

func TestABridgePausedWhileItReadsLeavesToAnotherWhatThatOneClaimed(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"quick", "change", "slow"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			paused := b.startProcess("CLAIM_IDLE=1s", "MAX_REQUEST_BYTES=65536")
			ids, since := b.addToPaused(paused, action)
			s := stream.New(b.rdb, b.keys)
			if err := s.GiveBack(t.Context(), b.consumers()[0], ids); err != nil { // so they are idle for long
				t.Fatal(err)
			}
			other := b.start()
			b.waitPublished(ids)
			b.waitSettled()
			other.stop(t)
			b.complete(ids)
			peertest.Eventually(t, wait, "the pause to be long", func() bool { return time.Since(since) > readBlock+time.Second })
			paused.signal(syscall.SIGCONT)
			b.checkPromises(b.add(1, action)) // so the paused one is through with what it had read

			b.checkClosed(ids)
			b.checkLastWord(len(ids))
		})
	}
}

// addToPaused pauses a bridge process that waits for entries, gives it some, and
// returns them, and when it was paused.
func (b *bundle) addToPaused(p *bridgeProcess, action string) ([]string, time.Time) {
	b.Helper()
	for {
		b.checkPromises(b.add(1, action)) // it reads again now
		since := time.Now()
		p.pause()
		ids := b.add(3, action)
		if len(b.pending(tebra.GroupBridge, "")) == len(ids) {
			return ids, since
		}
		p.signal(syscall.SIGCONT) // its last read had just ended: again
		b.checkPromises(ids)
	}
}

// pause stops the process's clock, and returns once it stands still: it takes a
// moment until all of its threads do.
func (p *bridgeProcess) pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	var state syscall.WaitStatus
	if _, err := syscall.Wait4(p.cmd.Process.Pid, &state, syscall.WUNTRACED, nil); err != nil || !state.Stopped() {
		p.t.Fatalf("wait for the bridge to stand still: %v (%v)", state, err)
	}
}
