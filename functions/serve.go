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

// timing is how patient a server is.
type timing struct {
	readHeader time.Duration // for a request's header to come in
	read       time.Duration // and its body
	write      time.Duration // from the header to the end of the answer
	idle       time.Duration // between two requests of a connection
	drain      time.Duration // for what runs to end by itself, when stopping
	giveBack   time.Duration // for the rest to give back what it holds
}

// defaultTiming is that of a deployment. Reading is short, since Pub/Sub sends a
// body at once; writing must outlast a handler. An idle connection is kept longer
// than Google's front end keeps one. drain and giveBack fit into the 10 s that
// Cloud Run gives, and giveBack is longer than finishGrace.
func defaultTiming(handlerTimeout time.Duration) timing {
	const read, margin = 20 * time.Second, 15 * time.Second
	return timing{
		readHeader: 5 * time.Second,
		read:       read,
		write:      handlerTimeout + read + margin,
		idle:       10 * time.Minute,
		drain:      6 * time.Second,
		giveBack:   2500 * time.Millisecond,
	}
}

// maxHeaderBytes bounds a request's header; Pub/Sub's are below 4 KiB.
const maxHeaderBytes = 64 << 10

// Serve serves functions by name on ln until ctx ends. Then it takes no new work,
// lets what runs finish for 6 s, and ends the rest, which gives its claims back.
// It returns within Cloud Run's 10 s, and closes ln.
//
// functions-framework-go registers the functions and routes to them: each to "/"
// and its name, or, where the environment has a FUNCTION_TARGET, the only one to
// every path. The server is ours, because the framework's has no timeouts and can't
// be stopped (FACTS). Several servers may run in one process.
func Serve(ctx context.Context, ln net.Listener, handlerTimeout time.Duration, fns map[string]http.Handler, log *slog.Logger) error {
	return serve(ctx, ln, defaultTiming(handlerTimeout), fns, log)
}

func serve(ctx context.Context, ln net.Listener, t timing, fns map[string]http.Handler, log *slog.Logger) error {
	routes, err := frameworkRoutes(fns)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	guarded := make(map[string]http.Handler, len(fns))
	for name, fn := range fns {
		guarded[name] = guard(name, fn, log)
	}
	work, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	requests := context.WithValue(work, servingKey{}, &serving{fns: guarded, work: work})
	server := &http.Server{
		Handler:           routes,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: t.readHeader,
		ReadTimeout:       t.read,
		WriteTimeout:      t.write,
		IdleTimeout:       t.idle,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving functions: %w", err)
	case <-ctx.Done():
	}
	err = stop(server, t, giveUp)
	<-served
	return err
}

// stop stops a server: first by waiting, then by ending what still runs.
func stop(server *http.Server, t timing, giveUp context.CancelFunc) error {
	wait, cancel := context.WithTimeout(context.Background(), t.drain)
	defer cancel()
	if err := server.Shutdown(wait); err == nil {
		return nil
	}
	giveUp()
	wait, cancel = context.WithTimeout(context.Background(), t.giveBack)
	defer cancel()
	if err := server.Shutdown(wait); err != nil {
		return errors.Join(fmt.Errorf("some requests did not end in time: %w", err), server.Close())
	}
	return nil
}

// workContext returns the context of what is done about r: it ends after limit, or
// when the server gives up, but not when the client leaves. Whoever pushed may
// lose the connection; a call under way is brought to its end all the same, and
// its answer is found when the message comes again.
func workContext(r *http.Request, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), limit)
	server, ok := r.Context().Value(servingKey{}).(*serving)
	if !ok { // another's server: only time limits it
		return ctx, cancel
	}
	stop := context.AfterFunc(server.work, cancel)
	return ctx, func() { stop(); cancel() }
}
