package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/rate"
	"tebraproxy/pkg/tebra"
)

// submit adds a request to the stream, unless one of the same user and ID is known
// to have been added: then that one counts, if it asks for the same.
//
// All that is said of a request comes after where this instance's reader is now. To
// ask Redis for the streams' ends would cost it more: XINFO comes with the first and
// the last entry of each, answers of megabytes perhaps, and Lua copies them.
//
//	KEYS  1 requests, 2 what is known of this user and ID
//	ARGV  1 fingerprint, 2 how long to know it in milliseconds, 3 correlation ID,
//	      4 a status and 5 a response before the entry, 6 … fields and values of it
//	returns {0} for another request under the same ID, or {1, entry, correlation
//	ID, status, response}; with 2 in place of 1 where it was added before
var submit = redis.NewScript(`
local known = redis.call('HMGET', KEYS[2], 'print', 'entry', 'correlation', 'status', 'responses')
if known[1] then
  if known[1] ~= ARGV[1] then return {0} end
  return {2, known[2], known[3], known[4], known[5]}
end
local entry = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 6))
redis.call('HSET', KEYS[2], 'print', ARGV[1], 'entry', entry, 'correlation', ARGV[3], 'status', ARGV[4], 'responses', ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {1, entry, ARGV[3], ARGV[4], ARGV[5]}
`)

// accepted is the body of a 202.
type accepted struct {
	ID            string `json:"id"`
	CorrelationID string `json:"correlationId"`
	Entry         string `json:"entry"`    // on the requests stream
	Repeated      bool   `json:"repeated"` // it was sent before
	Since         string `json:"since"`    // for /v1/events?since=: all that is said of this request comes after it
}

const (
	// postTimeout bounds what Redis may take.
	postTimeout = 5 * time.Second
	// bodyRoom is what a body may hold besides what becomes the entry.
	bodyRoom = 4 << 10
	// postBytes bounds the bodies that are in memory at a time, of which each takes
	// about five times its size until it is on the stream: the rate alone lets one
	// user send a hundred of the largest at once.
	postBytes = 32 << 20
	// userPostBytes bounds those of one user: whoever begins many and sends none of
	// them to its end would else keep everybody from posting.
	userPostBytes = postBytes / 4
)

// bodies counts the bytes of the bodies that are being taken. It is safe for concurrent
// use.
type bodies struct {
	mu  sync.Mutex
	all int64
	of  map[string]int64 // users
}

// take counts a body of n bytes, unless that is too much of a user's, or of all. One
// body of each user may be of any size.
func (b *bodies) take(user string, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all+n > postBytes || b.of[user] > 0 && b.of[user]+n > userPostBytes {
		return false
	}
	b.all += n
	b.of[user] += n
	return true
}

// done takes back what take has counted.
func (b *bodies) done(user string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all -= n
	if b.of[user] -= n; b.of[user] <= 0 {
		delete(b.of, user)
	}
}

func (g *Gateway) post(w http.ResponseWriter, r *http.Request) {
	who, _, ok := g.authenticate(w, r)
	if !ok || !g.admit(w, r, who.UserID) {
		return
	}
	size := g.sizeOf(r)
	if !g.posting.take(who.UserID, size) {
		g.log.Warn("a request was refused: those being taken fill the memory that they may")
		refuseFor(w, http.StatusServiceUnavailable, "unavailable", "too much is being sent right now; send it again with the same id", time.Second)
		return
	}
	defer g.posting.done(who.UserID, size)
	body, ok := g.read(w, r)
	if !ok {
		return
	}
	request, err := g.request(body, who.UserID, g.seen.Traceparent(r.Context()))
	if err != nil {
		refuseBody(w, err)
		return
	}
	if !g.awaitReader(w, r) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), postTimeout)
	defer cancel()
	answer, err := g.submit(ctx, request)
	switch {
	case errors.Is(err, errConflict):
		refuse(w, http.StatusConflict, "duplicate", "another request was made under this id before; choose another id")
	case err != nil:
		g.log.Warn("a request could not be put on the stream", "error", err)
		refuseFor(w, http.StatusServiceUnavailable, "unavailable", "requests can't be taken right now; send it again with the same id", time.Second)
	default:
		g.seen.Posted(ctx, request, answer.Entry)
		writeJSON(w, http.StatusAccepted, answer)
	}
}

