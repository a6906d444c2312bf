package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/tebra"
)

const (
	// defaultUser is who asks a local pipeline, whose policy grants everybody
	// everything.
	defaultUser = "local-user"
	// defaultTimeout is how long an answer is waited for.
	defaultTimeout = 30 * time.Second
	// putTimeout bounds all that is done with Redis until the request is on the
	// stream.
	putTimeout = 10 * time.Second
)

const sendHelp = `Put a request on the requests stream, show what becomes of it, and print the
answer's data.

Params are key=value for text and key:=JSON for everything else, or one JSON
object with --params: as text, @FILE, or - for stdin. Other users of this machine can
see arguments in its list of processes: what concerns a patient goes into a file.

Progress goes to stderr and the data to stdout, indented on a terminal and
compact in a pipe. With --output json, stdout has one object a line for what was
sent, each update, and the answer.

Exit codes: 0 success, 1 error, 2 bad usage, 3 no answer within --timeout, 130
interrupted. After 3 and 130 the request is still on the stream and will be
answered. The same command with the same --id and --correlation-id waits for its
answer again: nothing is changed twice under one ID.

With --file many are sent, some at a time: one JSON object a line with action,
params, and if wanted userId, id and correlationId. Stdout has a summary, without
any answer's data. What failed, is not answered or was not sent is put into a file
to be sent again: under its own id where it may have had an effect, which tells
what became of it, else as a new request. --timeout is then how long nothing at
all may be heard, 2m by default. Exit code 1 if any request ended in an error.`

const sendExamples = `  tebra send syncSchedule date=2026-11-23
  tebra send getAppointments fromDate=2026-11-01 toDate=2026-11-30 | jq .
  tebra send createAppointment appointmentData:='{"patientId":7}' --timeout 1m
  tebra send createAppointment --params @appointment.json
  echo '{"date":"2026-11-23"}' | tebra send syncSchedule --params -
  tebra send health --redis redis://127.0.0.1:6379 --user u1 --output json
  tebra send --file requests.jsonl --in-flight 20
  tebra send --file - --no-wait < requests.jsonl`

// sendOptions are the flags of send.
type sendOptions struct {
	pipeline      pipelineFlags
	params        string
	user          string
	id            string
	correlationID string
	noWait        bool
	timeout       time.Duration

	file     string
	inFlight int
	failures string
}

