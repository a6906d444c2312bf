package console

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/tebra"
)

func newTestLive() *live {
	return newLive(nil, func() time.Time { return time.UnixMilli(1_700_000_000_000) }, slog.New(slog.DiscardHandler))
}

// answeredIn is a request that was answered after so long.
func answeredIn(id int, state tebra.State, took time.Duration) inspect.Request {
	at := time.UnixMilli(1_600_000_000_000)
	return inspect.Request{RequestID: fmt.Sprint(id), UserID: "u", Arrived: at, Changed: at.Add(took), State: state, Params: json.RawMessage(`"Mrs Health"`)}
}

// TestASlowPageLosesItsStream, and no other does.
func TestASlowPageLosesItsStream(t *testing.T) {
	t.Parallel()
	l := newTestLive()
	slow, quick := l.join(), l.join()
	for n := range queueLength {
		l.take([]inspect.Request{answeredIn(n, tebra.Success, time.Second)})
		<-quick.messages
	}
	select {
	case <-slow.gone:
	default:
		t.Error("a page that takes nothing is still served")
	}
	select {
	case <-quick.gone:
		t.Error("a page that takes everything lost its stream")
	default:
	}
	l.leave(slow) // as its handler does
	l.leave(quick)
	if len(l.pages) != 0 {
		t.Errorf("%d pages are remembered after all left, want none", len(l.pages))
	}
}

// TestARequestThatComesAgainIsTheNewest: a replay is at the table's top, once.
func TestARequestThatComesAgainIsTheNewest(t *testing.T) {
	t.Parallel()
	l := newTestLive()
	replayed := answeredIn(0, tebra.Failed, time.Second)
	l.take([]inspect.Request{replayed, answeredIn(1, tebra.Success, time.Second)})
	replayed.Arrived = replayed.Arrived.Add(time.Minute)
	for range 2 { // a change of it moves nothing
		l.take([]inspect.Request{replayed})
	}
	if want := []requestKey{{"u", "1"}, {"u", "0"}}; !slices.Equal(l.order, want) {
		t.Errorf("requests are in the order %v, want %v", l.order, want)
	}
}

// TestNoTimeIsShownThatIsNotKnown: of a request of which only statuses were seen it is
// unknown when it arrived, until somebody knew it.
func TestNoTimeIsShownThatIsNotKnown(t *testing.T) {
	t.Parallel()
	l := newTestLive()
	p := l.join()
	<-p.messages
	seen := answeredIn(0, tebra.Success, time.Second)
	unknown := seen
	unknown.Arrived = time.Time{}
	l.take([]inspect.Request{unknown})
	if message := string(<-p.messages); strings.Contains(message, "arrived") {
		t.Errorf("message = %s, want no time of arrival in it", message)
	}
	l.sample()
	if s := l.samples[0]; s.Success != 1 || s.P95 != 0 {
		t.Errorf("sample = %+v, want one success and no time of it", s)
	}
	<-p.messages
	l.take([]inspect.Request{seen, answeredIn(1, tebra.Success, time.Second), unknown})
	message := string(<-p.messages)
	if strings.Count(message, `"arrived":"`) != 3 {
		t.Errorf("message = %s, want when each request arrived", message)
	}
	if want := []requestKey{{"u", "0"}, {"u", "1"}}; !slices.Equal(l.order, want) {
		t.Errorf("requests are in the order %v, want %v: none came again", l.order, want)
	}
}

// TestWhatIsRememberedIsBounded, and holds no contents.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	t.Parallel()
	l := newTestLive()
	for n := range 3 * mostRequests {
		l.take([]inspect.Request{answeredIn(n, tebra.Success, time.Second)})
		l.sample()
	}
	if len(l.requests) != mostRequests || len(l.order) != mostRequests || len(l.samples) != mostSamples {
		t.Errorf("%d requests in order of %d, %d samples, want %d and %d", len(l.requests), len(l.order), len(l.samples), mostRequests, mostSamples)
	}
	p := l.join()
	snapshot := string(<-p.messages)
	if strings.Contains(snapshot, "Mrs Health") {
		t.Error("the snapshot holds contents that nobody asked for")
	}
	if newest := fmt.Sprintf(`"requestId":"%d"`, 3*mostRequests-1); !strings.Contains(snapshot, newest) {
		t.Errorf("the snapshot does not hold the newest request, %s", newest)
	}
	for range mostPages {
		l.join()
	}
	if len(l.pages) != mostPages {
		t.Errorf("%d pages are served, want at most %d", len(l.pages), mostPages)
	}
}

// TestASampleCountsAnswersOnce, and only answers.
func TestASampleCountsAnswersOnce(t *testing.T) {
	t.Parallel()
	l := newTestLive()
	for n := range 100 {
		l.take([]inspect.Request{
			answeredIn(n, tebra.Pending, 0), answeredIn(n, tebra.Processing, time.Millisecond),
			answeredIn(n, tebra.Success, time.Duration(n+1)*time.Millisecond),
		})
	}
	l.take([]inspect.Request{answeredIn(100, tebra.Failed, time.Second)})
	l.sample()
	l.sample()
	first, second := l.samples[0], l.samples[1]
	if first.Success != 100 || first.Errors != 1 || first.P50 != 51 || first.P95 != 96 {
		t.Errorf("sample = %+v, want 100 and 1 with 51 ms and 96 ms", first)
	}
	if second.Success != 0 || second.Errors != 0 || second.P50 != 0 {
		t.Errorf("the sample after it = %+v, want none", second)
	}
}
