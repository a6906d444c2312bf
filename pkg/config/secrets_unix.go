//go:build unix

package config

import (
	"fmt"
	"syscall"
)

// noCoreFile sets the size that a core file may have to 0, for good.
func noCoreFile() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	return nil
}
