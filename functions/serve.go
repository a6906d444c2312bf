package functions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Timeouts of the server. Reading is short, since Pub/Sub sends a body at once;
// writing must outlast a handler.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 20 * time.Second
	writeMargin       = 15 * time.Second
	idleTimeout       = 10 * time.Minute // longer than Google's front end keeps one
	drainTime         = 6 * time.Second  // of the 10 s that Cloud Run gives
	releaseTime       = 2500 * time.Millisecond
)

// Serve serves functions by name on ln until ctx ends, then takes no new work,
// lets what runs finish, and after drainTime ends its contexts, upon which it
// gives its claims back. It returns within Cloud Run's 10 s, and closes ln.
//
// functions-framework-go registers the functions and routes to them: to "/" the
// one that FUNCTION_TARGET names, or without it each to "/" and its name. The
// server is ours, because the framework's has no timeouts and can't be stopped
// (FACTS).
func Serve(ctx context.Context, ln net.Listener, handlerTimeout time.Duration, fns map[string]http.Handler, log *slog.Logger) error {
	routes, err := frameworkRoutes(fns)
	if err != nil {
		ln.Close()
		return err
	}
	work, abandon := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), functionsKey{}, fns))
	defer abandon()
	server := &http.Server{
		Handler:           routes,
		BaseContext:       func(net.Listener) context.Context { return work },
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      handlerTimeout + readTimeout + writeMargin,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving functions: %w", err)
	case <-ctx.Done():
	}
	err = drain(server, abandon)
	<-served
	return err
}

// drain stops a server: first by waiting, then by ending what still runs.
func drain(server *http.Server, abandon context.CancelFunc) error {
	wait, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := server.Shutdown(wait); err == nil {
		return nil
	}
	abandon()
	wait, cancel = context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	if err := server.Shutdown(wait); err != nil {
		return errors.Join(fmt.Errorf("some requests did not end in time: %w", err), server.Close())
	}
	return nil
}
