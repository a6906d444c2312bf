package telemetry

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"tebraproxy/pkg/tebra"
)

// TestWhatComesFromOutsideMakesNoSeries: however many actions, lanes and reasons
// there are outside, the series are those of the policy and one for the rest.
func TestWhatComesFromOutsideMakesNoSeries(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	f := b.Functions([]string{"getProviders"}, []string{"default"})
	bridge := b.Bridge(nil, []string{"default"})
	lanes := map[string]LaneState{"default": {Open: 1}}
	for i := range 500 {
		e := envelope(fmt.Sprint(i))
		e.Action = fmt.Sprint("action-", i)
		ctx, run := f.Begin(t.Context(), e, time.Now())
		run.Claimed("run", 1, 0, time.Now())
		run.Waiting(ctx, fmt.Sprint("lane-", i))()
		_, done := run.Calling(ctx, "")
		done(Called{Code: tebra.ErrorCode(fmt.Sprint("code-", i))})
		run.Ended(Ended{Code: tebra.ErrorCode(fmt.Sprint("code-", i)), Answered: true, DeadLetter: true})
		run.End()
		bridge.Rejected(tebra.ErrorCode(fmt.Sprint("reason-", i)))
		lanes[fmt.Sprint("lane-", i)] = LaneState{Open: 2, Oldest: time.Duration(i) * time.Second}
	}
	bridge.Saw(State{At: time.Now(), Lanes: lanes})
	for series, want := range map[string]string{
		`tebra_requests_answered_total{action="other",outcome="other"}`: "500",
		`tebra_attempts_total{action="other",outcome="other"}`:          "500",
		`tebra_requests_rejected_total{reason="other"}`:                 "500",
		`tebra_dead_letters_total{reason="other"}`:                      "1000",
		`tebra_rate_wait_seconds_count{lane="other"}`:                   "500",
		`tebra_in_flight_requests{lane="default"}`:                      "1",
		`tebra_in_flight_requests{lane="other"}`:                        "1000",
		`tebra_in_flight_oldest_seconds{lane="other"}`:                  "499",
	} {
		if got := b.value(series); got != want {
			t.Errorf("%s = %q, want %s", series, got, want)
		}
	}
	if text := b.text(); strings.Contains(text, "-4") && strings.Contains(text, "action-") {
		t.Errorf("the metrics hold names from outside:\n%s", text)
	}
}

// TestAnAlertSeesTheFirstOne: a counter that begins with 1 never rises.
func TestAnAlertSeesTheFirstOne(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.Bridge(nil, nil)
	b.Functions(nil, nil)
	for _, code := range append(tebra.Codes(), "trimmed") {
		for _, name := range []string{"tebra_dead_letters_total", "tebra_requests_rejected_total"} {
			if got := b.value(fmt.Sprintf(`%s{reason="%s"}`, name, code)); got != "0" {
				t.Errorf("%s of reason %s begins with %q, want 0", name, code, got)
			}
		}
	}
}

// TestOldNumbersAreNotTold: what a bridge saw long ago is no longer so. Its last
// heartbeat is told all the same, because its age says that something is wrong.
func TestOldNumbersAreNotTold(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	bridge := b.Bridge(nil, []string{"default"})
	if got := b.value("tebra_stream_entries"); got != "" {
		t.Errorf("tebra_stream_entries = %s before anything was seen, want none", got)
	}
	bridge.Saw(State{At: time.Now(), Stream: 3, Lag: -1, Pending: 2, PendingOldest: time.Second, BreakerOpen: true,
		Lanes: map[string]LaneState{"default": {Parked: 4, Open: 5, Retrying: 1, Oldest: time.Minute}}})
	for series, want := range map[string]string{
		"tebra_stream_entries": "3", "tebra_stream_lag_entries": "", "tebra_pending_entries": "2", "tebra_pending_oldest_seconds": "1",
		`tebra_gate_shut{reason="breaker"}`: "1", `tebra_gate_shut{reason="pubsub"}`: "0", "tebra_breaker_open": "1",
		`tebra_parked_entries{lane="default"}`: "4", `tebra_in_flight_requests{lane="default"}`: "5",
		`tebra_retrying_requests{lane="default"}`: "1", `tebra_in_flight_oldest_seconds{lane="default"}`: "60",
	} {
		if got := b.value(series); got != want {
			t.Errorf("%s = %q, want %q", series, got, want)
		}
	}
	bridge.Saw(State{At: time.Now().Add(-fresh - time.Second), Stream: 3})
	if got := b.value("tebra_stream_entries"); got != "" {
		t.Errorf("tebra_stream_entries = %s from long ago, want none", got)
	}
	if got := b.value("tebra_heartbeat_timestamp_seconds"); got == "" {
		t.Error("tebra_heartbeat_timestamp_seconds is not there, want the last one")
	}
}

func TestEveryStepOfABridgeIsCounted(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	bridge := b.Bridge(nil, nil)
	bridge.Read(3)
	bridge.Claimed(2)
	bridge.Published(2, 20*time.Millisecond, nil)
	bridge.Published(0, time.Second, errors.New("no"))
	bridge.Waited(time.Minute)
	bridge.Rejected(tebra.Malformed)
	bridge.DeadLetter(tebra.NoAnswer)
	bridge.BreakerChanged(true)
	bridge.BreakerChanged(false)
	const latency = `messaging_client_operation_duration_count{messaging_operation_name="send",messaging_operation_type="send",messaging_system="gcp_pubsub"}`
	for series, want := range map[string]string{
		"tebra_requests_read_total": "3", "tebra_requests_claimed_total": "2", "tebra_requests_published_total": "2",
		`tebra_requests_rejected_total{reason="malformed"}`: "1", `tebra_dead_letters_total{reason="malformed"}`: "1",
		`tebra_dead_letters_total{reason="no_answer"}`: "1", "tebra_redis_wait_seconds_sum": "60",
		`tebra_breaker_changes_total{to="open"}`: "1", `tebra_breaker_changes_total{to="closed"}`: "1", latency: "1",
	} {
		if got := b.value(series); got != want {
			t.Errorf("%s = %q, want %s", series, got, want)
		}
	}
}

func TestPushesAreCountedByTheirStatus(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	f := b.Functions(nil, nil)
	for _, status := range []int{204, 204, 503, 0} {
		h := f.Handler("ProcessRequest", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if status != 0 {
				w.WriteHeader(status)
			}
		}))
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
	}
	for code, want := range map[string]string{"200": "1", "204": "2", "503": "1"} {
		if got := b.value(`tebra_pushes_total{code="` + code + `",function="ProcessRequest"}`); got != want {
			t.Errorf("pushes answered with %s = %q, want %s", code, got, want)
		}
	}
}

// TestTheRuntimeIsMeasured names what dashboards use of it.
func TestTheRuntimeIsMeasured(t *testing.T) {
	t.Parallel()
	all := setup(t, Config{}).collected()
	for _, name := range []string{"go.memory.used", "go.goroutine.count", "process.cpu.time"} {
		if _, ok := all[name]; !ok {
			t.Errorf("%s is not measured", name)
		}
	}
	cpu, _ := all["process.cpu.time"].Data.(metricdata.Sum[float64])
	if !slices.ContainsFunc(cpu.DataPoints, func(p metricdata.DataPoint[float64]) bool { return p.Value > 0 }) {
		t.Errorf("process.cpu.time = %v, want some", cpu.DataPoints)
	}
}
