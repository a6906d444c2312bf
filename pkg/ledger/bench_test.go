package ledger

import (
	"fmt"
	"testing"

	"tebraproxy/pkg/peertest"
)

// BenchmarkClaimAndComplete is the ledger's share of a read's way through the
// function, by one worker.
func BenchmarkClaimAndComplete(b *testing.B) {
	f := newFixture(b, peertest.Redis(b).Client())
	resp := succeed()
	for i := 0; b.Loop(); i++ {
		r := request{id: fmt.Sprintf("r%d", i), params: `{}`}
		d := f.delivery(r, fmt.Sprintf("%d-%d", began.UnixMilli(), i+1), r.id)
		d.Envelope.Epoch = "e"
		if err := f.l.Complete(b.Context(), f.claim(d), resp); err != nil {
			b.Fatal(err)
		}
	}
}
