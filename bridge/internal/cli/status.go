package cli

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tebraproxy/bridge"
	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/tebra"
)

const statusHelp = `Show how an installation stands, on one screen: what needs a person first, then
streams, lanes with their rates, bridges, the breaker, and how requests ended over
the last while.

--watch shows it again and again until Ctrl-C, in the same place on a terminal.
With --output json each look is one object.

Dead letters are counted by taking them from their subscription for a moment, at
most once a minute: who replays some at that time may see a part only.
--dead-letters=false leaves them alone.`

const statusExamples = `  tebra status
  tebra status --watch
  tebra status --last 1h --dead-letters=false
  tebra status --output json | jq '.concerns'`

type statusOptions struct {
	pipeline pipelineFlags
	letters  letterFlags // but for their pipeline
	count    bool        // the dead letters
	last     time.Duration
	watch    bool
	interval time.Duration
}

// lastMost bounds --last: as long as most installations keep their streams.
const lastMost = 24 * time.Hour

func (a *app) statusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show how everything stands",
		Long:    statusHelp,
		Example: statusExamples,
		Args:    noArguments,
		RunE:    a.runE(func(cmd *cobra.Command, _ []string) error { return a.status(cmd, o) }),
	}
	flags := cmd.Flags()
	flags.DurationVar(&o.last, "last", 15*time.Minute, "over how long answers are counted, at most 24h")
	flags.BoolVarP(&o.watch, "watch", "w", false, "show it again and again")
	flags.DurationVar(&o.interval, "interval", 2*time.Second, "how often --watch looks")
	flags.BoolVar(&o.count, "dead-letters", true, "count the dead letters, where the Google Cloud project is known")
	flags.StringVar(&o.letters.surroundings.project, "project", "", "Google Cloud `project` of the dead letters (default GOOGLE_CLOUD_PROJECT)")
	flags.StringVar(&o.letters.surroundings.emulator, "pubsub-emulator", "", "`host:port` of a Pub/Sub emulator (default PUBSUB_EMULATOR_HOST)")
	flags.StringVar(&o.letters.subscription, "subscription", "", "the operators' `subscription` (default INSPECT_SUBSCRIPTION, else tebra-dead-letters-inspect)")
	o.pipeline.register(flags)
	return cmd
}

func (a *app) status(cmd *cobra.Command, o statusOptions) error {
	switch {
	case o.last < time.Second || o.last > lastMost:
		return usagef("--last is %v: want 1s to %v", o.last, lastMost)
	case o.interval < 100*time.Millisecond:
		return usagef("--interval is %v: want at least 100ms", o.interval)
	case cmd.Flags().Changed("interval") && !o.watch:
		return usagef("--interval says how often --watch looks; give both")
	}
	l, err := a.look(cmd, o.pipeline)
	if err != nil {
		return err
	}
	defer l.close()
	ctx := cmd.Context()
	counter := a.letterCounter(cmd, o)
	if counter != nil {
		defer counter.close()
	}
	look := func() (inspect.Status, error) {
		if counter == nil {
			return l.Status(ctx, o.last, nil)
		}
		return l.Status(ctx, o.last, counter)
	}
	if o.watch {
		return a.watchStatus(ctx, l, o, look)
	}
	s, err := look()
	if err != nil {
		return cantLook(ctx, err)
	}
	p := a.newPrinter()
	a.printStatus(p, l, s)
	return p.err
}

// watchStatus looks again and again until ctx ends. A Redis that can't be looked at
// is shown as such: it may come back.
func (a *app) watchStatus(ctx context.Context, l *looking, o statusOptions, look func() (inspect.Status, error)) error {
	screen := a.newLive(a.stdout)
	if a.output == formatJSON {
		screen = nil
	}
	for {
		s, err := look()
		if ctx.Err() != nil {
			return nil
		}
		if err := a.showAgain(l, s, err, screen); err != nil {
			return err
		}
		if !pause(ctx, o.interval) {
			return nil
		}
	}
}

