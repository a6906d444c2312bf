package config

import (
	"fmt"
	"syscall"
)

func keepSecrets() error {
	if err := noCoreFile(); err != nil {
		return err
	}
	// A core_pattern that is a pipe is not held by the limit (core(5)); this holds it.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0); errno != 0 {
		return fmt.Errorf("making the process undumpable: %w", errno)
	}
	return nil
}
