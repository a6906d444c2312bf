package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tebraproxy/pkg/push"
)

// balancer hands pushes to instances in turn, as the front of Cloud Run does: an
// instance that is gone gets none, one that hangs keeps what it was given.
type balancer struct {
	server    *httptest.Server
	transport *http.Transport

	mu    sync.Mutex
	ports []int
	turn  int
}

// mostConnections is how many connections to an instance are kept.
const mostConnections = 256

func newTransport(connections int) *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     time.Minute, // else what a burst opened stays for the servers' ten
		DisableCompression:  true,
	}
}

func newBalancer(t testing.TB) *balancer {
	t.Helper()
	b := &balancer{transport: newTransport(mostConnections)}
	b.server = httptest.NewServer(b)
	t.Cleanup(func() {
		b.server.CloseClientConnections()
		b.server.Close()
		b.transport.CloseIdleConnections()
	})
	return b
}

func (b *balancer) url() string { return b.server.URL + "/" }

// direct returns the address of the first instance, which names the others for an
// [inTurn].
func (b *balancer) direct() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := url.URL{Scheme: "http", Host: instance(b.ports[0]), Path: "/"}
	q := url.Values{}
	for _, port := range b.ports[1:] {
		q.Add(others, strconv.Itoa(port))
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func instance(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// add adds the instance on a port of loopback.
func (b *balancer) add(port int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ports = append(b.ports, port)
}

// order returns the instances in the order in which to try them.
func (b *balancer) order() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ports) == 0 {
		return nil
	}
	b.turn = (b.turn + 1) % len(b.ports)
	return slices.Concat(b.ports[b.turn:], b.ports[:b.turn])
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, push.MaxBody+1))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, port := range b.order() {
		status, err := b.forward(r, port, body)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			status = http.StatusBadGateway
		}
		w.WriteHeader(status)
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

// forward gives one instance the request and returns its status: that is all that
// Pub/Sub looks at.
func (b *balancer) forward(r *http.Request, port int, body []byte) (int, error) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+instance(port)+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	out.Header = r.Header.Clone()
	answer, err := b.transport.RoundTrip(out)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body) // so that the connection is used again
	return answer.StatusCode, nil
}

// others is the parameter of an address in which [balancer.direct] names the ports
// of more instances.
const others = "other"

// inTurn sends each push to one of the instances that its address names.
type inTurn struct {
	to   *http.Transport
	turn atomic.Uint64
}

func newInTurn(pushes int) *inTurn { return &inTurn{to: newTransport(max(pushes, mostConnections))} }

func (t *inTurn) RoundTrip(r *http.Request) (*http.Response, error) {
	if ports := r.URL.Query()[others]; len(ports) > 0 {
		hosts := append([]string{r.URL.Host}, ports...)
		if i := t.turn.Add(1) % uint64(len(hosts)); i > 0 {
			r = r.Clone(r.Context())
			r.URL.Host = "127.0.0.1:" + hosts[i]
			r.Host = ""
		}
	}
	return t.to.RoundTrip(r)
}