func (a *app) showAgain(l *looking, s inspect.Status, failed error, screen *live) error {
	if failed != nil && screen == nil {
		fmt.Fprintf(a.stderr, "%s %s; trying again\n", a.styleFor(a.stderr).bad("tebra:"), printable(failed.Error()))
		return nil
	}
	p := a.newPrinter()
	if screen == nil {
		a.printStatus(p, l, s)
		if !p.asJSON() {
			p.line()
		}
		return p.err
	}
	var b bytes.Buffer
	p.w = &b
	if failed != nil {
		p.line(painted(bad, "Redis can't be looked at: "), word(failed.Error()), word("; trying again"))
	} else {
		a.printStatus(p, l, s)
	}
	return screen.draw(nil, strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n"))
}

func (a *app) printStatus(p *printer, l *looking, s inspect.Status) {
	if p.asJSON() {
		p.object(asStatusObject(s))
		return
	}
	p.line(painted(strong, l.keys.Prefix()), word(" at ", l.where, ", "+s.At.In(a.zone).Format("2006-01-02 15:04:05 MST")))
	concerns := s.Concerns()
	if len(concerns) == 0 {
		p.line(painted(good, "All is well."))
	}
	for _, c := range concerns {
		p.line(painted(bad, "! "+c.What), word(": "+c.Do))
	}
	p.line()
	p.table(streamsTable(s))
	p.line()
	p.table(lanesTable(s))
	p.line()
	printBridges(p, s)
	printBreaker(p, s.Breaker)
	p.line(painted(dimmed, "DEAD LETTERS  "), deadLettersWord(s))
	p.line()
	a.printAnswers(p, s)
}

func deadLettersWord(s inspect.Status) cell {
	switch {
	case s.Uncounted != nil:
		return painted(caution, "not counted: ", s.Uncounted)
	case s.DeadLetters == nil:
		return word("not counted")
	case s.DeadLetters.Waiting == 0:
		return painted(good, "none")
	default:
		return painted(bad, s.DeadLetters, " waiting")
	}
}

// ago is how long before another a time was, "" for the zero time.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return roundly(max(0, now.Sub(t)))
}

func streamsTable(s inspect.Status) table {
	t := table{header: []string{"STREAM", ">ENTRIES", ">OLDEST", "WAITING"}}
	for n, stream := range s.Streams {
		waiting := ""
		if n == 0 {
			unread := fmt.Sprint(s.Waiting.Lag)
			if s.Waiting.Lag < 0 {
				unread = map[bool]string{true: "some", false: "0"}[s.Waiting.Unread]
			}
			waiting = fmt.Sprintf("unread %s, in hand %d, parked %d", unread, s.Waiting.InHand, s.Waiting.Parked)
		}
		t.add(word(stream.Name), word(stream.Length), word(ago(s.At, stream.Oldest)), word(waiting))
	}
	return t
}

func lanesTable(s inspect.Status) table {
	t := table{header: []string{"LANE", ">IN FLIGHT", ">OLDEST", ">RETRYING", ">PARKED", ">RATE", ">TAKEN AHEAD"}}
	for _, l := range s.Lanes {
		rate, ahead := "", ""
		if l.Interval > 0 {
			rate = "1 per " + l.Interval.String()
			ahead = roundly(l.Ahead)
		}
		t.add(word(l.Name), word(l.Open), word(ago(s.At, l.Oldest)), word(l.Retrying), word(l.Parked), word(rate), word(ahead))
	}
	return t
}

func printBridges(p *printer, s inspect.Status) {
	if len(s.Bridges) == 0 {
		p.line(painted(dimmed, "BRIDGES       "), painted(bad, "none"))
		return
	}
	t := table{header: []string{"BRIDGE", "VERSION", ">UP", ">HEARD", ">READ", ">PUBLISHED", ">REJECTED", ">TAKEN OVER", ">MEMORY", "GATE"}}
	for _, b := range s.Bridges {
		gate := painted(good, "reading")
		if b.Gate != "" {
			gate = painted(caution, b.Gate)
		}
		t.add(word(b.Consumer), word(b.Version), word(ago(s.At, b.Started)), word(ago(s.At, b.At)), word(b.Read),
			word(b.Published), word(b.Rejected), word(b.Claimed), word(fmt.Sprintf("%d MiB", b.Memory>>20)), gate)
	}
	p.table(t)
	p.line()
}

