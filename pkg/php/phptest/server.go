package phptest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// DefaultJournalLimit is how many calls the journal keeps unless told otherwise.
const DefaultJournalLimit = 100_000

// maxBodyBytes is the longest request that is read.
const maxBodyBytes = 8 << 20

// maxHang bounds how long a call hangs when its caller does not leave.
const maxHang = 10 * time.Minute

// Config is what [New] needs. Only APIKey is required.
type Config struct {
	// APIKey is what callers must send in X-API-Key.
	APIKey string
	// Now is the clock of the journal and of answers. nil means time.Now.
	Now func() time.Time
	// Seed makes rules with a probability repeatable.
	Seed uint64
	// JournalLimit bounds the journal. 0 means DefaultJournalLimit.
	JournalLimit int
	// JournalWriter, when set, gets every journal entry as a line of JSON, one Write each.
	JournalWriter io.Writer
}

// Rule says how to answer some calls.
type Rule struct {
	// Action and RequestID choose the calls; empty means any.
	Action    string
	RequestID string
	// Do is the behaviour, in the words of the package's documentation.
	Do string
	// Times is for how many calls the rule holds. 0 means always.
	Times int
	// Probability is the chance that the rule takes a call that it chooses. 0 means 1.
	Probability float64
}

// rule is a Rule that was checked.
type rule struct {
	Rule
	do   behaviour
	left int
}

// Server is the stand-in, an http.Handler. It is safe for concurrent use, and
// starts no goroutine.
type Server struct {
	apiKey  string
	now     func() time.Time
	journal journal

	mu    sync.Mutex
	rules []*rule
	rand  *rand.Rand
	down  bool
}

// New returns a stand-in that answers everything as it should.
func New(cfg Config) *Server {
	s := &Server{
		apiKey:  cfg.APIKey,
		now:     cfg.Now,
		journal: journal{limit: cfg.JournalLimit, out: cfg.JournalWriter},
		rand:    rand.New(rand.NewPCG(cfg.Seed, cfg.Seed)),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.journal.limit == 0 {
		s.journal.limit = DefaultJournalLimit
	}
	return s
}

// Behave adds a rule. For each call the first rule, in the order added, that chooses it
// and is not used up decides. It returns an error when r is not understood.
func (s *Server) Behave(r Rule) error {
	do, err := parseBehaviour(r.Do)
	if err != nil {
		return err
	}
	if r.Times < 0 || r.Probability < 0 || r.Probability > 1 {
		return fmt.Errorf("rule %q: want Times of 0 or more and a Probability from 0 to 1", r.Do)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append(s.rules, &rule{Rule: r, do: do, left: r.Times})
	return nil
}

// Reset removes all rules. The journal stays.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = nil
}

// Down makes every call end with a closed connection, executed by nobody and not
// in the journal, until [Server.Up].
func (s *Server) Down() { s.setDown(true) }

// Up ends [Server.Down].
func (s *Server) Up() { s.setDown(false) }

func (s *Server) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *Server) isDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

// ServeHTTP answers one call, in the order in which the API checks: key, method,
// JSON, then what the action itself needs.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.isDown() {
		panic(http.ErrAbortHandler)
	}
	reply := &reply{w: w, r: r, now: s.now()}
	if r.Header.Get("X-API-Key") != s.apiKey {
		reply.fail(http.StatusUnauthorized, "authentication_error", "Unauthorized")
		return
	}
	if r.Method != http.MethodPost {
		reply.fail(http.StatusMethodNotAllowed, "method_error", "Method not allowed")
		return
	}
	c, err := s.understand(w, r)
	if err != nil {
		reply.fail(http.StatusBadRequest, "json_error", err.Error())
		return
	}
	do, err := s.behaviour(c)
	if err != nil {
		reply.fail(http.StatusBadRequest, "validation_error", err.Error())
		return
	}
	if !reply.wait(do.latency) {
		return
	}
	s.answer(reply, c, do)
}