// admit takes one turn of the user's rate, which all instances share, or answers
// with 429 or 503 and returns false.
func (g *Gateway) admit(w http.ResponseWriter, r *http.Request, user string) bool {
	ctx, cancel := context.WithTimeout(r.Context(), postTimeout)
	defer cancel()
	err := g.limiter.Wait(ctx, rate.Limit{
		Lane:     "user:" + tebra.LedgerHash(user, ""), // no lane is named like that
		Interval: time.Minute / time.Duration(g.cfg.UserRate), Burst: g.cfg.UserRate,
	}, 0)
	var late *rate.NotInTimeError
	switch {
	case err == nil:
		return true
	case errors.As(err, &late):
		refuseFor(w, http.StatusTooManyRequests, "rate_limited",
			fmt.Sprintf("more than %d requests a minute; slow down", g.cfg.UserRate), late.RetryAfter)
	default:
		g.log.Warn("the rate of a user could not be looked at", "error", err)
		refuseFor(w, http.StatusServiceUnavailable, "unavailable", "this can't be done right now; send it again, a request with the same id", time.Second)
	}
	return false
}

// mostBody is the largest body that is read.
func (g *Gateway) mostBody() int64 { return int64(g.cfg.MaxRequestBytes) + bodyRoom }

// sizeOf returns how large the body may be: of one that doesn't say, the most.
func (g *Gateway) sizeOf(r *http.Request) int64 {
	if r.ContentLength < 0 {
		return g.mostBody()
	}
	return min(r.ContentLength, g.mostBody())
}

// read returns the body, or refuses it and returns false.
func (g *Gateway) read(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "unsupported_media_type", "send JSON, with Content-Type: application/json")
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.mostBody()))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		refuse(w, http.StatusRequestEntityTooLarge, string(tebra.TooLarge), fmt.Sprintf("a request has at most %d bytes", g.cfg.MaxRequestBytes))
	case err != nil:
		refuse(w, http.StatusBadRequest, string(tebra.Malformed), "the body did not come whole")
	}
	return body, err == nil
}

// refuseBody refuses a body for what is wrong with it.
func refuseBody(w http.ResponseWriter, err error) {
	status, code := http.StatusBadRequest, tebra.Malformed
	if wrong, ok := tebra.IsDecodeError(err); ok && wrong.Code == tebra.TooLarge {
		status, code = http.StatusRequestEntityTooLarge, tebra.TooLarge
	}
	refuse(w, status, string(code), err.Error())
}

// asked is what a body says.
type asked struct{ id, correlationID, action, params string }

// request reads a body into what goes on the stream, in the user's name whatever
// the body says. Its errors name fields and quote nothing.
//
// traceparent is the gateway's own, "" where it traces nothing: then the bridge
// begins the trace. A browser's never goes along as it came. Its sampled flag would
// have all that comes after trace as many requests as browsers like, and without
// the flag none of them.
func (g *Gateway) request(body []byte, user, traceparent string) (tebra.Request, error) {
	a, err := parseBody(body)
	if err != nil {
		return tebra.Request{}, err
	}
	if a.id == "" {
		a.id = uuid.NewString()
	}
	if a.correlationID == "" {
		a.correlationID = a.id
	}
	if a.params == "" {
		a.params = "{}"
	}
	publisher, err := json.Marshal(map[string]string{"publishedBy": user})
	if err != nil {
		return tebra.Request{}, err
	}
	// By the rules that a bridge will read it by, its size among them.
	return tebra.DecodeEntry(entryOf(tebra.Request{
		ID: a.id, Action: a.action, Params: json.RawMessage(a.params), UserID: user, Timestamp: tebra.FormatTime(time.Now()),
		CorrelationID: a.correlationID, Metadata: publisher, Traceparent: traceparent,
	}), g.cfg.MaxRequestBytes)
}

