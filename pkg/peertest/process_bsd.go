//go:build unix && !linux

package peertest

import "syscall"

// processAttributes puts a child into a process group of its own. These systems
// have no signal that tells a child of its parent's death.
func processAttributes(syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
