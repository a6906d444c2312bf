package telemetry

import (
	"fmt"
	"runtime"
)

// PanicKind says what a panic is about without its value, which may quote a payload:
// the runtime's own say which rule was broken, in numbers and types.
func PanicKind(p any) string {
	if err, ok := p.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", p)
}
