package peertest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports come from below the range out of which systems take the local ports of
// outgoing connections (32768 and up on Linux, 49152 and up elsewhere). So no
// client that keeps dialling a stopped peer can take the peer's port away, and a
// peer can start again where it was.
const (
	firstPort = 20000
	lastPort  = 32767
)

// portAttempts bounds the search for a free port.
const portAttempts = 1000

var givenPorts = struct {
	sync.Mutex
	seen map[int]bool
}{seen: map[int]bool{}}

// freePorts returns n different ports of 127.0.0.1 on which nothing listens and
// which neither this process nor another that runs tests has been given. A process
// that knows nothing of that may still take one before the caller does, so the
// caller must be ready to ask again.
func freePorts(n int) ([]int, error) {
	givenPorts.Lock()
	defer givenPorts.Unlock()
	ports := make([]int, 0, n)
	for range portAttempts {
		if len(ports) == n {
			return ports, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if givenPorts.seen[port] || !claimPort(port) || !isFree(port) {
			continue
		}
		givenPorts.seen[port] = true
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("found no %d free ports between %d and %d on 127.0.0.1 in %d tries",
		n, firstPort, lastPort, portAttempts)
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
