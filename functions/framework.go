package functions

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
)

// The framework routes requests to functions, which is what it is for here. But
// it gives its routes to nobody: it only starts a server of its own, without
// timeouts and without a way to stop it. Inside a request, though, net/http tells
// which server it came through, and with that its routes. So the framework is
// started on a free port of loopback for the length of one request, which takes
// its routes over into the server that this package runs.

// targetVariable is the one that the framework itself reads.
const targetVariable = "FUNCTION_TARGET"

// registry is what this process has registered with the framework, whose own
// registry is one for the whole process and has no lock: this one's is held
// whenever the framework looks at its own.
var registry = struct {
	sync.Mutex
	names map[string]bool
}{names: map[string]bool{}}

// frameworkRoutes registers functions by name and returns the framework's routes
// to them. It is safe for concurrent use.
func frameworkRoutes(fns map[string]http.Handler) (http.Handler, error) {
	if err := checkTarget(os.Getenv(targetVariable), fns); err != nil {
		return nil, err
	}
	registry.Lock()
	defer registry.Unlock()
	for name := range fns {
		if !registry.names[name] {
			registry.names[name] = true
			functions.HTTP(name, dispatch(name))
		}
	}
	var problem error
	for range 3 {
		routes, err := askFramework()
		if err == nil {
			return routes, nil
		}
		problem = fmt.Errorf("taking over the routes of functions-framework-go: %w", err)
		if !errors.Is(err, syscall.EADDRINUSE) { // else somebody took the port between our finding and using it
			break
		}
	}
	return nil, problem
}

// checkTarget returns an error unless all of fns can be reached: where the
// variable is set, the framework serves one function, at every path.
func checkTarget(target string, fns map[string]http.Handler) error {
	if target == "" || len(fns) == 1 && fns[target] != nil {
		return nil
	}
	return fmt.Errorf("%s is %q, so that this one function would be served, but what is to be served is %s: change or unset it",
		targetVariable, target, strings.Join(slices.Sorted(maps.Keys(fns)), ", "))
}

// servingKey is the context key of the *serving of the server that a request came
// through.
type servingKey struct{}

// serving is what one server serves: the framework's registry is one for the whole
// process, a server is not.
type serving struct {
	fns map[string]http.Handler
	// work ends when the server gives up what still runs. A request's own context
	// ends sooner, see workContext.
	work context.Context
}

// dispatch is the registered form of a function: it finds the function itself in
// the context that the server gave the request.
func dispatch(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		server, ok := r.Context().Value(servingKey{}).(*serving)
		if !ok {
			handOver(r)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if fn := server.fns[name]; fn != nil {
			fn.ServeHTTP(w, r)
			return
		}
		http.NotFound(w, r)
	}
}

// routesHeader marks the one request that asks for the framework's routes, with
// the token of who asks: no stranger on the loopback can ask.
const routesHeader = "X-Tebra-Routes"

// asking is who asks now, or nil.
var asking atomic.Pointer[asker]

type asker struct {
	token  string
	server chan *http.Server // takes one
}

// handOver gives the server that r came through to who asked for it.
func handOver(r *http.Request) {
	asker := asking.Load()
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok || asker == nil || r.Header.Get(routesHeader) != asker.token {
		return
	}
	select {
	case asker.server <- server:
	default: // it was handed over before
	}
}

// askFramework starts the framework's server, asks it for its routes, and stops
// it again. registry is locked.
func askFramework() (http.Handler, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	asker := &asker{token: rand.Text(), server: make(chan *http.Server, 1)}
	asking.Store(asker)
	defer asking.Store(nil)
	stopped := make(chan error, 1)
	go func() { stopped <- funcframework.StartHostPort("127.0.0.1", port) }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	server, err := asker.ask(ctx, port, stopped)
	if err != nil {
		return nil, err
	}
	err = server.Shutdown(ctx)
	<-stopped
	return server.Handler, err
}

// ask asks every path that a function may be at until the server hands itself over.
// stopped says why it has ended instead.
func (a *asker) ask(ctx context.Context, port string, stopped <-chan error) (*http.Server, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		for name := range registry.names {
			a.request(ctx, client, "http://127.0.0.1:"+port+"/"+name)
			break // with a target every path is that function's, without one each has its own
		}
		select {
		case server := <-a.server:
			return server, nil
		case err := <-stopped:
			return nil, err
		case <-ctx.Done():
			return nil, errors.New("its server does not say what it serves")
		case <-time.After(time.Millisecond):
		}
	}
}

// request makes one request; whether it was understood shows elsewhere.
func (a *asker) request(ctx context.Context, client *http.Client, url string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	req.Header.Set(routesHeader, a.token)
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
	}
}

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, err
}
