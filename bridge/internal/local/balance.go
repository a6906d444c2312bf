package local

import (
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"

	"tebraproxy/bridge/internal/pump"
)

// balance serves, until Close, a balancer that hands requests to the instances in
// turn, as Cloud Run's does.
func (p *Pipeline) balance(instances []*url.URL, log *slog.Logger) (url string, err error) {
	transport := &http.Transport{MaxIdleConnsPerHost: pump.DefaultMaxPushes, IdleConnTimeout: time.Minute}
	p.onClose(transport.CloseIdleConnections)
	var turn atomic.Uint64
	return p.serve(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(instances[turn.Add(1)%uint64(len(instances))]) },
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	})
}