func (a *app) sendCommand() *cobra.Command {
	var o sendOptions
	cmd := &cobra.Command{
		Use:               "send ACTION [key=value | key:=JSON]... | send --file FILE",
		Short:             "Send requests and wait for their answers",
		Long:              sendHelp,
		Example:           sendExamples,
		Args:              needAction,
		ValidArgsFunction: completeRequest,
		RunE:              a.runE(func(cmd *cobra.Command, args []string) error { return a.send(cmd, o, args) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.params, "params", "", "the params as one `JSON` object, @FILE, or - for stdin")
	flags.StringVar(&o.user, "user", "", "ID of the `user` who asks (default "+defaultUser+" with a local pipeline, required otherwise)")
	flags.StringVar(&o.id, "id", "", "the request's `ID` (default a new one)")
	flags.StringVar(&o.correlationID, "correlation-id", "", "the `ID` that pairs answers with requests (default the request's)")
	flags.BoolVar(&o.noWait, "no-wait", false, "don't wait for the answer")
	flags.DurationVar(&o.timeout, "timeout", defaultTimeout, "how long to wait for the answer")
	flags.StringVarP(&o.file, "file", "f", "", "send the requests of a `file`, one JSON object a line, or - for stdin")
	flags.IntVar(&o.inFlight, "in-flight", 100, "with --file, how many may be unanswered at a time, at most 1000")
	flags.StringVar(&o.failures, "failures", "", "with --file, the `file` for what failed (default: requests.failed.jsonl beside requests.jsonl)")
	o.pipeline.register(flags)
	return cmd
}

func needAction(cmd *cobra.Command, args []string) error {
	many := cmd.Flags().Changed("file")
	switch {
	case many && len(args) > 0:
		return errors.New("with --file, actions and params are in the lines; leave out what follows")
	case !many && len(args) == 0:
		return errors.New("which ACTION? For example: tebra send health; or give --file for many requests")
	}
	return nil
}

// completeAction offers the actions that are known everywhere; a pipeline's
// policy may know more.
func completeAction(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	var names []string
	for _, action := range policy.Default().Actions() {
		names = append(names, action.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// send runs the command.
func (a *app) send(cmd *cobra.Command, o sendOptions, args []string) error {
	ctx := cmd.Context()
	if err := exclude(cmd, "no-wait", "timeout"); err != nil {
		return err
	}
	if o.timeout <= 0 {
		return usagef("--timeout is %v; want more than 0s, or --no-wait", o.timeout)
	}
	if cmd.Flags().Changed("file") {
		return a.sendBulk(cmd, o)
	}
	for _, name := range [...]string{"in-flight", "failures"} {
		if cmd.Flags().Changed(name) {
			return usagef("--%s is about many requests; give --file as well", name)
		}
	}
	params, err := readParams(o.params, args[1:], a.stdin)
	if err != nil {
		return err
	}
	target, err := o.pipeline.find(ctx, a.env, cmd.Flags())
	if err != nil {
		return err
	}
	request, err := a.request(o, args[0], params, target)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(target.redis)
	defer func() { _ = rdb.Close() }() // everything that matters was answered before
	s := &sending{
		rdb: rdb, keys: target.keys, request: request,
		report: a.newReport(o, request),
	}
	return s.run(ctx, o)
}

// request makes the request, and holds it against the rules that bridges hold it
// against, so that a slip is told at once and precisely.
func (a *app) request(o sendOptions, action string, params []byte, target pipeline) (tebra.Request, error) {
	r := tebra.Request{
		ID: o.id, Action: action, Params: params, UserID: o.user,
		Timestamp: tebra.FormatTime(a.now()), CorrelationID: o.correlationID,
	}
	if r.UserID == "" && target.local {
		r.UserID = defaultUser
	}
	if r.UserID == "" {
		return r, usagef("who asks? Give --user; only a local pipeline that was found by itself has a default")
	}
	r.Identify(a.newID)
	if _, err := tebra.DecodeEntry(entryFields(r), math.MaxInt); err != nil {
		return r, usagef("this can't be sent: %w", err)
	}
	return r, nil
}

// entryFields returns r as names and values in turn, the flat form of an entry of
// the requests stream (DESIGN section 4).
func entryFields(r tebra.Request) []string {
	return []string{
		"id", r.ID, "action", r.Action, "params", string(r.Params), "userId", r.UserID,
		"timestamp", r.Timestamp, "correlationId", r.CorrelationID,
	}
}

// sending is one request on its way.
type sending struct {
	rdb     *redis.Client
	keys    tebra.Keys
	request tebra.Request
	report  *report
	last    tebra.State // "" until the pipeline has shown a sign of life

	heard time.Duration // when that was, from the beginning
	why   string        // what it waits for, as far as was found out when nothing was heard
}

func (s *sending) run(ctx context.Context, o sendOptions) error {
	f := &follower{
		rdb: s.rdb, keys: s.keys, request: s.request,
		seen: s.seen, idle: s.idle, trouble: s.report.trouble,
	}
	entry, err := s.put(ctx, f)
	if err != nil {
		return err
	}
	s.report.sent(entry)
	if o.noWait {
		return s.report.err
	}
	waiting, cancel := context.WithTimeoutCause(ctx, o.timeout, errNoAnswer)
	defer cancel()
	answer, err := f.await(waiting)
	if err != nil {
		return s.unanswered(ctx, err, o.timeout)
	}
	s.report.answer(*answer)
	return errors.Join(s.outcome(*answer), s.report.err)
}

func (s *sending) seen(update tebra.StatusUpdate) {
	s.last, s.heard = update.State, s.report.elapsed()
	s.why = ""
	s.report.status(update)
}

// idle says what the request may be waiting for when nothing has been heard of it for
// a while, once for each state.
func (s *sending) idle(ctx context.Context) {
	if s.why != "" || s.report.elapsed()-s.heard < silence {
		return
	}
	s.why = s.stage()
	if found := causes(ctx, inspect.New(s.rdb, s.keys, policy.Default())); len(found) > 0 {
		s.why = found[0].What
	}
	s.report.waiting(s.why)
}

// put adds the request to the stream, once f knows where to read from, and
// returns the entry's ID.
func (s *sending) put(ctx context.Context, f *follower) (string, error) {
	bounded, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	if err := f.begin(bounded); err != nil {
		return "", notSent(ctx, fmt.Errorf("%w; is Redis running there, and may this user read it?", err), "nothing was sent")
	}
	s.report.begin()
	entry, err := s.rdb.XAdd(bounded, &redis.XAddArgs{Stream: s.keys.Requests(), Values: entryFields(s.request)}).Result()
	if err == nil {
		return entry, nil
	}
	fate := "nothing was sent"
	if _, refused := errors.AsType[redis.Error](err); !refused {
		fate = "the request may have been sent or not; to be sure, repeat the command with " + s.again()
	}
	return "", notSent(ctx, fmt.Errorf("adding the request to %s: %w", s.keys.Requests(), err), fate)
}

// notSent is the error of a request that is not, or not surely, on the stream;
// fate says which.
func notSent(ctx context.Context, err error, fate string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %s", errInterrupted, fate)
	}
	return fmt.Errorf("%s: %w", fate, err)
}

// outcome is the error of an answer, nil for a success.
func (s *sending) outcome(answer tebra.Response) error {
	if answer.State() == tebra.Success {
		return nil
	}
	what, meaning := answer.Error, answer.ErrorCode.Meaning()
	if what != meaning {
		what += " (" + meaning + ")"
	}
	return fmt.Errorf("%s ended in an error, %s: %s", s.request.Action, answer.ErrorCode, what)
}

// unanswered says where a request stands that is no longer waited for.
func (s *sending) unanswered(ctx context.Context, err error, timeout time.Duration) error {
	const stays = "The request stays on %s and will be answered on %s. To wait for it again, repeat the command with %s."
	how := fmt.Sprintf(stays, s.keys.Requests(), s.keys.Responses(), s.again())
	switch {
	case errors.Is(err, errNoAnswer):
		return fmt.Errorf("%w: %v have passed and %s\n%s", errNoAnswer, timeout, s.stage(), how)
	case ctx.Err() != nil:
		return fmt.Errorf("%w while waiting for the answer\n%s", errInterrupted, how)
	default:
		return err
	}
}

// stage says how far the request has come, for whoever has to find out why it
// comes no further.
func (s *sending) stage() string {
	if s.why != "" {
		return s.why
	}
	switch s.last {
	case tebra.Pending:
		return "the request is pending: it waits for its lane, for the API to come back, or for its next attempt"
	case tebra.Processing:
		return "an attempt is under way: it waits for its turn, or for the API to answer"
	default:
		return fmt.Sprintf("nothing has taken the request: does a bridge run on this Redis, with the prefix %s?", s.keys.Prefix())
	}
}

// again names the flags under which the same command is the same request.
func (s *sending) again() string {
	flags := "--id " + s.request.ID
	if s.request.CorrelationID != s.request.ID {
		flags += " --correlation-id " + s.request.CorrelationID
	}
	return flags
}
