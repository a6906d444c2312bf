package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/deadletters"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

const deadLettersHelp = `Requests that nobody could answer, and entries that were no requests, wait in
Pub/Sub for a person. Look at them, send them again, or give them up.

They wait in a subscription that can only be looked at by taking from it for a
while. Everything that is not replayed or dropped is given back at once, also on
Ctrl-C; a command that is killed keeps it out of sight for a minute. Two people
who look at the same time each see a part.

What may have to be accounted for (contents shown, replays, drops) is put on
record first, with --operator.`

// letterFlags are those of all commands about dead letters.
type letterFlags struct {
	pipeline     pipelineFlags
	surroundings surroundingFlags
	subscription string
	operator     string
	wait         time.Duration
}

func (a *app) deadLettersCommand() *cobra.Command {
	var f letterFlags
	cmd := &cobra.Command{
		Use:     "deadletters",
		Aliases: []string{"deadletter", "dl"},
		Short:   "List, show, replay and drop dead letters",
		Long:    deadLettersHelp,
		Example: `  tebra deadletters list --since 1d
  tebra deadletters replay --reason dead_lettered --dry-run`,
		Args: unknownCommand, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	f.pipeline.register(flags)
	f.surroundings.register(flags)
	flags.StringVar(&f.subscription, "subscription", "", "the operators' `subscription` (default INSPECT_SUBSCRIPTION, else tebra-dead-letters-inspect)")
	flags.StringVar(&f.operator, "operator", "", "`who` acts, for the record (default user@host)")
	flags.DurationVar(&f.wait, "wait", deadletters.DefaultQuiet, "how long nothing may come before the list is believed to be whole (an emulator needs none)")
	cmd.AddCommand(a.listCommand(&f), a.showCommand(&f), a.replayCommand(&f), a.dropCommand(&f))
	return cmd
}

// desk is one command's way to the dead letters.
type desk struct {
	*deadletters.Queue
	subscription string // as people call it
	closers      []func() error
}

func (d *desk) close() {
	for _, c := range d.closers {
		_ = c() // everything that matters was answered before
	}
}

// open connects to what the flags name.
func (f *letterFlags) open(cmd *cobra.Command, a *app) (*desk, error) {
	ctx := cmd.Context()
	if f.wait < 0 {
		return nil, usagef("--wait is %v; want 0s or more", f.wait)
	}
	most, err := maxRequestBytes(a.env)
	if err != nil {
		return nil, err
	}
	target, err := f.pipeline.find(ctx, a.env, cmd.Flags())
	if err != nil {
		return nil, err
	}
	around, err := f.surroundings.find(ctx, a.env, target)
	if err != nil {
		return nil, err
	}
	sub, err := around.subscriber(ctx)
	if err != nil {
		return nil, err
	}
	rdb := redis.NewClient(target.redis)
	if f.subscription != "" {
		around.inspect = f.subscription
	}
	if f.operator == "" {
		f.operator = defaultOperator()
	}
	if around.pubsub.EmulatorHost != "" && !cmd.Flags().Changed("wait") {
		f.wait = time.Millisecond
	}
	return &desk{
		subscription: around.inspect + " of project " + around.pubsub.Project,
		closers:      []func() error{rdb.Close, sub.Close},
		Queue: deadletters.New(deadletters.Config{
			Subscription: around.subscription(around.inspect), Operator: f.operator, Quiet: f.wait, MaxRequestBytes: most,
		}, deadletters.Deps{
			Subscriber: sub, Ledger: ledger.New(rdb, target.keys, ledger.Config{}), Auditor: stream.New(rdb, target.keys),
			IsWrite: around.isWrite, Now: a.now,
		}),
	}, nil
}

// maxRequestBytes returns the bridges' bound on an entry, as far as it is known here.
func maxRequestBytes(env environment) (int, error) {
	text := env["MAX_REQUEST_BYTES"]
	if text == "" {
		return tebra.DefaultMaxRequestBytes, nil
	}
	most, err := strconv.Atoi(text)
	if err != nil || most < 1 {
		return 0, configf("MAX_REQUEST_BYTES is %q; want the number that the bridges have, or none", text)
	}
	return most, nil
}

// trouble says what to do about an error, where that can be told.
func (d *desk) trouble(ctx context.Context, err error, left string) error {
	if errors.Is(err, deadletters.ErrNoSubscription) {
		return configf("there is no subscription %s: check --project and --subscription, or create it (terraform/ does)", d.subscription)
	}
	return interrupted(ctx, err, left)
}

// looking says on a terminal what takes the time, until the function that it
// returns is called.
func (a *app) looking() (stop func()) {
	live := a.newLive(a.stderr)
	if live == nil {
		return func() {}
	}
	_ = live.draw(nil, []string{a.styleFor(a.stderr).dim("Looking for dead letters…")}) // what is lost is only looked at
	return func() { _ = live.draw(nil, nil) }
}

// note tells people something beside the results.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.stderr, "%s\n", a.styleFor(a.stderr).dim(printable(fmt.Sprintf(format, args...))))
}

