//go:build !unix

package peertest

import (
	"errors"
	"os"
	"syscall"
)

func processAttributes(syscall.Signal) *syscall.SysProcAttr { return nil }

// Systems without these signals have no peer that could be paused.
const (
	signalPause  = syscall.Signal(-1)
	signalResume = syscall.Signal(-2)
)

// signalGroup can only kill, and only pid itself.
func signalGroup(pid int, signal syscall.Signal) error {
	if signal != syscall.SIGKILL {
		return errors.ErrUnsupported
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return process.Kill()
}