// answer executes the call, where the behaviour lets it, and replies.
func (s *Server) answer(reply *reply, c call, do behaviour) {
	a, known := actions[c.action]
	entry := Entry{
		Time: c.now, Action: c.action, Write: a.write,
		RequestID: c.requestID, CorrelationID: reply.r.Header.Get("X-Correlation-ID"),
	}
	if !do.act {
		s.journal.add(entry)
		reply.as(do, nil)
		return
	}
	var data any
	err := error(invalid("Unknown action: " + c.action))
	if known {
		data, err = a.run(c)
	}
	entry.Executed = err == nil
	s.journal.add(entry)
	if err != nil {
		reply.fail(http.StatusBadRequest, "validation_error", err.Error())
		return
	}
	reply.as(do, object{"success": true, "data": data})
}

// understand reads the body. PHP can't tell an empty object from an empty list, so
// params may be [] too.
func (s *Server) understand(w http.ResponseWriter, r *http.Request) (call, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		return call{}, errors.New("the body could not be read")
	}
	var in struct {
		Action string          `json:"action"`
		Params json.RawMessage `json:"params"`
	}
	if json.Unmarshal(body, &in) != nil {
		return call{}, errors.New("Invalid JSON in request body") //lint:ignore ST1005 these are the API's own words
	}
	c := call{action: in.Action, requestID: r.Header.Get("Idempotency-Key"), now: s.now()}
	if len(in.Params) == 0 || string(in.Params) == "[]" {
		return c, nil
	}
	if json.Unmarshal(in.Params, &c.params) != nil {
		return call{}, errors.New("params must be an object")
	}
	return c, nil
}

// behaviour finds how to answer c: as it asks itself, or by the first rule that takes it.
func (s *Server) behaviour(c call) (behaviour, error) {
	if raw, ok := c.params["_behave"]; ok {
		var words string
		if json.Unmarshal(raw, &words) != nil {
			return behaviour{}, errors.New("_behave must be a string")
		}
		return parseBehaviour(words)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rules {
		if s.takes(r, c) {
			return r.do, nil
		}
	}
	return behaviour{word: wordOK, act: true}, nil
}

// takes reports whether r decides c, and uses it up by one if so. The caller holds s.mu.
func (s *Server) takes(r *rule, c call) bool {
	switch {
	case r.Action != "" && r.Action != c.action,
		r.RequestID != "" && r.RequestID != c.requestID,
		r.Times > 0 && r.left == 0,
		r.Probability > 0 && s.rand.Float64() >= r.Probability:
		return false
	}
	r.left--
	return true
}

// reply writes one answer.
type reply struct {
	w   http.ResponseWriter
	r   *http.Request
	now time.Time
}

// as replies in the way that do says. ordinary is the answer of a call that was executed.
func (p *reply) as(do behaviour, ordinary any) {
	if do.retryAfter != "" {
		p.w.Header().Set("Retry-After", do.retryAfter)
	}
	switch do.word {
	case wordOK:
		p.send(http.StatusOK, ordinary)
	case wordHang:
		p.wait(maxHang)
		panic(http.ErrAbortHandler)
	case wordDrop:
		panic(http.ErrAbortHandler)
	case wordStatus:
		p.status(do.n)
	case wordFail:
		p.send(http.StatusOK, hiddenFailure(do.n))
	case wordThrottle:
		p.send(http.StatusOK, object{"success": true, "data": object{"success": false, "message": throttleText}})
	case wordThrottle503:
		p.fault(throttleText)
	case wordIsError, wordDenied:
		p.send(http.StatusOK, object{"success": true, "data": tebraFailure(do.word)})
	case wordText:
		p.page(http.StatusOK, "<br />\n<b>Fatal error</b>: made up")
	case wordEmpty:
		p.w.WriteHeader(http.StatusOK)
	case wordHalf:
		p.half(ordinary)
	case wordTrickle:
		p.trickle(ordinary, do.every)
	case wordHuge:
		p.huge(do.n)
	}
}

const throttleText = "429: GetPatients endpoint requested more than allowed over time interval 1000 milliseconds"

// status replies with an HTTP error as the API, or what stands before it, does.
func (p *reply) status(code int) {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		p.fail(code, "authentication_error", "Unauthorized")
	case http.StatusMethodNotAllowed:
		p.fail(code, "method_error", "Method not allowed")
	case http.StatusBadRequest:
		p.fail(code, "validation_error", "A made-up validation error")
	case http.StatusInternalServerError:
		p.fail(code, "internal_error", "An internal server error occurred")
	case http.StatusServiceUnavailable:
		p.fault("A made-up fault")
	default:
		if code < 400 {
			p.w.Header().Set("Location", "/elsewhere")
		}
		p.page(code, http.StatusText(code))
	}
}

