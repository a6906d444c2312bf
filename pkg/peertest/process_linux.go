package peertest

import "syscall"

// processAttributes puts a child into a process group of its own, and has the
// kernel send it death when the thread that started it dies (see [process.own]).
func processAttributes(death syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death}
}
