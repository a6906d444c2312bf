package bridge

import "runtime/metrics"

// memoryOfObjects returns what the Go heap holds, garbage that was not collected
// yet included.
func memoryOfObjects() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
