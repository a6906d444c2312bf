package functions

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
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

// routesHeader marks the one request that asks for the framework's routes.
const routesHeader = "X-Tebra-Routes"

// functionsKey is the context key of the functions that a server serves: the
// framework's registry is one for the whole process, a server is not.
type functionsKey struct{}

// registry is what this process has registered with the framework.
var registry = struct {
	sync.Mutex
	names map[string]bool
	asked chan *http.Server // takes the framework's server over
}{names: map[string]bool{}, asked: make(chan *http.Server, 1)}

// frameworkRoutes registers functions by name and returns the framework's routes
// to them.
func frameworkRoutes(fns map[string]http.Handler) (http.Handler, error) {
	registry.Lock()
	defer registry.Unlock()
	for name := range fns {
		if !registry.names[name] {
			registry.names[name] = true
			functions.HTTP(name, dispatch(name))
		}
	}
	var problem error
	for range 3 { // somebody may take the port between our finding and using it
		routes, err := askFramework(fns)
		if err == nil {
			return routes, nil
		}
		problem = err
	}
	return nil, fmt.Errorf("taking over the routes of functions-framework-go: %w", problem)
}

// dispatch is the registered form of a function: it finds the function itself in
// the context that the server gave the request.
func dispatch(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fns, serving := r.Context().Value(functionsKey{}).(map[string]http.Handler)
		if !serving && r.Header.Get(routesHeader) != "" {
			handOver(r)
			return
		}
		if fn := fns[name]; fn != nil {
			fn.ServeHTTP(w, r)
			return
		}
		http.NotFound(w, r)
	}
}

func handOver(r *http.Request) {
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok {
		return
	}
	select {
	case registry.asked <- server:
	default: // it was handed over before
	}
}

// askFramework starts the framework's server, asks it for its routes, and stops
// it again.
func askFramework(fns map[string]http.Handler) (http.Handler, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	stopped := make(chan error, 1)
	go func() { stopped <- funcframework.StartHostPort("127.0.0.1", port) }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for name := range fns {
		if err := requestRoutes(ctx, "http://127.0.0.1:"+port+"/"+name, stopped); err != nil {
			return nil, err
		}
		break // one is as good as another
	}
	select {
	case server := <-registry.asked:
		err := server.Shutdown(ctx)
		<-stopped
		return server.Handler, err
	case <-ctx.Done():
		return nil, errors.New("the framework's server does not say what it serves")
	}
}

// requestRoutes asks until the server answers.
func requestRoutes(ctx context.Context, url string, stopped <-chan error) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		req.Header.Set(routesHeader, "1")
		resp, err := client.Do(req)
		if err == nil {
			return resp.Body.Close()
		}
		select {
		case err := <-stopped:
			return err
		case <-ctx.Done():
			return err
		case <-time.After(time.Millisecond):
		}
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