// entryOf returns the fields and values of a request's entry.
func entryOf(r tebra.Request) []string {
	fields := []string{
		"id", r.ID, "action", r.Action, "params", string(r.Params), "userId", r.UserID, "timestamp", r.Timestamp,
		"correlationId", r.CorrelationID, "_metadata", string(r.Metadata),
	}
	if r.Traceparent != "" {
		fields = append(fields, "traceparent", r.Traceparent)
	}
	return fields
}

// parseBody reads the one JSON object that a body is. Other members than it knows
// are refused, and so is one that is there twice: encoding/json would let the last
// win. userId and timestamp may be there, as in what applications write to the
// stream; they count for nothing.
func parseBody(body []byte) (asked, error) {
	var a asked
	var ignored string
	slots := map[string]*string{
		"id": &a.id, "correlationId": &a.correlationID, "action": &a.action, "params": &a.params,
		"userId": &ignored, "timestamp": &ignored,
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return a, errors.New(`the body is not a JSON object: want {"action": …, "params": {…}}`)
	}
	seen := make(map[string]bool, len(slots))
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return a, errors.New("the body is not JSON")
		}
		key, _ := name.(string) // the decoder lets nothing else through here
		slot := slots[key]
		switch {
		case slot == nil:
			return a, errors.New("the body has a member that is none of action, params, id and correlationId")
		case seen[key]:
			return a, fmt.Errorf("the body has the member %s twice", key)
		}
		seen[key] = true
		if err := readMember(dec, key, slot); err != nil {
			return a, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return a, errors.New("the body is not JSON")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return a, errors.New("the body goes on after its JSON object")
	}
	return a, nil
}

// readMember reads the value of a member into slot: params as JSON, all else as
// text. null stands for a member that is not there, but not for params: whoever builds
// them and gets null made a mistake.
func readMember(dec *json.Decoder, name string, slot *string) error {
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return fmt.Errorf("the body's member %s is not JSON", name)
	}
	switch {
	case name == "params" && raw[0] != '{':
		return errors.New("params is not a JSON object")
	case name == "params":
		*slot = string(raw)
		return nil
	case name == "timestamp": // milliseconds or text; it counts for nothing
		return nil
	case json.Unmarshal(raw, slot) != nil:
		return fmt.Errorf("%s is not text", name)
	}
	return nil
}

// errConflict says that the ID belongs to another request.
var errConflict = errors.New("another request has this id")

// submit puts a request on the stream once, however often it is sent.
func (g *Gateway) submit(ctx context.Context, r tebra.Request) (accepted, error) {
	at := g.hub.position()
	args := []any{
		tebra.Fingerprint(r.Action, r.Params), g.cfg.Retention.Milliseconds(), r.CorrelationID,
		at[ofStatus].String(), at[ofResponses].String(),
	}
	for _, text := range entryOf(r) {
		args = append(args, text)
	}
	keys := []string{g.keys.Requests(), g.keys.Posted(tebra.LedgerHash(r.UserID, r.ID))}
	reply, err := submit.Run(ctx, g.rdb, keys, args...).Slice()
	if err != nil {
		return accepted{}, err
	}
	if len(reply) == 1 {
		return accepted{}, errConflict
	}
	var texts [4]string // entry, correlation ID, status, response
	for i := range texts {
		text, ok := "", false
		if len(reply) == len(texts)+1 {
			text, ok = reply[i+1].(string)
		}
		if !ok {
			return accepted{}, fmt.Errorf("unexpected reply of %d parts", len(reply))
		}
		texts[i] = text
	}
	since := streamNames[ofStatus] + ":" + texts[2] + "," + streamNames[ofResponses] + ":" + texts[3]
	repeated := reply[0] == int64(2)
	return accepted{ID: r.ID, CorrelationID: texts[1], Entry: texts[0], Repeated: repeated, Since: since}, nil
}
