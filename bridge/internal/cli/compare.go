package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/compare"
	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/tebra"
)

const compareHelp = `Ask the PHP API directly and through the streams, and tell how the answers and the
times differ, so that an action can be moved from its old path with evidence. It
makes reads only, and refuses what changes something or is not known.

The API is asked with TEBRA_PHP_API_URL and TEBRA_INTERNAL_API_KEY, or as a local
pipeline noted it; first directly, then through the streams, one request after
another, since both count against the same limits at Tebra. With --file many are
compared: one JSON object a line, as 'tebra send --file' reads them.

Answers are compared by structure, and only the places that differ are shown, with
{…} for names that don't look like a field's, since they may be a patient's;
--show-payloads shows those and what stands there, and is put on record. What differs each
time, such as a time of day, is left out with --ignore.

Exit codes: 0 all answers are the same, 1 some differ or can't be compared, 2 bad
usage, 130 interrupted.`

const compareExamples = `  tebra compare getProviders
  tebra compare syncSchedule date=2026-11-23 --show-payloads
  tebra compare getAppointments fromDate=2026-11-01 toDate=2026-11-30 \
    --ignore '$.generatedAt'
  tebra compare --file reads.jsonl --output json`

const (
	// mostDifferences bounds what is told of one pair of answers.
	mostDifferences = 20
	// mostCompared bounds what is kept of a file.
	mostCompared = 10_000
	// mostShown bounds how much is shown of one place, in characters.
	mostShown = 200
)

// compareOptions are the flags of compare.
type compareOptions struct {
	send         sendOptions
	surroundings surroundingFlags
	file         string
	ignore       []string
	payloads     bool
}

func (a *app) compareCommand() *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use:               "compare ACTION [key=value | key:=JSON]... | compare --file FILE",
		Short:             "Compare the API's answers with those through the streams",
		Long:              compareHelp,
		Example:           compareExamples,
		Args:              needActionOrFile,
		ValidArgsFunction: completeRead,
		RunE:              a.runE(func(cmd *cobra.Command, args []string) error { return a.compare(cmd, o, args) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.send.params, "params", "", "the params as one `JSON` object, @FILE, or - for stdin")
	flags.StringVar(&o.send.user, "user", "", "ID of the `user` who asks (default "+defaultUser+" with a local pipeline, required otherwise)")
	flags.DurationVar(&o.send.timeout, "timeout", defaultTimeout, "how long to wait for each answer")
	flags.StringVarP(&o.file, "file", "f", "", "compare the requests of a `file`, one JSON object a line, or - for stdin")
	flags.StringArrayVar(&o.ignore, "ignore", nil, "a `path` that does not count, such as $.rows[*].updated; may be repeated")
	flags.BoolVar(&o.payloads, "show-payloads", false, "show what stands where the answers differ, and put that on record")
	addOperatorFlag(cmd)
	o.send.pipeline.register(flags)
	o.surroundings.register(flags)
	return cmd
}

func needActionOrFile(cmd *cobra.Command, args []string) error {
	if many := cmd.Flags().Changed("file"); many != (len(args) == 0) {
		return errors.New("want either ACTION, such as 'tebra compare getProviders', or --file FILE")
	}
	return nil
}

func (a *app) compare(cmd *cobra.Command, o compareOptions, args []string) error {
	ctx := cmd.Context()
	if o.send.timeout <= 0 {
		return usagef("--timeout is %v; want more than 0s", o.send.timeout)
	}
	if o.file != "" && o.send.params != "" {
		return usagef("--params is about one request; with --file, put it into the lines")
	}
	target, err := o.send.pipeline.find(ctx, a.env, cmd.Flags())
	if err != nil {
		return err
	}
	around, err := o.surroundings.find(ctx, a.env, target)
	if err != nil {
		return err
	}
	requests, err := a.reads(o, args, target, around.policy)
	if err != nil {
		return err
	}
	api, err := around.client(ctx)
	if err != nil {
		return err
	}
	defer api.Close()
	rdb := redis.NewClient(target.redis)
	defer func() { _ = rdb.Close() }() // everything that matters was answered before
	c := &comparing{
		app: a, cmd: cmd, api: api, rdb: rdb, keys: target.keys, options: o, bar: a.newBar(len(requests)),
		why: a.newWaiting(inspect.New(rdb, target.keys, around.policy)),
	}
	return c.run(ctx, requests)
}

// reads returns the requests to compare, once all of them are known to be reads.
func (a *app) reads(o compareOptions, args []string, target pipeline, rules *policy.Policy) ([]tebra.Request, error) {
	if o.file != "" {
		return a.readsOfFile(o, target, rules)
	}
	params, err := readParams(o.send.params, args[1:], a.stdin)
	if err != nil {
		return nil, err
	}
	if err := checkRead(args[0], rules); err != nil {
		return nil, err
	}
	request, err := a.request(o.send, args[0], params, target)
	return []tebra.Request{request}, err
}

