//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package peertest

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// claimPort takes a port for this process for as long as it lives, against all
// other test processes: the tests of several packages run at a time, and a peer
// that was stopped must find its port free when it starts again. The lock is the
// open file's, so that it ends with the process however that ends.
func claimPort(port int) bool {
	dir := filepath.Join(os.TempDir(), "tebraproxy-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return false
	}
	file, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return false
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return false
	}
	claimed = append(claimed, file)
	return true
}

// claimed keeps the files open; the caller of claimPort holds givenPorts.
var claimed []*os.File
