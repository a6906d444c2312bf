package functions

import (
	"log/slog"
	"net/http"
	"runtime/debug"

	"tebraproxy/pkg/telemetry"
)

// guard answers 500 for a function that panics, so that the message comes again.
// net/http would print the panic's value, which may quote a payload: the log says
// what kind it is of and where it happened, which never does.
func guard(name string, fn http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { // asks for the connection to be closed
				panic(p)
			}
			log.Error("a function panicked", "function", name, "panic", telemetry.PanicKind(p), "stack", string(debug.Stack()))
			w.WriteHeader(http.StatusInternalServerError)
		}()
		fn.ServeHTTP(w, r)
	})
}
