package fleet

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"tebraproxy/bridge/internal/pump"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/php/phptest"
)

// partVariable, in the environment, makes the test binary one part of a fleet.
const partVariable = "FLEET_PART"

// The kinds of parts that are the test binary itself.
const (
	apiPart  = "api"
	pumpPart = "pubsub"
)

// part says what such a part is.
type part struct {
	Kind      string         `json:"kind"`
	Addr      string         `json:"addr"`
	Journal   string         `json:"journal,omitempty"`
	Rules     []phptest.Rule `json:"rules,omitempty"`
	Seed      uint64         `json:"seed,omitempty"`
	MaxPushes int            `json:"maxPushes,omitempty"`
}

// Main runs a package's tests, or, in a process that [Start] started, the part
// that it is.
func Main(m *testing.M) {
	if spec := os.Getenv(partVariable); spec != "" {
		if err := runPart(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := peertest.TestingM{M: m}.Run()
	removeBinaries()
	os.Exit(code)
}

// startPart starts a part and returns its address too.
func startPart(t testing.TB, dir string, p part) (process *peertest.Process, addr string) {
	t.Helper()
	process = peertest.Start(t, 1, func(ports []int) peertest.Part {
		addr = fmt.Sprintf("127.0.0.1:%d", ports[0])
		p.Addr = addr
		spec, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return peertest.Part{
			Name: p.Kind, Path: os.Args[0], Dir: dir, Ready: "serving",
			Env: []string{partVariable + "=" + string(spec)},
		}
	})
	return process, addr
}

func runPart(spec string) error {
	var p part
	if err := json.Unmarshal([]byte(spec), &p); err != nil {
		return fmt.Errorf("%s: %w", partVariable, err)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if p.Kind == pumpPart {
		return p.runPump(term)
	}
	return p.runAPI(term)
}

func (p part) runPump(term <-chan os.Signal) error {
	transport := newInTurn(p.MaxPushes)
	defer transport.to.CloseIdleConnections()
	server, err := pump.Start(pump.Config{Addr: p.Addr, MaxPushes: p.MaxPushes, Transport: transport})
	if err != nil {
		return err
	}
	fmt.Println("serving Pub/Sub on", p.Addr)
	<-term
	server.Close()
	return nil
}

// runAPI serves the stand-in. What it executed is in the journal before it is
// answered, and in the file when this process is killed.
func (p part) runAPI(term <-chan os.Signal) error {
	cfg := phptest.Config{APIKey: apiKey, Seed: p.Seed, JournalLimit: 1}
	if p.Journal != "" {
		file, err := os.OpenFile(p.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer file.Close()
		cfg.JournalWriter = file
	}
	api := phptest.New(cfg)
	for _, r := range p.Rules {
		if err := api.Behave(r); err != nil {
			return err
		}
	}
	ln, err := net.Listen("tcp", p.Addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: api, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	fmt.Println("serving the API on", p.Addr)
	select {
	case err := <-served:
		return err
	case <-term:
		return server.Close()
	}
}
