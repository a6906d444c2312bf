package local

import "github.com/alicebob/miniredis/v2"

// startRedis starts an embedded Redis on a free port of loopback.
func startRedis() (url string, stop func(), err error) {
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true) // keys expire by the clock, not only when told (FACTS, Redis)
	if err := server.Start(); err != nil {
		return "", nil, err
	}
	return "redis://" + server.Addr(), server.Close, nil
}
