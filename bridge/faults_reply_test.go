package bridge

import (
	"testing"

	"tebraproxy/pkg/peertest"
)

// unclaimed makes claiming of idle entries too late to help, so that only a
// bridge's own care can.
const unclaimed = "CLAIM_IDLE=1h"

func TestALostReplyLeavesNothingInNobodysHands(t *testing.T) {
	t.Parallel()
	const someEntry = "correlation-of-" // in a reply that holds an entry
	for name, tt := range map[string]struct {
		action string
		lose   loseReply
	}{
		"to XREADGROUP":              {"quick", replyTo("XREADGROUP", "", someEntry)},
		"to XREADGROUP of writes":    {"change", replyTo("XREADGROUP", "", someEntry)},
		"to XACK":                    {"quick", replyTo("XACK", "", "")},
		"to the admission of reads":  {"quick", replyTo("EVAL", ":open:default", "")},
		"to the admission of writes": {"change", replyTo("EVALSHA", ":ledger:", "")},
		"to the reservation of room": {"slow", replyTo("EVAL", ":open:slow", "")},
		"to filling a lane":          {"slow", replyTo("EVALSHA", ":open:slow", someEntry)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.sink.watch(b.rdb, b.keys)
			proxy := newRedisProxy(t, b.server.Addr())
			b.start(proxy.url(), unclaimed)
			first := b.add(1, "quick")
			b.waitPublished(first) // everything is at its usual work
			proxy.loseOnce(tt.lose)
			ids := append(first, b.add(50, tt.action)...)
			b.answerAll()
			peertest.Eventually(t, wait, "a reply to be lost", func() bool { return proxy.lost.Load() == 1 })
			b.checkPromises(ids)
			b.checkNobodyToldTwice()
		})
	}
}
