package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"time"

	"tebraproxy/pkg/telemetry"
)

const (
	// writeTimeout is how long a client may take to take writePart of what is written
	// to it, and so every 256 KiB of an answer: 26 kB/s get it through.
	writeTimeout = 10 * time.Second
	writePart    = 256 << 10
	// readyTimeout is how long a client waits for a reader that has just started.
	readyTimeout = 5 * time.Second
)

// events streams the caller's events until its token expires, the stream has
// lasted long enough, the client leaves or is too slow, or the server stops. The
// client then comes back with Last-Event-ID.
func (g *Gateway) events(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead { // it would never end
		unknownPath(w, r)
		return
	}
	who, token, ok := g.authenticate(w, r)
	if !ok || !g.admit(w, r, who.UserID) {
		return
	}
	from, resumes, err := since(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "bad_position", "Last-Event-ID: "+err.Error())
		return
	}
	if !g.awaitReader(w, r) {
		return
	}
	c, at, err := g.hub.join(who.UserID)
	if err != nil {
		refuseStream(w, err)
		return
	}
	defer g.hub.leave(c)
	s := &eventStream{g: g, w: w, rc: http.NewResponseController(w), client: c, who: who, token: token, at: at}
	var lost bool
	if resumes {
		if s.at, lost, err = g.past.lost(r.Context(), from); err != nil {
			g.log.Warn("an event stream could not be resumed", "error", err)
			refuseFor(w, http.StatusServiceUnavailable, "unavailable", "events can't be read right now; come again", time.Second)
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), g.lasting(who))
	defer cancel()
	ended := g.seen.Streaming()
	defer func() { ended(g.whyEnded(ctx, err)) }() // also if it panics, or it would count as open for ever
	if err = s.run(ctx, at, lost); err != nil {
		g.log.Debug("an event stream ended", "error", err)
	}
}

// whyEnded says why an event stream ended, in a word of package telemetry's. ctx is
// what bounded it.
func (g *Gateway) whyEnded(ctx context.Context, err error) string {
	var wrong *TokenError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, errUnread): // of a write; the server ends ctx then
		return telemetry.StreamSlow
	case errors.Is(ctx.Err(), context.Canceled):
		return telemetry.StreamLeft
	case ctx.Err() != nil:
		return telemetry.StreamOver
	case errors.As(err, &wrong):
		return telemetry.StreamRevoked
	case errors.Is(err, errUnread):
		return telemetry.StreamFailed
	case errors.Is(err, errLetGo) && !g.hub.running():
		return telemetry.StreamStopping
	case errors.Is(err, errLetGo), errors.Is(err, context.DeadlineExceeded): // by the hub, or over what it missed
		return telemetry.StreamSlow
	default: // a write that went nowhere
		return telemetry.StreamLeft
	}
}

// since returns where the client wants to go on, false for the present.
func since(r *http.Request) (position, bool, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("since")
	}
	if text == "" {
		return position{}, false, nil
	}
	p, err := parsePosition(text)
	return p, true, err
}

// awaitReader waits until it is known where the streams are now, or answers with
// 503 and returns false.
func (g *Gateway) awaitReader(w http.ResponseWriter, r *http.Request) bool {
	timer := time.NewTimer(readyTimeout)
	defer timer.Stop()
	select {
	case <-g.hub.ready:
		return true
	case <-r.Context().Done():
	case <-timer.C:
	}
	refuseFor(w, http.StatusServiceUnavailable, "unavailable", "the streams can't be read right now; come again, a request with the same id", time.Second)
	return false
}

func refuseStream(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errUserFull):
		refuseFor(w, http.StatusTooManyRequests, "too_many_streams", err.Error()+"; close one", 5*time.Second)
	default: // full or stopping: another instance has room
		refuseFor(w, http.StatusServiceUnavailable, "unavailable", err.Error()+"; come again", time.Second)
	}
}

// lasting is how long a stream may last: the ends of many that began together are
// spread, as they all come back.
func (g *Gateway) lasting(who Identity) time.Duration {
	d := g.cfg.StreamTime - rand.N(g.cfg.StreamTime/10+1)
	if who.Expires.IsZero() {
		return d
	}
	return min(d, time.Until(who.Expires))
}

// eventStream is one client's side of an event stream. It belongs to one goroutine.
type eventStream struct {
	g      *Gateway
	w      http.ResponseWriter
	rc     *http.ResponseController
	client *client
	who    Identity
	token  string
	at     position  // all up to it has been written
	spoke  time.Time // when the client last got something
}

