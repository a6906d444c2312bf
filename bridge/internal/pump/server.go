package pump

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
)

// The defaults of [Config].
const (
	DefaultAddr      = "127.0.0.1:0"
	DefaultMaxPushes = 100
	DefaultMaxBytes  = 512 << 20
)

// connectTimeout bounds how long a push waits for a connection, within its
// acknowledgement deadline.
const connectTimeout = 10 * time.Second

// Config says how to run a [Server]. The zero value is usable.
type Config struct {
	// Addr is the loopback address to listen on; DefaultAddr (a free port) where
	// it is empty. Anything else than loopback is refused: the server asks nobody
	// who they are.
	Addr string
	// Log gets what an operator should know. It never gets data or attributes.
	// Nil discards.
	Log *slog.Logger
	// Transport sends the pushes; it must end a request when its context ends. Nil
	// means one of the server's own, without a proxy.
	Transport http.RoundTripper
	// MaxPushes is how many pushes one subscription may have under way;
	// DefaultMaxPushes where it is 0.
	MaxPushes int
	// MaxBytes bounds what is held for all subscriptions together; DefaultMaxBytes
	// where it is 0. Beyond it, a publish fails with RESOURCE_EXHAUSTED, which
	// Google's publishers try again.
	MaxBytes int64
}

// Server is a running Pub/Sub in memory. It is safe for concurrent use.
type Server struct {
	addr      string
	grpc      *grpc.Server
	broker    *broker
	serving   sync.WaitGroup
	closeIdle func()
}

// Start listens, serves and pushes until [Server.Close]. It fails where cfg is
// out of bounds or the address can't be listened on.
func Start(cfg Config) (*Server, error) {
	cfg.Addr = cmp.Or(cfg.Addr, DefaultAddr)
	cfg.MaxPushes = cmp.Or(cfg.MaxPushes, DefaultMaxPushes)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, DefaultMaxBytes)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("local Pub/Sub: %w", err)
	}
	s := &Server{addr: listener.Addr().String(), closeIdle: func() {}}
	if cfg.Transport == nil {
		transport := newTransport(cfg.MaxPushes)
		cfg.Transport, s.closeIdle = transport, transport.CloseIdleConnections
	}
	s.broker = newBroker(cfg)
	s.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(maxRequestBytes+1<<20), grpc.WaitForHandlers(true))
	pubsubpb.RegisterPublisherServer(s.grpc, publisher{broker: s.broker})
	pubsubpb.RegisterSubscriberServer(s.grpc, subscriber{broker: s.broker})
	s.serving.Go(func() {
		if err := s.grpc.Serve(listener); err != nil {
			cfg.Log.Error("local Pub/Sub stopped serving", "error", err)
		}
	})
	return s, nil
}

func (c Config) check() error {
	if c.MaxPushes < 0 || c.MaxBytes < 0 {
		return fmt.Errorf("local Pub/Sub: MaxPushes %d and MaxBytes %d must not be negative", c.MaxPushes, c.MaxBytes)
	}
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("local Pub/Sub: address %q: %w", c.Addr, err)
	}
	ip, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("local Pub/Sub: address %q is not on loopback; use 127.0.0.1:PORT", c.Addr)
	}
	return nil
}

// newTransport keeps as many connections to an endpoint as there are pushes: with
// fewer, a burst would open and close one for each push.
func newTransport(maxPushes int) *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout: connectTimeout,
		MaxIdleConnsPerHost: maxPushes,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
}

// Addr returns host and port for clients: the value for PUBSUB_EMULATOR_HOST.
func (s *Server) Addr() string { return s.addr }

// Close ends calls and pushes that are under way, without waiting for their
// answers, and returns when nothing runs any more. What was not acknowledged is
// gone: the server has no disk. Further calls do nothing.
func (s *Server) Close() {
	s.broker.stop()
	s.grpc.Stop()
	s.serving.Wait()
	s.broker.wait()
	s.closeIdle()
}

// lifetime is a context that ends with its owner, as [context.WithCancel] makes it.
type lifetime struct {
	context.Context
	end context.CancelFunc
}

func newLifetime(parent context.Context) lifetime {
	ctx, cancel := context.WithCancel(parent)
	return lifetime{Context: ctx, end: cancel}
}
