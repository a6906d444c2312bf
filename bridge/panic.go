package bridge

import (
	"fmt"
	"runtime/debug"

	"tebraproxy/pkg/telemetry"
)

// noPanic ends a panic of one of the bridge's goroutines, and with it the bridge: the
// others finish what they have in hand, all that is pending is given back, and
// [Bridge.Run] returns an error. Go would print the panic's value, which may quote a
// payload: the log says what kind it is of and where it happened, which never does.
// It is deferred.
func (b *Bridge) noPanic(part string) {
	p := recover()
	if p == nil {
		return
	}
	b.log.Error("a part of the bridge panicked; the bridge stops", "part", part,
		"panic", telemetry.PanicKind(p), "stack", string(debug.Stack()))
	b.fallen.Store(&part)
	b.fall()
}

// fell returns an error if a part of the bridge has panicked.
func (b *Bridge) fell() error {
	part := b.fallen.Load()
	if part == nil {
		return nil
	}
	return fmt.Errorf("%s panicked, and the bridge has stopped; the log says where it happened; start it again", *part)
}
