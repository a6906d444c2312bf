package php

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/sethvargo/go-retry"
)

// Defaults of [Config] and [Request].
const (
	DefaultTimeout          = 30 * time.Second
	DefaultMaxResponseBytes = 8 << 20
)

const (
	// connectTimeout bounds a dial, and the TLS handshake after it, so that there
	// is time for more than one try within DefaultTimeout.
	connectTimeout = 5 * time.Second
	// maxErrorBytes is how much of an error answer is looked at.
	maxErrorBytes = 64 << 10
	// maxAnswerHeaderBytes bounds the header of an answer.
	maxAnswerHeaderBytes = 64 << 10
)

// TokenSource gives Google ID tokens for the API's audience, where it stands
// behind Cloud Run's IAM. It caches by itself; the text of its errors goes to
// logs, so it must hold no secret.
type TokenSource interface {
	Token(ctx context.Context) (string, error)
}

// Config is what [New] needs. Only URL and APIKey are required.
type Config struct {
	// URL of the API, http or https, without user and password.
	URL string
	// APIKey goes into X-API-Key, to the host of URL and nowhere else.
	APIKey string
	// Tokens, when set, gives the bearer token of each call.
	Tokens TokenSource
	// MaxResponseBytes is the longest answer that is carried, after which
	// response_too_large. 0 means DefaultMaxResponseBytes (8 MiB): a day's schedule of
	// hundreds of appointments is about 1 MB, and the answer goes through Redis.
	MaxResponseBytes int64
	// Dial connects to the API. nil means a net.Dialer with a timeout of 5 s.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS, when set, is how the API's certificate is checked. It is cloned.
	TLS *tls.Config
	// Now is the clock against which Retry-After dates are read. nil means time.Now.
	Now func() time.Time
	// Backoff returns a new backoff for one call: how long to wait before the next
	// try, and when to stop. It is asked only after tries that never reached the
	// API. nil means two more tries, after about 100 and 200 ms.
	Backoff func() retry.Backoff
}

// Client calls the API. It is safe for concurrent use. Close ends the connections
// that it keeps for reads.
type Client struct {
	url      string
	apiKey   string
	tokens   TokenSource
	maxBytes int64
	now      func() time.Time
	backoff  func() retry.Backoff
	// The transports are used without an http.Client, so no redirect is ever
	// followed and the key goes to no other host. Only reads share connections.
	reads, writes *http.Transport
}

// New returns a client, or an error that names all that is wrong with cfg and
// shows neither the key nor the URL, which may hold a secret too. It never dials.
func New(cfg Config) (*Client, error) {
	if err := errors.Join(checkURL(cfg.URL), checkKey(cfg.APIKey), checkBound(cfg.MaxResponseBytes)); err != nil {
		return nil, err
	}
	c := &Client{
		url: cfg.URL, apiKey: cfg.APIKey, tokens: cfg.Tokens,
		maxBytes: cfg.MaxResponseBytes, now: cfg.Now, backoff: cfg.Backoff,
		reads:  newTransport(cfg),
		writes: newTransport(cfg),
	}
	c.writes.DisableKeepAlives = true
	if c.maxBytes == 0 {
		c.maxBytes = DefaultMaxResponseBytes
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.backoff == nil {
		c.backoff = defaultBackoff
	}
	return c, nil
}

// Close ends the connections that wait for another read. Calls that are under way
// are not touched.
func (c *Client) Close() { c.reads.CloseIdleConnections() }

func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("API URL: not a URL")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return errors.New("API URL: want http:// or https:// and a host")
	case u.User != nil:
		return errors.New("API URL: must not hold a user or password")
	}
	return nil
}

func checkKey(s string) error {
	if fitsHeader(s) {
		return nil
	}
	return errors.New("API key: empty, or holds a byte that no header can carry, such as a newline at its end")
}

func checkBound(n int64) error {
	if n < 0 {
		return fmt.Errorf("longest answer: %d bytes is negative", n)
	}
	return nil
}

// keptConnections is how many connections wait for the next read, and keptFor how
// long: less than servers usually keep them.
const (
	keptConnections = 64
	keptFor         = 30 * time.Second
)

