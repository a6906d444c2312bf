package bridge

import "runtime/debug"

// TuneMemory trades memory for speed, within what a bridge may take: its heap is
// small and nearly all of it short-lived, so that Go's default would collect it
// dozens of times a second. A main program calls it once.
func TuneMemory() {
	const (
		percent = 400
		limit   = 40 << 20 // bytes, beyond which it collects as often as it must
	)
	debug.SetGCPercent(percent)
	debug.SetMemoryLimit(limit)
}
