package local

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// startTimeout bounds how long a pipeline may take to start.
const startTimeout = 30 * time.Second

// Run starts a pipeline, says on stdout what it started and what to try, and then
// a line for each step of each request, until ctx ends.
func Run(ctx context.Context, opts Options, stdout io.Writer) error {
	if err := opts.Validate(); err != nil {
		return err
	}
	level := slog.LevelWarn
	if opts.Verbose {
		level = slog.LevelDebug
	}
	opts.Console = true
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	log := telemetry.NewLogger(os.Stderr, level)
	if !opts.Verbose {
		log = slog.New(brief{Handler: log.Handler()})
	}
	p, err := Start(starting, opts, log)
	if err != nil {
		return fmt.Errorf("the local pipeline did not start: %w", err)
	}
	defer p.Close()
	p.Info.PID, p.Info.Started = os.Getpid(), time.Now().UTC()
	path := DiscoveryPath(lookup(opts.Environ))
	other, noOther := Discover(starting, path)
	if err := WriteDiscovery(path, p.Info); err != nil {
		return err
	}
	defer func() {
		_ = Remove(path, p.Info) // the next run replaces it
		if noOther == nil && alive(other.PID) {
			_ = restore(path, other) // without, it is found with --redis only
		}
	}()
	if opts.JSON {
		if err := json.NewEncoder(stdout).Encode(started(p)); err != nil {
			return fmt.Errorf("saying what was started: %w", err)
		}
		p.follow(ctx, func(s tebra.StatusUpdate) { printStatusJSON(stdout, s) })
		return nil
	}
	if noOther == nil {
		fmt.Fprintf(stdout, "Another local pipeline is running, process %d. From now on other commands find\nthis one, and that one with --redis %s.\n\n", other.PID, redactURL(other.RedisURL))
	}
	p.introduce(stdout, opts)
	p.follow(ctx, func(s tebra.StatusUpdate) { printStatus(stdout, s) })
	fmt.Fprintln(stdout, "\nStopping.")
	return nil
}

// brief leaves out what functions say below an error: of an attempt that failed
// there is a line already, of the status that it wrote.
type brief struct {
	slog.Handler
	functions bool // it is theirs
}

func (b brief) Enabled(ctx context.Context, level slog.Level) bool {
	return (!b.functions || level >= slog.LevelError) && b.Handler.Enabled(ctx, level)
}

func (b brief) WithAttrs(attrs []slog.Attr) slog.Handler {
	theirs := slices.ContainsFunc(attrs, func(a slog.Attr) bool { return a.Key == partKey && a.Value.String() == functionsPart })
	return brief{b.Handler.WithAttrs(attrs), b.functions || theirs}
}

func (b brief) WithGroup(name string) slog.Handler {
	return brief{b.Handler.WithGroup(name), b.functions}
}

// lookup reads variables from an environment in the form of os.Environ.
func lookup(environ []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, kv := range environ {
			if len(kv) > len(name) && kv[:len(name)] == name && kv[len(name)] == '=' {
				return kv[len(name)+1:], true
			}
		}
		return "", false
	}
}

// introduce says what runs where, and what to try.
func (p *Pipeline) introduce(w io.Writer, opts Options) {
	standIn := func(option, real, embedded string) string {
		if option != "" {
			return real
		}
		return embedded
	}
	fmt.Fprintf(w, `The whole pipeline runs in this process:

  Redis        %s  %s
  Pub/Sub      %s  %s, project %s
  PHP API      %s  %s
  functions    %s/ProcessRequest, /RecordDeadLetter
  bridge       %s/healthz, /metrics
  console      %s
%s
Retries after %v to %v; dead letters after %d deliveries.

In another terminal, try:

  go run ./bridge/cmd/tebra send syncSchedule date=%s
  go run ./bridge/cmd/tebra send createAppointment --params '{"appointmentData":{"patientId":"7"}}'
  redis-cli -u %s XADD %s '*' action getProviders userId me correlationId c1
`,
		redactURL(p.Info.RedisURL), standIn(opts.Redis, "a real server", "embedded (miniredis)"),
		p.Info.PubSubEmulator, standIn(opts.PubSubEmulator, "Google's emulator", "embedded"), p.Info.Project,
		p.Info.PHPAPI, standIn(opts.PHPAPI, "a real API", "stand-in"),
		p.Info.FunctionsURL, p.Health, p.Console, p.introduceGateway(opts),
		opts.MinBackoff, opts.MaxBackoff, opts.MaxAttempts,
		time.Now().Format("2006-01-02"), redactURL(p.Info.RedisURL), p.Keys.Requests())
	if p.API != nil {
		fmt.Fprintf(w, `
The stand-in fails on request: add _behave=500 (or hang, drop, throttle, …) to a
read's parameters, as in: send getProviders _behave=500
`)
	}
	fmt.Fprintf(w, "\nCtrl-C ends it; with -v it tells why attempts fail. Requests as they go through:\n\n")
}