// fail replies with the API's error envelope.
func (p *reply) fail(status int, kind, text string) {
	p.send(status, p.envelope(kind, text))
}

// fault replies with a soap_fault.
func (p *reply) fault(text string) {
	e := p.envelope("soap_fault", "SOAP error: "+text)
	e["fault_code"] = "s:Server"
	e["fault_string"] = text
	p.send(http.StatusServiceUnavailable, e)
}

func (p *reply) envelope(kind, text string) object {
	return object{
		"success": false, "error": text, "type": kind,
		"timestamp":      p.now.UTC().Format(time.RFC3339),
		"correlation_id": p.r.Header.Get("X-Correlation-ID"),
	}
}

// send replies with JSON. Like PHP it calls a success text/html (FACTS).
func (p *reply) send(status int, body any) {
	p.w.Header().Set("Content-Type", contentType(status))
	p.w.WriteHeader(status)
	p.write(encode(body))
}

func contentType(status int) string {
	if status == http.StatusOK {
		return "text/html; charset=UTF-8"
	}
	return "application/json"
}

// page replies with something that is no JSON.
func (p *reply) page(status int, text string) {
	p.w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	p.w.WriteHeader(status)
	p.write([]byte(text))
}

// half promises the whole body and sends a part.
func (p *reply) half(body any) {
	text := encode(body)
	p.w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	p.w.WriteHeader(http.StatusOK)
	p.write(text[:len(text)/2])
	p.flush()
	panic(http.ErrAbortHandler)
}

func (p *reply) trickle(body any, every time.Duration) {
	text := encode(body)
	p.w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	p.w.WriteHeader(http.StatusOK)
	for i := range text {
		p.write(text[i : i+1])
		p.flush()
		if !p.wait(every) {
			return
		}
	}
}

// huge sends a valid answer of about n bytes without holding it in memory.
func (p *reply) huge(n int) {
	const head, tail = `{"success":true,"data":"`, `"}`
	chunk := []byte(strings.Repeat("x", 64<<10))
	p.w.WriteHeader(http.StatusOK)
	p.write([]byte(head))
	for left := n - len(head) - len(tail); left > 0; left -= len(chunk) {
		p.write(chunk[:min(left, len(chunk))])
	}
	p.write([]byte(tail))
}

// write sends a piece of the body. When the caller has left, the call ends here.
func (p *reply) write(b []byte) {
	if _, err := p.w.Write(b); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// flush sends what was written so far.
func (p *reply) flush() {
	if err := http.NewResponseController(p.w).Flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// wait waits d, and returns false when the caller left before.
func (p *reply) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.r.Context().Done():
		return false
	}
}

// hiddenFailure is a 200's body that fails at the given depth only.
func hiddenFailure(depth int) object {
	body := object{"success": false, "message": "A made-up failure", "error": "A made-up failure"}
	for range depth {
		body = object{"success": true, "data": body}
	}
	return body
}

// tebraFailure is Tebra's own form of a refusal, passed through unread.
func tebraFailure(word string) object {
	answer := tebraAnswer("Patients", []any{})
	if word == wordIsError {
		answer["ErrorResponse"] = object{"ErrorMessage": "A made-up failure", "IsError": true}
		return answer
	}
	answer["SecurityResponse"] = object{"Authenticated": true, "Authorized": false, "SecurityResult": "Not authorized"}
	return answer
}

// encode writes v as JSON. Everything that is passed to it can be written.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("phptest: encode an answer: %v", err))
	}
	return text
}