// letterFilter say which letters are listed.
type letterFilter struct {
	reason, action string
	since          *moment
}

func (a *app) listCommand(f *letterFlags) *cobra.Command {
	filter := letterFilter{since: a.newMoment()}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters and leave them where they are",
		Long: `List dead letters, oldest first, without what they hold, and leave all of them
where they are. An ID stays the same for as long as the letter is there.`,
		Example: `  tebra deadletters list
  tebra deadletters list --reason outcome_unknown --since 12h
  tebra deadletters list --action createAppointment --output json`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              a.runE(func(cmd *cobra.Command, _ []string) error { return a.listLetters(cmd, f, filter) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&filter.reason, "reason", "", "only letters of this `reason`")
	flags.StringVar(&filter.action, "action", "", "only letters of this `action`")
	flags.Var(filter.since, "since", "only letters published since then")
	completeFlag(cmd, "reason", reasonCompletions())
	completeFlag(cmd, "action", actionCompletions())
	return cmd
}

func (a *app) listLetters(cmd *cobra.Command, f *letterFlags, filter letterFilter) error {
	if err := checkReason(filter.reason); err != nil {
		return err
	}
	d, err := f.open(cmd, a)
	if err != nil {
		return err
	}
	defer d.close()
	stop := a.looking()
	found, err := d.List(cmd.Context(), deadletters.Filter{Reason: filter.reason, Action: filter.action, Since: filter.since.time})
	stop()
	p := a.newPrinter()
	a.printLetters(p, found.Letters)
	if err == nil {
		a.summarize(found)
	}
	return errors.Join(d.trouble(cmd.Context(), err, "the list is not whole; every letter is where it was"), p.err)
}

// checkReason refuses a reason that no letter can have; a slip would else look
// like an empty list.
func checkReason(reason string) error {
	if reason == "" || slices.Contains(deadletters.Reasons(), reason) {
		return nil
	}
	return usagef("there is no reason %q; want one of %s", reason, strings.Join(deadletters.Reasons(), ", "))
}

func (a *app) summarize(found deadletters.Listing) {
	switch {
	case found.Seen == 0:
		a.note("There are no dead letters.")
	case len(found.Letters) == found.Seen:
		a.note("%s.", count(found.Seen, "dead letter"))
	default:
		a.note("%d of %s.", len(found.Letters), count(found.Seen, "dead letter"))
	}
	if found.More {
		a.note("There may be more: that is as many as can be looked at in one go.")
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (a *app) printLetters(p *printer, letters []deadletters.Letter) {
	if p.asJSON() {
		for _, l := range letters {
			p.object(letterJSON(l))
		}
		return
	}
	if len(letters) == 0 {
		return
	}
	t := table{header: []string{"ID", "PUBLISHED", "REASON", "ACTION", "USER", "REQUEST"}}
	for _, l := range letters {
		t.add(word(l.ID), word(a.clockTime(l.PublishedAt)), painted(reasonPaint(l.Reason), l.Reason),
			word(orDash(l.Envelope.Action)), word(orDash(l.Envelope.UserID)), word(orDash(l.Envelope.RequestID)))
	}
	p.table(t)
}

func orDash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}

// reasonPaint marks what may have changed something.
func reasonPaint(reason string) paint {
	if reason == string(tebra.OutcomeUnknown) || reason == string(tebra.NoAnswer) {
		return bad
	}
	return caution
}

// jsonLetter is a letter for programs.
type jsonLetter struct {
	ID            string `json:"id"`
	PublishedAt   string `json:"publishedAt"`
	Kind          string `json:"kind"`
	Reason        string `json:"reason"`
	Problem       string `json:"problem,omitempty"`
	Action        string `json:"action,omitempty"`
	UserID        string `json:"userId,omitempty"`
	RequestID     string `json:"requestId,omitempty"`
	CorrelationID string `json:"correlationId,omitempty"`
	EntryID       string `json:"entryId,omitempty"`
	Lane          string `json:"lane,omitempty"`
	Deliveries    int    `json:"deliveries,omitempty"`
	Bytes         int    `json:"bytes"`
}

func letterJSON(l deadletters.Letter) jsonLetter {
	e := l.Envelope
	return jsonLetter{
		ID: l.ID, PublishedAt: tebra.FormatTime(l.PublishedAt), Kind: string(l.Kind), Reason: l.Reason, Problem: l.Problem,
		Action: e.Action, UserID: e.UserID, RequestID: e.RequestID, CorrelationID: e.CorrelationID,
		EntryID: e.EntryID, Lane: e.Lane, Deliveries: l.Deliveries, Bytes: l.Bytes,
	}
}

func (a *app) showCommand(f *letterFlags) *cobra.Command {
	var payloads bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one dead letter, and what a replay would do",
		Long: `Show one dead letter, and what a replay would do with it now. It stays where it
is. What it holds (health data) is shown with --show-payloads only, and that is
put on record first.`,
		Example: `  tebra deadletters show 17954088290971234
  tebra deadletters show 17954088290971234 --show-payloads`,
		Args:              oneID,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              a.runE(func(cmd *cobra.Command, args []string) error { return a.showLetter(cmd, f, args[0], payloads) }),
	}
	cmd.Flags().BoolVar(&payloads, "show-payloads", false, "show what the letter holds, and put that on record")
	return cmd
}

func oneID(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("want one ID, as 'tebra deadletters list' shows it")
	}
	return nil
}