// introduceGateway says where the gateway is, and how a page uses it.
func (p *Pipeline) introduceGateway(opts Options) string {
	if p.Gateway == "" {
		return ""
	}
	token := "(refresh) => auth.currentUser.getIdToken(refresh)"
	if p.GatewayToken != "" {
		token = "() => '" + p.GatewayToken + ".alice'" // any user
	}
	return fmt.Sprintf(`  gateway      %s  for pages of %s

In such a page:

  import { Tebra } from '%s/v1/tebra.js';
  const tebra = new Tebra({ url: '%s', token: %s });
  await tebra.getProviders();
`, p.Gateway, strings.Join(opts.GatewayOrigins, ", "), p.Gateway, p.Gateway, token)
}

// redactURL hides the password of a Redis URL.
func redactURL(raw string) string {
	options, err := redis.ParseURL(raw)
	if err != nil || options.Password == "" {
		return raw
	}
	return "redis://***@" + options.Addr
}

// followBlock is how long one look at the status stream waits.
const followBlock = time.Second

// follow calls seen for every change of a request's state until ctx ends.
func (p *Pipeline) follow(ctx context.Context, seen func(tebra.StatusUpdate)) {
	after := "0-0" // a stream that is not there yet is read from its beginning
	if last, err := p.Redis.XInfoStream(ctx, p.Keys.Status()).Result(); err == nil && last.LastGeneratedID != "" {
		after = last.LastGeneratedID
	}
	for ctx.Err() == nil {
		streams, err := p.Redis.XRead(ctx, &redis.XReadArgs{
			Streams: []string{p.Keys.Status(), after}, Count: 100, Block: followBlock,
		}).Result()
		if err != nil && err != redis.Nil {
			wait(ctx, followBlock)
			continue
		}
		for _, s := range streams {
			for _, m := range s.Messages {
				after = m.ID
				if s, ok := readStatus(m.Values); ok {
					seen(s)
				}
			}
		}
	}
}

// wait waits for d or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// readStatus reads an entry of the status stream, and reports whether it is one of
// ours.
func readStatus(values map[string]any) (tebra.StatusUpdate, bool) {
	fields := make(map[string]string, len(values))
	for k, v := range values {
		fields[k], _ = v.(string)
	}
	s, err := tebra.ParseStatus(fields)
	return s, err == nil
}

// started is what was started, for programs: the secrets of this run, which a page
// needs, but no password of a real part.
func started(p *Pipeline) any {
	i := p.Info
	return struct {
		Event               string `json:"event"`
		RedisURL            string `json:"redisURL"`
		Prefix              string `json:"prefix"`
		Project             string `json:"project"`
		PubSubEmulator      string `json:"pubsubEmulator"`
		InspectSubscription string `json:"inspectSubscription"`
		PHPAPI              string `json:"phpAPI"`
		FunctionsURL        string `json:"functionsURL"`
		Console             string `json:"console"`
		Gateway             string `json:"gateway,omitempty"`
		GatewayToken        string `json:"gatewayToken,omitempty"`
	}{"started", redactURL(i.RedisURL), i.Prefix, i.Project, i.PubSubEmulator, i.InspectSubscription, i.PHPAPI, i.FunctionsURL, p.Console, p.Gateway, p.GatewayToken}
}

func printStatusJSON(w io.Writer, s tebra.StatusUpdate) {
	_ = json.NewEncoder(w).Encode(struct { // what is lost was only looked at, as in printStatus
		Event         string          `json:"event"`
		Timestamp     time.Time       `json:"timestamp"`
		RequestID     string          `json:"requestId"`
		CorrelationID string          `json:"correlationId"`
		Action        string          `json:"action"`
		UserID        string          `json:"userId"`
		Status        tebra.State     `json:"status"`
		Attempt       int             `json:"attempt,omitempty"`
		ErrorCode     tebra.ErrorCode `json:"errorCode,omitempty"`
	}{"status", s.Timestamp, s.RequestID, s.CorrelationID, s.Action, s.UserID, s.State, s.Attempt, s.ErrorCode})
}

// columns is how wide a terminal is at least.
const columns = 80

// printStatus prints an update, in two lines where one would be too long: an ID is
// there to be copied.
func printStatus(w io.Writer, s tebra.StatusUpdate) {
	at := s.Timestamp.Local().Format("15:04:05.000  ")
	line := fmt.Sprintf("%s%-17s %-10s %s", at, s.Action, s.State, s.RequestID) // of the known actions, the longest has 17
	var notes []string
	if s.Attempt > 1 || (s.Attempt == 1 && s.ErrorCode != "") {
		notes = append(notes, fmt.Sprintf("attempt %d", s.Attempt))
	}
	if s.ErrorCode != "" {
		notes = append(notes, string(s.ErrorCode))
	}
	if more := "  " + strings.Join(notes, ", "); len(notes) > 0 {
		if len(line)+len(more) > columns {
			line += "\n" + strings.Repeat(" ", len(at)-len("  "))
		}
		line += more
	}
	fmt.Fprintln(w, line)
}