// newTransport returns a transport that keeps connections; doc.go says why one for
// writes must not. It knows no proxy: the key goes to the API's host directly.
func newTransport(cfg Config) *http.Transport {
	t := &http.Transport{
		DialContext:            cfg.Dial,
		MaxIdleConnsPerHost:    keptConnections,
		IdleConnTimeout:        keptFor,
		DisableCompression:     true,
		TLSHandshakeTimeout:    connectTimeout,
		MaxResponseHeaderBytes: maxAnswerHeaderBytes,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if cfg.Dial == nil {
		t.DialContext = (&net.Dialer{Timeout: connectTimeout}).DialContext
	}
	if cfg.TLS != nil {
		t.TLSClientConfig = cfg.TLS.Clone()
		t.TLSClientConfig.NextProtos = nil
	}
	return t
}

func defaultBackoff() retry.Backoff {
	return retry.WithMaxRetries(2, retry.WithJitterPercent(50, retry.NewExponential(100*time.Millisecond)))
}

// Request is one call to make.
type Request struct {
	Action string
	// Params is sent as it is, to the byte. Empty means {}.
	Params json.RawMessage
	// Write says that the action changes something.
	Write bool
	// RequestID, CorrelationID and Traceparent go into headers. Of the first two,
	// bytes other than visible ASCII, and %, are sent as %XX, and what is then over
	// 1,024 bytes is left out; so is a traceparent that is not well formed.
	RequestID     string
	CorrelationID string
	Traceparent   string
	// Timeout bounds the whole call: all tries, and reading the answer to its end.
	// 0 means DefaultTimeout.
	Timeout time.Duration
}

// Call makes one call and says what became of it. It never panics on what the
// API sends, never returns an error beside the result, and returns within the
// request's timeout or soon after ctx ends. At most one request reaches the API.
// When ctx ends first, that does not count as a failure of the infrastructure.
func (c *Client) Call(ctx context.Context, r Request) Result {
	s, tries := c.call(ctx, r)
	result := judge(s, r.Write)
	result.Tries = tries
	return result
}

// call tries until the request may have been sent, the backoff has no more, or
// time is up.
func (c *Client) call(parent context.Context, r Request) (s sighting, tries int) {
	body, err := encode(r)
	if err != nil {
		return sighting{finding: malformed, cause: err.Error()}, 0
	}
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(parent, timeout)
	defer cancel()

	header, err := c.header(ctx, r)
	if err != nil {
		return unsent(parent, fmt.Sprintf("no ID token for the API: %s", clip(err.Error(), 256))), 0
	}
	s = unsent(parent, "time was up before the API was called")
	// Do's error says no more than s does.
	_ = retry.Do(ctx, c.backoff(), func(ctx context.Context) error {
		tries++
		s = c.try(parent, ctx, r.Write, header, body)
		if s.finding == neverSent {
			return retry.RetryableError(errNeverSent)
		}
		return nil
	})
	return s, tries
}

var errNeverSent = errors.New("the request never reached the API")

// encode returns the body. It checks that the params are one JSON value, so that
// they can't add members beside it.
func encode(r Request) ([]byte, error) {
	params := r.Params
	if len(params) == 0 {
		params = json.RawMessage("{}")
	}
	if !json.Valid(params) {
		return nil, errors.New("the params are not JSON; nothing was sent")
	}
	action, err := json.Marshal(r.Action)
	if err != nil {
		return nil, errors.New("the action can't be written as JSON; nothing was sent")
	}
	body := make([]byte, 0, len(`{"action":,"params":}`)+len(action)+len(params))
	body = append(append(body, `{"action":`...), action...)
	body = append(append(body, `,"params":`...), params...)
	return append(body, '}'), nil
}

// header returns the headers of all tries of one call.
func (c *Client) header(ctx context.Context, r Request) (http.Header, error) {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "tebraproxy")
	h.Set("X-API-Key", c.apiKey)
	setOutside(h, r)
	if c.tokens == nil {
		return h, nil
	}
	token, err := c.tokens.Token(ctx)
	if err != nil {
		return nil, err
	}
	if !fitsHeader(token) {
		return nil, errors.New("the token is empty or no header can carry it")
	}
	h.Set("Authorization", "Bearer "+token)
	return h, nil
}

// try makes one attempt. The line between "never sent" and "may have been sent"
// is the moment at which the transport hands a connection to the request: before
// it, there is nothing to write to.
func (c *Client) try(parent, ctx context.Context, write bool, header http.Header, body []byte) sighting {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return unsent(parent, "the request could not be made from the API's URL")
	}
	req.Header = header.Clone()
	req.GetBody = nil // A body that can't be rewound can't be sent twice.

	transport := c.reads
	if write {
		transport = c.writes
	}
	resp, err := transport.RoundTrip(req)
	if err != nil && !connected.Load() {
		return unsent(parent, "could not connect to the API: "+connectFailure(err))
	}
	if err != nil {
		return interrupted(parent, 0, "no answer from the API: "+sentFailure(err))
	}
	defer resp.Body.Close()
	return c.read(parent, resp)
}

// read turns a response into a sighting.
func (c *Client) read(parent context.Context, resp *http.Response) sighting {
	if resp.StatusCode < 200 {
		// 101: its body is the bare connection, which no timeout ends.
		return c.classify(resp.StatusCode, resp.Header, nil)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		// The status says enough, so a body that breaks off is no matter.
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
		return c.classify(resp.StatusCode, resp.Header, body)
	}
	if resp.ContentLength > c.maxBytes {
		return c.tooLong(resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.maxBytes+1))
	if int64(len(body)) > c.maxBytes {
		return c.tooLong(resp.StatusCode)
	}
	if err != nil {
		cause := fmt.Sprintf("HTTP %d, the answer broke off after %d bytes: %s", resp.StatusCode, len(body), sentFailure(err))
		return interrupted(parent, resp.StatusCode, cause)
	}
	return c.classify(resp.StatusCode, resp.Header, body)
}

func (c *Client) tooLong(status int) sighting {
	return sighting{finding: tooLarge, status: status,
		cause: fmt.Sprintf("HTTP %d, the answer is longer than %d bytes", status, c.maxBytes)}
}

// unsent is the sighting of a call of which nothing was sent.
func unsent(parent context.Context, cause string) sighting {
	if parent.Err() != nil {
		return sighting{finding: abandonedUnsent, cause: "the caller left: " + cause}
	}
	return sighting{finding: neverSent, cause: cause}
}

// interrupted is the sighting of a call that may have been sent and has no whole answer.
func interrupted(parent context.Context, status int, cause string) sighting {
	if parent.Err() != nil {
		return sighting{finding: abandonedSent, status: status, cause: "the caller left: " + cause}
	}
	return sighting{finding: lost, status: status, cause: cause}
}
