//go:build unix

package telemetry

import (
	"syscall"
	"time"
)

// CPUTime returns how much CPU time this process has used.
func CPUTime() (user, system time.Duration) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, 0
	}
	return time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())
}
