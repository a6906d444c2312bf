//go:build unix

package bridge

import "syscall"

// cpuMillis returns the CPU time that this process has used.
func cpuMillis() int64 {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0
	}
	return (use.Utime.Nano() + use.Stime.Nano()) / 1e6
}
