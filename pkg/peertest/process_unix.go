//go:build unix

package peertest

import "syscall"

// signalGroup sends a signal to every process of the group that pid leads.
func signalGroup(pid int, signal syscall.Signal) error { return syscall.Kill(-pid, signal) }

const (
	signalPause  = syscall.SIGSTOP
	signalResume = syscall.SIGCONT
)