func (a *app) readsOfFile(o compareOptions, target pipeline, rules *policy.Policy) ([]tebra.Request, error) {
	source, err := openBulk(o.file, a.stdin)
	if err != nil {
		return nil, err
	}
	defer func() { _ = source.close() }() // it was only read
	var all []tebra.Request
	err = source.each(func(number int, text []byte) error {
		l, err := parseBulkLine(text)
		if err == nil {
			err = checkRead(l.Action, rules)
		}
		var request tebra.Request
		if err == nil {
			l.ID, l.CorrelationID = "", "" // an answer that is on record would be repeated
			request, err = a.bulkRequest(o.send, l, target)
		}
		if err == nil && len(all) == mostCompared {
			err = fmt.Errorf("at most %d are compared at a time; split the file", mostCompared)
		}
		if err != nil {
			return usagef("line %d of %s: %w; nothing was asked", number, o.file, err)
		}
		all = append(all, request)
		return nil
	})
	if err == nil && len(all) == 0 {
		err = usagef("there is no request in %s; want a JSON object a line", o.file)
	}
	return all, err
}

// checkRead refuses what may change something.
func checkRead(name string, rules *policy.Policy) error {
	action, ok := rules.Action(name)
	switch {
	case !ok:
		return usagef("the policy does not know the action %q, so nobody can say that it only reads; give --policy with one that does", name)
	case action.Effect == policy.Write:
		return usagef("%s changes something, and would be made twice; only reads are compared", name)
	}
	return nil
}

// comparing is one use of the command.
type comparing struct {
	app     *app
	cmd     *cobra.Command
	api     *php.Client
	rdb     *redis.Client
	keys    tebra.Keys
	options compareOptions
	bar     *bar
	why     waiting
}

// side is what came of a request on one of the two ways.
type side struct {
	took   time.Duration
	data   json.RawMessage
	code   tebra.ErrorCode // of an answer that is an error
	text   string          // the same for people: the API's own words, perhaps
	failed string          // why there is no answer
}

// verdict is how a comparison ended.
type verdict string

const (
	same    verdict = "same"
	differs verdict = "differs"
	failed  verdict = "not_comparable"
)

// comparison is a request and what came of it on both ways.
type comparison struct {
	request         tebra.Request
	direct, streams side
	verdict         verdict
	why             string // when not comparable
	result          compare.Result
}

func (c *comparing) run(ctx context.Context, requests []tebra.Request) error {
	var done []comparison
	var err error
	for _, request := range requests {
		var one comparison
		if one, err = c.one(ctx, request); err != nil {
			break
		}
		done = append(done, one)
		c.bar.set(len(done), "")
	}
	c.bar.end()
	p := c.app.newPrinter()
	if recorded := c.record(done); recorded != nil {
		return errors.Join(err, recorded)
	}
	c.print(p, done)
	if err == nil {
		err = outcomeOf(done)
	}
	return errors.Join(interrupted(ctx, err, fmt.Sprintf("%d of %d requests were compared", len(done), len(requests))), p.err)
}

// one asks on both ways. The error is of the command, not of the request.
func (c *comparing) one(ctx context.Context, request tebra.Request) (comparison, error) {
	one := comparison{request: request}
	one.direct = c.directly(ctx, request)
	if ctx.Err() != nil {
		return one, ctx.Err()
	}
	var err error
	if one.streams, err = c.throughStreams(ctx, request); err != nil {
		return one, err
	}
	one.judge(compare.Options{Ignore: c.options.ignore, Most: mostDifferences})
	return one, nil
}

func (c *comparing) directly(ctx context.Context, request tebra.Request) side {
	began := c.app.now()
	r := c.api.Call(ctx, php.Request{
		Action: request.Action, Params: request.Params, RequestID: c.app.newID(), CorrelationID: request.CorrelationID,
		Timeout: c.options.send.timeout,
	})
	s := side{took: c.app.now().Sub(began), data: r.Data}
	switch r.Outcome {
	case php.Answered:
	case php.Refused:
		s.code, s.text = r.Code, r.UserText
	default:
		s.failed = "the API gave no answer: " + r.Cause
	}
	return s
}