func printBreaker(p *printer, b breaker.Snapshot) {
	if b.State == breaker.Closed {
		p.line(painted(dimmed, "BREAKER       "), painted(good, "closed"), word(fmt.Sprintf(", %d calls failed lately", b.Failures)))
		return
	}
	p.line(painted(dimmed, "BREAKER       "), painted(bad, b.State),
		word(fmt.Sprintf(" for %s, next probe in %s", ago(b.At, b.Since), roundly(max(0, b.NextProbe.Sub(b.At))))))
}

func (a *app) printAnswers(p *printer, s inspect.Status) {
	since := fmt.Sprintf("ANSWERS of the last %s", roundly(s.At.Sub(s.Answers.Since)))
	if s.Answers.Cut {
		since += " (before, there were too many to read)"
	}
	p.line(painted(dimmed, since))
	if len(s.Answers.ByAction) == 0 {
		p.line(word("  none"))
		return
	}
	t := table{header: []string{"ACTION", ">SUCCESS", ">ERROR", "ERRORS", "ATTEMPTS THAT FAILED"}, indent: "  "}
	for _, action := range s.Answers.ByAction {
		failed := 0
		for _, n := range action.Errors {
			failed += n
		}
		errors := word(failed)
		if failed > 0 {
			errors.paint = bad
		}
		t.add(word(action.Action), word(action.Success), errors, word(counts(action.Errors)), word(counts(action.Attempts)))
	}
	p.table(t)
}

// counts lists codes and how often each came, the most frequent first.
func counts(byCode map[tebra.ErrorCode]int) string {
	codes := slices.SortedFunc(maps.Keys(byCode), func(x, y tebra.ErrorCode) int {
		if byCode[x] != byCode[y] {
			return byCode[y] - byCode[x]
		}
		return strings.Compare(string(x), string(y))
	})
	all := make([]string, len(codes))
	for i, code := range codes {
		all[i] = fmt.Sprintf("%s %d", code, byCode[code])
	}
	return strings.Join(all, ", ")
}

// statusObject is a status for programs. Ages are in milliseconds, those of what is
// not there are left out.
type statusObject struct {
	At       time.Time         `json:"at"`
	Concerns []inspect.Concern `json:"concerns"`
	Streams  []streamObject    `json:"streams"`
	Waiting  waitingObject     `json:"waiting"`
	InFlight inFlightObject    `json:"inFlight"`
	Lanes    []laneObject      `json:"lanes"`
	Bridges  []bridgeObject    `json:"bridges"`
	Breaker  breakerObject     `json:"breaker"`
	Answers  answersObject     `json:"answers"`
	// DeadLetters is left out where they were not counted.
	DeadLetters *deadLettersObject `json:"deadLetters,omitempty"`
}

type streamObject struct {
	Name            string `json:"name"`
	Entries         int64  `json:"entries"`
	OldestAgeMillis *int64 `json:"oldestAgeMs,omitempty"`
}

type waitingObject struct {
	Unread *int64 `json:"unread,omitempty"` // left out where Redis can't tell
	InHand int64  `json:"inHand"`
	Parked int64  `json:"parked"`
}

type inFlightObject struct {
	Count           int64  `json:"count"`
	OldestAgeMillis *int64 `json:"oldestAgeMs,omitempty"`
}

type laneObject struct {
	Name            string `json:"name"`
	InFlight        int64  `json:"inFlight"`
	OldestAgeMillis *int64 `json:"oldestAgeMs,omitempty"`
	Retrying        int64  `json:"retrying"`
	Parked          int64  `json:"parked"`
	IntervalMillis  int64  `json:"intervalMs,omitempty"`
	Burst           int    `json:"burst,omitempty"`
	AheadMillis     int64  `json:"takenAheadMs"`
}