func (a *app) showLetter(cmd *cobra.Command, f *letterFlags, id string, payloads bool) error {
	d, err := f.open(cmd, a)
	if err != nil {
		return err
	}
	defer d.close()
	stop := a.looking()
	detail, err := d.Show(cmd.Context(), id, payloads)
	stop()
	if err != nil {
		return d.trouble(cmd.Context(), err, "the letter is where it was")
	}
	p := a.newPrinter()
	a.printDetail(p, detail)
	return p.err
}

func (a *app) printDetail(p *printer, d deadletters.Detail) {
	if p.asJSON() {
		p.object(struct {
			jsonLetter
			Replay  jsonResult   `json:"replay"`
			Payload *jsonPayload `json:"payload,omitempty"`
		}{letterJSON(d.Letter), resultJSON(d.Forecast), payloadJSON(d.Payload)})
		return
	}
	for _, f := range a.detailFields(d) {
		if f[1] != "" {
			p.line(painted(dimmed, fmt.Sprintf("%-13s", f[0])), word(f[1]))
		}
	}
	printPayload(p, d.Payload)
}

func (a *app) detailFields(d deadletters.Detail) [][2]string {
	e := d.Envelope
	fields := [][2]string{
		{"letter", d.ID}, {"published", a.clockTime(d.PublishedAt)},
		{"reason", join(": ", d.Reason, deadletters.Meaning(d.Reason))}, {"problem", d.Problem},
		{"action", e.Action}, {"user", e.UserID}, {"request", e.RequestID}, {"correlation", e.CorrelationID},
		{"entry", e.EntryID}, {"lane", e.Lane}, {"size", count(d.Bytes, "byte")},
	}
	if !e.AdmittedAt.IsZero() {
		fields = append(fields, [2]string{"admitted", a.clockTime(e.AdmittedAt)})
	}
	if d.Deliveries > 0 {
		fields = append(fields, [2]string{"deliveries", fmt.Sprint(d.Deliveries)})
	}
	return append(fields, [2]string{"replay", outcomeText(d.Forecast)})
}

func join(by string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), by)
}

// jsonPayload is what a letter holds, for programs.
type jsonPayload struct {
	Params   json.RawMessage `json:"params,omitempty"`
	Metadata json.RawMessage `json:"_metadata,omitempty"`
	Fields   [][2]string     `json:"fields,omitempty"`
	Data     []byte          `json:"data,omitempty"` // as base64, which is all that JSON can hold
}

func payloadJSON(p *deadletters.Payload) *jsonPayload {
	if p == nil {
		return nil
	}
	return &jsonPayload{Params: p.Params, Metadata: p.Metadata, Fields: p.Fields, Data: p.Data}
}

func printPayload(p *printer, payload *deadletters.Payload) {
	if payload == nil {
		return
	}
	show := func(name string, text string) {
		if text != "" {
			p.line(painted(dimmed, fmt.Sprintf("%-13s", name)), word(text))
		}
	}
	show("params", string(payload.Params))
	show("_metadata", string(payload.Metadata))
	for _, f := range payload.Fields {
		show("field", f[0]+" = "+f[1])
	}
	show("data", string(payload.Data))
}