func (c *comparing) throughStreams(ctx context.Context, request tebra.Request) (side, error) {
	f := &follower{
		rdb: c.rdb, keys: c.keys, request: request, seen: func(tebra.StatusUpdate) {},
		idle:    func(ctx context.Context) { c.why.look(ctx, c.bar.end) },
		trouble: func(err error) { c.app.note("Redis can't be read: %v; trying again", err) },
	}
	bounded, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	if err := f.begin(bounded); err != nil {
		return side{}, fmt.Errorf("%w; is Redis running there, and may this user read it?", err)
	}
	began := c.app.now()
	c.why.since = began
	if err := c.rdb.XAdd(bounded, &redis.XAddArgs{Stream: c.keys.Requests(), Values: entryFields(request)}).Err(); err != nil {
		return side{}, fmt.Errorf("adding the request to %s: %w", c.keys.Requests(), err)
	}
	waiting, stop := context.WithTimeoutCause(ctx, c.options.send.timeout, errNoAnswer)
	defer stop()
	answer, err := f.await(waiting)
	s := side{took: c.app.now().Sub(began)}
	switch {
	case errors.Is(err, errNoAnswer):
		s.failed = fmt.Sprintf("no answer came through the streams within %v", c.options.send.timeout)
	case err != nil:
		return s, err
	default:
		s.data, s.code, s.text = answer.Data, answer.ErrorCode, answer.Error
	}
	return s, nil
}

// judge compares the two sides.
func (c *comparison) judge(o compare.Options) {
	for _, s := range []side{c.direct, c.streams} {
		if s.failed != "" {
			c.verdict, c.why = failed, s.failed
			return
		}
	}
	var err error
	switch {
	case c.direct.code == "" && c.streams.code == "":
		c.result, err = compare.JSON(c.direct.data, c.streams.data, o)
	default:
		c.result, err = compare.JSON(c.direct.asError(), c.streams.asError(), o)
	}
	switch {
	case err != nil:
		c.verdict, c.why = failed, "the answers can't be compared: "+err.Error()
	case c.result.Same():
		c.verdict = same
	default:
		c.verdict = differs
	}
}

// asError is an answer in a form in which an error can be compared with a success.
func (s side) asError() []byte {
	body := map[string]string{"status": string(tebra.Success)}
	if s.code != "" {
		body = map[string]string{"status": string(tebra.Failed), "errorCode": string(s.code), "error": s.text}
	}
	text, err := json.Marshal(body)
	if err != nil { // text always marshals
		return nil
	}
	return text
}

// record puts on record whose contents are about to be shown.
func (c *comparing) record(done []comparison) error {
	var records []tebra.AuditRecord
	for _, one := range done {
		if c.options.payloads && one.verdict == differs {
			records = append(records, tebra.AuditRecord{
				RequestID: one.request.ID, CorrelationID: one.request.CorrelationID,
				Action: one.request.Action, UserID: one.request.UserID,
			})
		}
	}
	return c.app.recordShown(c.cmd, c.rdb, c.keys, records)
}

func outcomeOf(done []comparison) error {
	different, not := countVerdict(done, differs), countVerdict(done, failed)
	if different+not == 0 {
		return nil
	}
	return fmt.Errorf("of %d compared, %d differ and %d can't be", len(done), different, not)
}

func countVerdict(done []comparison, v verdict) int {
	n := 0
	for _, one := range done {
		if one.verdict == v {
			n++
		}
	}
	return n
}

// jsonComparison is a comparison for programs.
type jsonComparison struct {
	Event         string           `json:"event"`
	Action        string           `json:"action"`
	RequestID     string           `json:"requestId"`
	Result        verdict          `json:"result"`
	Why           string           `json:"why,omitempty"`
	DirectMillis  int64            `json:"directMs"`
	StreamsMillis int64            `json:"streamsMs"`
	Differences   []jsonDifference `json:"differences,omitempty"`
	More          int              `json:"moreDifferences,omitempty"`
}

type jsonDifference struct {
	Path    string          `json:"path"`
	Kind    compare.Kind    `json:"kind"`
	Direct  json.RawMessage `json:"direct,omitempty"`
	Streams json.RawMessage `json:"streams,omitempty"`
}

func (c *comparing) print(p *printer, done []comparison) {
	if !c.options.payloads && hidesNames(done) {
		c.app.note("%s stands for a name that may be contents; --show-payloads shows it.", compare.Placeholder)
	}
	if p.asJSON() {
		for _, one := range done {
			p.object(c.comparisonJSON(one))
		}
		if c.options.file != "" {
			p.object(summaryOf(done))
		}
		return
	}
	t := table{header: []string{"ACTION", "RESULT", ">DIRECT", ">STREAMS", ">ADDED", "REQUEST"}}
	for _, one := range done {
		t.add(word(one.request.Action), painted(verdictPaint(one.verdict), verdictText(one.verdict)), word(roundly(one.direct.took)),
			word(roundly(one.streams.took)), word(signed(one.streams.took-one.direct.took)), word(one.request.ID))
	}
	p.table(t)
	for _, one := range done {
		c.printDifferences(p, one)
	}
	if c.options.file != "" {
		printSummary(p, summaryOf(done))
	}
}