// errLetGo says that the hub ended the stream.
var errLetGo = errors.New("the client was too slow, or the server stops")

// run writes what the client missed up to joined, and then what comes.
func (s *eventStream) run(ctx context.Context, joined position, lost bool) error {
	if err := s.begin(lost); err != nil {
		return err
	}
	if err := s.replay(ctx, joined); err != nil {
		return err
	}
	s.at = s.at.later(joined)
	if err := s.flush(); err != nil {
		return err
	}
	beat := time.NewTicker(s.g.heartbeat)
	defer beat.Stop()
	check := time.NewTicker(s.g.recheck)
	defer check.Stop()
	for {
		var err error
		select {
		case e := <-s.client.events:
			err = s.take(e)
		case <-beat.C:
			err = s.beat()
		case <-check.C:
			err = s.check(ctx)
		case <-s.client.gone:
			return errLetGo
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// replay writes what the client missed up to joined. It tells now and then how far
// it is, so that a client whose replay takes too long, or which is let go, gets further
// with the next one.
func (s *eventStream) replay(ctx context.Context, joined position) error {
	ctx, cancel := context.WithTimeout(ctx, longestReplay)
	defer cancel()
	return s.g.past.read(ctx, s.client, s.at, joined, s.write, func(at position) error {
		s.at = s.at.later(at)
		if time.Since(s.spoke) < s.g.heartbeat {
			return s.flush()
		}
		return s.tell()
	})
}

// begin sends the header and the first event, which tells the client that nothing
// is missed from here on, and where that is.
func (s *eventStream) begin(lost bool) error {
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	// The server's own deadlines are those of a short request.
	if err := s.rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	s.w.WriteHeader(http.StatusOK)
	if lost {
		if err := s.send(fmt.Appendf(nil, "event: reset\nid: %v\ndata: {\"type\":\"reset\",\"message\":\"events after Last-Event-ID are no longer kept; send again what is unanswered, under its id\"}\n\n", s.at)); err != nil {
			return err
		}
	}
	if err := s.send(fmt.Appendf(nil, "event: ready\nid: %v\ndata: {\"type\":\"ready\"}\n\n", s.at)); err != nil {
		return err
	}
	return s.flush()
}

// take writes an event and all that wait behind it.
func (s *eventStream) take(e *event) error {
	for {
		s.g.hub.took(s.client, e)
		if s.client.letGo() { // the hub empties the queue then: e may not be the next
			return errLetGo
		}
		err := s.write(e)
		s.g.hub.wrote(s.client, len(e.data))
		if err != nil {
			return err
		}
		select {
		case e = <-s.client.events:
		default:
			return s.flush()
		}
	}
}

// write writes an event that the client does not know yet, under the position that
// it is at then.
func (s *eventStream) write(e *event) error {
	if e.id.Compare(s.at[e.stream]) <= 0 {
		return nil
	}
	s.at[e.stream] = e.id
	if err := s.send([]byte("id: " + s.at.String() + "\n")); err != nil {
		return err
	}
	return s.send(e.data)
}

// beat tells the client that the stream is alive, and how far it is: a client that
// comes back after a quiet hour need not read that hour again.
func (s *eventStream) beat() error {
	if s.client.letGo() {
		return errLetGo
	}
	if at, all := s.g.hub.seen(s.client); all {
		s.at = s.at.later(at)
	}
	return s.tell()
}

// tell tells the client how far it is.
func (s *eventStream) tell() error {
	if err := s.send([]byte(": beat\nid: " + s.at.String() + "\n\n")); err != nil {
		return err
	}
	return s.flush()
}

// check ends the stream of a user whose tokens were revoked since.
func (s *eventStream) check(ctx context.Context) error {
	_, err := s.g.verify(ctx, s.token)
	var wrong *TokenError
	if errors.As(err, &wrong) {
		return wrong
	}
	return nil // that it can't be found out now is no reason
}

// send writes data. Each part has its own time: a stream lasts longer than any one
// deadline, and a large answer takes a slow client longer.
func (s *eventStream) send(data []byte) error {
	for part := range slices.Chunk(data, writePart) {
		if err := s.allow(); err != nil {
			return err
		}
		if _, err := s.w.Write(part); err != nil {
			return err
		}
	}
	s.spoke = time.Now()
	return nil
}

// flush has its own time, too: between what was written last and this Redis may have
// taken long for a page of what the client missed, which is not the client's fault.
func (s *eventStream) flush() error {
	if err := s.allow(); err != nil {
		return err
	}
	return s.rc.Flush()
}

// allow gives the client writeTimeout for what is written next.
func (s *eventStream) allow() error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