type bridgeObject struct {
	Consumer  string    `json:"consumer"`
	Version   string    `json:"version"`
	Started   time.Time `json:"started"`
	Heard     time.Time `json:"heard"`
	Read      int64     `json:"read"`
	Published int64     `json:"published"`
	Rejected  int64     `json:"rejected"`
	TakenOver int64     `json:"takenOver"`
	Gate      string    `json:"gate,omitempty"`
	Memory    uint64    `json:"memoryBytes"`
	CPUMillis int64     `json:"cpuMs"`
}

type breakerObject struct {
	State     string     `json:"state"`
	Failures  int        `json:"failures"`
	Since     *time.Time `json:"since,omitempty"`
	NextProbe *time.Time `json:"nextProbe,omitempty"`
}

type answersObject struct {
	Since    time.Time             `json:"since"`
	Cut      bool                  `json:"cut"`
	ByAction []actionAnswersObject `json:"byAction"`
}

type actionAnswersObject struct {
	Action         string                  `json:"action"`
	Success        int                     `json:"success"`
	Errors         map[tebra.ErrorCode]int `json:"errors"`
	FailedAttempts map[tebra.ErrorCode]int `json:"failedAttempts"`
}

type deadLettersObject struct {
	Waiting int  `json:"waiting"`
	More    bool `json:"more"`
}

func asStatusObject(s inspect.Status) statusObject {
	age := func(t time.Time) *int64 {
		if t.IsZero() {
			return nil
		}
		millis := max(0, s.At.Sub(t).Milliseconds())
		return &millis
	}
	n, oldest := s.InFlight()
	o := statusObject{
		At: s.At.UTC(), Concerns: append([]inspect.Concern{}, s.Concerns()...),
		Waiting:  waitingObject{InHand: s.Waiting.InHand, Parked: s.Waiting.Parked},
		InFlight: inFlightObject{n, age(oldest)}, Breaker: asBreakerObject(s.Breaker),
		Bridges: []bridgeObject{}, Answers: answersObject{s.Answers.Since.UTC(), s.Answers.Cut, []actionAnswersObject{}},
	}
	if s.Waiting.Lag >= 0 {
		o.Waiting.Unread = &s.Waiting.Lag
	}
	for _, stream := range s.Streams {
		o.Streams = append(o.Streams, streamObject{stream.Name, stream.Length, age(stream.Oldest)})
	}
	for _, l := range s.Lanes {
		o.Lanes = append(o.Lanes, laneObject{
			l.Name, l.Open, age(l.Oldest), l.Retrying, l.Parked, l.Interval.Milliseconds(), l.Burst, l.Ahead.Milliseconds(),
		})
	}
	for _, b := range s.Bridges {
		o.Bridges = append(o.Bridges, asBridgeObject(b))
	}
	for _, action := range s.Answers.ByAction {
		o.Answers.ByAction = append(o.Answers.ByAction, actionAnswersObject{action.Action, action.Success, action.Errors, action.Attempts})
	}
	if d := s.DeadLetters; d != nil {
		o.DeadLetters = &deadLettersObject{d.Waiting, d.More}
	}
	return o
}

func asBridgeObject(b bridge.Heartbeat) bridgeObject {
	return bridgeObject{
		b.Consumer, b.Version, b.Started.UTC(), b.At.UTC(), b.Read, b.Published, b.Rejected, b.Claimed, b.Gate, b.Memory, b.CPU.Milliseconds(),
	}
}

func asBreakerObject(b breaker.Snapshot) breakerObject {
	o := breakerObject{State: b.State.String(), Failures: b.Failures}
	if b.State != breaker.Closed {
		since, probe := b.Since.UTC(), b.NextProbe.UTC()
		o.Since, o.NextProbe = &since, &probe
	}
	return o
}