// place is where a difference is, as far as it may be shown.
func (c *comparing) place(d compare.Difference) string {
	if c.options.payloads {
		return d.Path
	}
	return d.Shape
}

// hidesNames reports whether a place can't be shown whole.
func hidesNames(done []comparison) bool {
	return slices.ContainsFunc(done, func(one comparison) bool {
		return slices.ContainsFunc(one.result.Differences, func(d compare.Difference) bool {
			return strings.Contains(d.Shape, compare.Placeholder)
		})
	})
}

func (c *comparing) comparisonJSON(one comparison) jsonComparison {
	j := jsonComparison{
		Event: "comparison", Action: one.request.Action, RequestID: one.request.ID, Result: one.verdict, Why: one.why,
		DirectMillis: one.direct.took.Milliseconds(), StreamsMillis: one.streams.took.Milliseconds(), More: one.result.More,
	}
	for _, d := range one.result.Differences {
		line := jsonDifference{Path: c.place(d), Kind: d.Kind}
		if c.options.payloads {
			line.Direct, line.Streams = d.First, d.Second
		}
		j.Differences = append(j.Differences, line)
	}
	return j
}

func verdictText(v verdict) string {
	if v == failed {
		return "not comparable"
	}
	return string(v)
}

func verdictPaint(v verdict) paint {
	switch v {
	case same:
		return good
	case differs:
		return bad
	default:
		return caution
	}
}

func signed(d time.Duration) string {
	if d < 0 {
		return "-" + roundly(-d)
	}
	return "+" + roundly(d)
}

func (c *comparing) printDifferences(p *printer, one comparison) {
	switch one.verdict {
	case same:
		return
	case failed:
		p.write("\n")
		p.line(word(one.request.Action, " ", one.request.ID, ": ", one.why))
		return
	}
	p.write("\n")
	p.line(word(one.request.Action, " ", one.request.ID, " differs:"))
	for _, d := range one.result.Differences {
		p.line(word("  "), painted(active, c.place(d)), word("  ", kindText(d.Kind)))
		if c.options.payloads {
			showSide(p, "direct", d.First)
			showSide(p, "streams", d.Second)
		}
	}
	if one.result.More > 0 {
		p.line(word(fmt.Sprintf("  and %d more", one.result.More)))
	}
}

func showSide(p *printer, name string, value json.RawMessage) {
	if len(value) == 0 {
		return
	}
	text := []rune(string(value))
	if len(text) > mostShown {
		text = append(text[:mostShown], '…')
	}
	p.line(painted(dimmed, fmt.Sprintf("    %-8s", name)), word(string(text)))
}

func kindText(k compare.Kind) string {
	switch k {
	case compare.OnlyFirst:
		return "is in the direct answer only"
	case compare.OnlySecond:
		return "is in the answer through the streams only"
	case compare.Type:
		return "is of another type"
	default:
		return "has another value"
	}
}

// compareSummary tells how a file of comparisons went.
type compareSummary struct {
	Event         string `json:"event"`
	Compared      int    `json:"compared"`
	Same          int    `json:"same"`
	Differ        int    `json:"differ"`
	NotComparable int    `json:"notComparable"`
	Direct        times  `json:"direct"`
	Streams       times  `json:"streams"`
}

type times struct {
	P50 int64 `json:"p50Ms"`
	P95 int64 `json:"p95Ms"`
}

// summaryOf counts, and takes the times of what could be compared.
func summaryOf(done []comparison) compareSummary {
	s := compareSummary{
		Event: "summary", Compared: len(done), Same: countVerdict(done, same),
		Differ: countVerdict(done, differs), NotComparable: countVerdict(done, failed),
	}
	var direct, streams []time.Duration
	for _, one := range done {
		if one.verdict != failed {
			direct, streams = append(direct, one.direct.took), append(streams, one.streams.took)
		}
	}
	s.Direct, s.Streams = timesOf(direct), timesOf(streams)
	return s
}

func timesOf(all []time.Duration) times {
	if len(all) == 0 {
		return times{}
	}
	slices.Sort(all)
	return times{percentile(all, 50).Milliseconds(), percentile(all, 95).Milliseconds()}
}

func printSummary(p *printer, s compareSummary) {
	p.write("\n")
	p.line(word(fmt.Sprintf("%d compared: %d the same, %d different, %d not comparable", s.Compared, s.Same, s.Differ, s.NotComparable)))
	if s.Same+s.Differ > 0 {
		p.line(word(fmt.Sprintf("  direct   p50 %d ms, p95 %d ms", s.Direct.P50, s.Direct.P95)))
		p.line(word(fmt.Sprintf("  streams  p50 %d ms, p95 %d ms", s.Streams.P50, s.Streams.P95)))
	}
}
