package functions

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/rate"
)

// tripCounter counts the round trips of a Redis client.
type tripCounter struct{ trips atomic.Int64 }

var _ redis.Hook = (*tripCounter)(nil)

func (c *tripCounter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *tripCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.trips.Add(1)
		return next(ctx, cmd)
	}
}

func (c *tripCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.trips.Add(1)
		return next(ctx, cmds)
	}
}

// TestRoundTrips: two for a read without a rate (claim, complete), and four for a
// write with one (claim, turn, start, complete), once the server knows the scripts
// and the breaker has been looked at.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	for _, test := range []struct {
		name    string
		request request
		most    int64
	}{
		{"a read without a rate", aRead, 2},
		{"a write without a rate", aWrite, 3},
		{"a read with a rate", request{action: "getPatient", params: `{"patientId":"1"}`}, 3},
		{"a write with a rate", request{action: "updateAppointment", params: `{"appointmentData":{}}`}, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var counter tripCounter
			f := newFixture(t, server, func(f *fixture) {
				rdb := server.Client()
				rdb.AddHook(&counter)
				f.deps.Ledger, f.deps.Rate = f.ledger(rdb), rate.New(rdb, f.keys)
				f.deps.Breaker = breaker.New(rdb, f.keys, breaker.Config{CacheFor: time.Hour})
			})
			processor := f.processor()
			f.wantPush(processor, f.publish(test.request), http.StatusNoContent)
			m := f.publish(test.request)
			before := counter.trips.Load()
			f.wantPush(processor, m, http.StatusNoContent)
			if got := counter.trips.Load() - before; got != test.most {
				t.Errorf("%d round trips, want %d", got, test.most)
			}
			f.wantState(m, after(answered, 1))
		})
	}
}
