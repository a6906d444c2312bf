package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/topology"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/tebra"
)

// secretText is in every payload that these tests make, and must be shown to nobody
// who did not ask.
const secretText = "Jane Doe, 1961"

// installation is a Redis and a Pub/Sub with everything that a bridge finds in
// production, and dead letters without the failures that make them.
type installation struct {
	*testing.T
	redis  *peertest.RedisServer
	rdb    *redis.Client
	keys   tebra.Keys
	ledger *ledger.Ledger
	spec   topology.Spec
	pubsub *peertest.PubSub
	subs   *pubsub.SubscriptionAdminClient
	letter *publish.Publisher
	n      int
}

func newInstallation(t *testing.T, options ...peertest.RedisOption) *installation {
	t.Helper()
	i := &installation{T: t, redis: peertest.Redis(t, options...), pubsub: peertest.Emulator(t)}
	i.rdb = i.redis.Client()
	i.keys, _ = tebra.NewKeys(tebra.DefaultPrefix)
	i.ledger = ledger.New(i.rdb, i.keys, ledger.Config{})
	i.spec = topology.Production(topology.Spec{
		Project: i.pubsub.Project(t), Requests: "tebra-requests", DeadLetters: "tebra-dead-letters", Inspect: "tebra-dead-letters-inspect",
		ProcessURL: "http://127.0.0.1:1/ProcessRequest", RecordURL: "http://127.0.0.1:1/RecordDeadLetter",
	})
	topics, err := pubsub.NewTopicAdminClient(t.Context(), publish.ClientOptions(i.pubsub.Addr())...)
	i.must(err)
	t.Cleanup(func() { topics.Close() })
	i.subs, err = pubsub.NewSubscriptionAdminClient(t.Context(), publish.ClientOptions(i.pubsub.Addr())...)
	i.must(err)
	t.Cleanup(func() { i.subs.Close() })
	i.must(topology.Create(t.Context(), topics, i.subs, i.spec))
	i.letter = publish.New(topics, "projects/"+i.spec.Project+"/topics/"+i.spec.DeadLetters)
	return i
}

func (i *installation) must(err error) {
	i.Helper()
	if err != nil {
		i.Fatal(err)
	}
}

// tebra is a use of the command line against the installation.
func (i *installation) tebra(args ...string) *command {
	return &command{args: args, env: []string{
		"REDIS_URL=" + i.redis.URL(), "GOOGLE_CLOUD_PROJECT=" + i.spec.Project, "PUBSUB_EMULATOR_HOST=" + i.pubsub.Addr(),
	}}
}

// deadLetters is [installation.tebra] with the command's name and an operator.
func (i *installation) deadLetters(args ...string) *command {
	return i.tebra(append([]string{"deadletters", "--operator", "ada@desk"}, args...)...)
}

// fail adds a dead letter of a request that ended with code, and returns its entry.
func (i *installation) fail(action string, code tebra.ErrorCode) string {
	i.Helper()
	i.n++
	r := tebra.Request{
		ID: fmt.Sprintf("request-%d", i.n), CorrelationID: fmt.Sprintf("corr-%d", i.n), Action: action, UserID: "user-1",
		Params: []byte(`{"note":"` + secretText + `"}`), Timestamp: "2026-11-23T00:00:00.000Z",
	}
	entry, err := i.rdb.XAdd(i.Context(), &redis.XAddArgs{Stream: "elsewhere", Values: []string{"n", r.ID}}).Result()
	i.must(err)
	epoch, err := i.ledger.Epoch(i.Context())
	i.must(err)
	d := ledger.Delivery{
		Envelope: tebra.Envelope{
			RequestID: r.ID, CorrelationID: r.CorrelationID, Action: action, UserID: r.UserID, EntryID: entry,
			Lane: policy.Default().LaneOf(action), Ledger: tebra.LedgerHash(r.UserID, r.ID), Epoch: epoch, AdmittedAt: time.Now(),
		},
		Fingerprint: tebra.Fingerprint(action, r.Params), Write: policy.Default().IsWrite(action),
	}
	if d.Write {
		_, _, err := i.ledger.Admit(i.Context(), []ledger.Admission{{Hash: d.Envelope.Ledger, EntryID: entry, Fingerprint: d.Fingerprint}})
		i.must(err)
	}
	claim, err := i.ledger.Settle(i.Context(), d)
	i.must(err)
	i.must(i.ledger.Complete(i.Context(), claim, tebra.Response{ErrorCode: code, Error: code.Meaning()}))
	d.Envelope.Reason = code
	i.publish(r.AppendJSON(nil), d.Envelope)
	return entry
}

func (i *installation) publish(data []byte, e tebra.Envelope) {
	i.Helper()
	ctx, cancel := context.WithTimeout(i.Context(), 10*time.Second)
	defer cancel()
	i.must(i.letter.One(ctx, data, e))
}

// reject adds the letter of an entry that was no request.
func (i *installation) reject() {
	i.publish([]byte(`{"entry":"5-1","reason":"field userId: is missing","bytes":321,"fields":[["action","health"],["note","`+secretText+`"]]}`),
		tebra.Envelope{EntryID: "5-1", RequestID: "rejected-1", Action: "health", Reason: tebra.Malformed})
}

// ids returns the IDs of all letters, as list prints them, oldest first.
func (i *installation) ids() []string {
	i.Helper()
	c := i.deadLetters("list")
	c.expect(i.T, c.run(i.T, i.Context()), exitOK)
	var all []string
	for line := range strings.Lines(c.stdout.String()) {
		if id, _, _ := strings.Cut(line, " "); id != "ID" {
			all = append(all, id)
		}
	}
	return all
}

// requests returns the IDs of the requests on the stream.
func (i *installation) requests() []string {
	i.Helper()
	var all []string
	for _, fields := range entries(i.T, i.redis, i.keys.Requests()) {
		all = append(all, fields[1])
	}
	return all
}

// audit returns who did what upon which request, as it is on record.
func (i *installation) audit() []string {
	i.Helper()
	var all []string
	for _, f := range entries(i.T, i.redis, i.keys.Audit()) {
		of := map[string]string{}
		for pair := range slices.Chunk(f, 2) {
			of[pair[0]] = pair[1]
		}
		all = append(all, strings.Join([]string{of["operator"], of["operation"], of["requestId"], of["decision"]}, " "))
	}
	return all
}

var (
	letterID    = regexp.MustCompile(`(?m)^(ID|\d+)  +`)
	shownID     = regexp.MustCompile(`(?m)^(letter +)\d+$`)
	jsonID      = regexp.MustCompile(`"id":"\d+"`)
	clockText   = regexp.MustCompile(`(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(\.\d{3})?`)
	rfc3339Text = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`)
)

// settled makes what is different each time the same.
func settled(text string) string {
	text = letterID.ReplaceAllStringFunc(text, func(s string) string {
		if strings.HasPrefix(s, "ID") {
			return "ID      "
		}
		return "LETTER  "
	})
	text = shownID.ReplaceAllString(text, "${1}LETTER")
	text = jsonID.ReplaceAllString(text, `"id":"LETTER"`)
	text = rfc3339Text.ReplaceAllString(text, "TIME")
	return clockText.ReplaceAllString(text, "HH:MM:SS.mmm")
}

// goldenLetters is [command.golden] for what tells of letters.
func (c *command) goldenLetters(t *testing.T, name string, exit int) {
	t.Helper()
	c.change = settled
	c.golden(t, name, exit)
	if both := c.stdout.String() + c.stderr.String(); strings.Contains(both, secretText) && !slices.Contains(c.args, "--show-payloads") {
		t.Errorf("tebra %q printed contents that nobody asked for:\n%s", c.args, both)
	}
}

func TestDeadLettersAreListedShownReplayedAndDropped(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.fail("getPatient", tebra.BadResponse)
	i.fail("createAppointment", tebra.OutcomeUnknown)
	i.reject()
	run := func(golden string, want int, args ...string) {
		t.Helper()
		c := i.deadLetters(args...)
		c.expect(t, c.run(t, t.Context()), want)
		c.goldenLetters(t, "deadletters-"+golden, want)
	}
	run("list", exitOK, "list")
	run("list-json", exitOK, "list", "--output", "json")
	run("list-reason", exitOK, "list", "--reason", "malformed", "--since", "1h")
	ids := i.ids()
	if len(ids) != 3 {
		t.Fatalf("list printed the IDs %v, want 3", ids)
	}
	run("show", exitOK, "show", ids[1])
	run("show-rejected", exitOK, "show", ids[2])
	run("show-payloads", exitOK, "show", ids[0], "--show-payloads")
	run("show-json", exitOK, "show", ids[0], "--show-payloads", "--output", "json")
	run("dry-run", exitOK, "replay", "--all", "--dry-run")
	run("dry-run-force", exitOK, "replay", "--all", "--dry-run", "--force", "--output", "json")
	if got := i.requests(); len(got) > 0 {
		t.Errorf("dry runs put %v on the stream, want nothing", got)
	}
	run("replay", exitFailed, "replay", "--all")
	run("replay-force", exitOK, "replay", ids[1], "--force")
	run("drop", exitOK, "drop", ids[2], "--yes")
	run("list-empty", exitOK, "list")
	run("replay-none", exitOK, "replay", "--all")
	if got, want := i.requests(), []string{"request-1", "request-2"}; !slices.Equal(got, want) {
		t.Errorf("the stream holds %v, want %v", got, want)
	}
	want := []string{
		"ada@desk payloads.shown request-1 allowed", "ada@desk payloads.shown request-1 allowed",
		"ada@desk deadletters.replay request-1 allowed", "ada@desk deadletters.replay request-2 forced",
		"ada@desk deadletters.drop rejected-1 allowed",
	}
	if got := i.audit(); !slices.Equal(got, want) {
		t.Errorf("on record is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAWriteOfUnknownOutcomeIsNotReplayedWithoutForce(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.fail("createAppointment", tebra.OutcomeUnknown)
	c := i.deadLetters("replay", "--reason", "outcome_unknown")
	c.expect(t, c.run(t, t.Context()), exitFailed, "look in the practice-management system first", "1 of 1 letter left undone")
	if got := i.requests(); len(got) > 0 || len(i.ids()) != 1 {
		t.Errorf("the stream holds %v, want nothing, and the letter where it was", got)
	}
}

func TestADropNeedsYes(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	i.fail("getPatient", tebra.BadResponse)
	id := i.ids()[0]
	c := i.deadLetters("drop", id)
	c.expect(t, c.run(t, t.Context()), exitUsage, "nothing was dropped", "--yes")
	if got := i.ids(); !slices.Equal(got, []string{id}) || len(i.audit()) > 0 {
		t.Errorf("letters %v and %v on record, want %s and nothing", got, i.audit(), id)
	}
}

func TestAnInterruptedReplayCanBeRunAgain(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	for range 3 {
		i.fail("createAppointment", tebra.DeadLettered)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := i.deadLetters("replay", "--all")
	c.expect(t, c.run(t, ctx), exitInterrupted, "interrupted", "run the command again")
	c = i.deadLetters("replay", "--all")
	c.expect(t, c.run(t, t.Context()), exitOK, "3 replayed.")
	if got := i.requests(); len(got) != 3 || len(i.ids()) > 0 {
		t.Errorf("the stream holds %v, want three requests and no letter left", got)
	}
}

func TestManyReplaysShowABarOnATerminalOnly(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	for range 4 {
		i.fail("getPatient", tebra.DeadLettered)
	}
	c := i.deadLetters("replay", "--all", "--dry-run")
	c.terminal = true
	c.expect(t, c.run(t, t.Context()), exitOK, "Looking for dead letters", "4 of 4", "\x1b[")
	c = i.deadLetters("replay", "--all", "--dry-run")
	c.expect(t, c.run(t, t.Context()), exitOK)
	if both := c.stdout.String() + c.stderr.String(); strings.Contains(both, "\x1b[") || strings.Contains(both, "█") {
		t.Errorf("in a pipe it printed %q, want no bar and no colours", both)
	}
}

func TestDeadLettersRefuseBadUsage(t *testing.T) {
	t.Parallel()
	env := []string{"REDIS_URL=redis://127.0.0.1:1", "GOOGLE_CLOUD_PROJECT=demo-x", "PUBSUB_EMULATOR_HOST=127.0.0.1:1"}
	for _, test := range []struct {
		args []string
		env  []string
		want string
	}{
		{[]string{"replay"}, env, "which dead letters?"},
		{[]string{"replay", "1", "--all"}, env, "only one of the three"},
		{[]string{"replay", "--reason", "bad_luck"}, env, `there is no reason "bad_luck"; want one of bad_response,`},
		{[]string{"list", "--reason", "bad_luck"}, env, `there is no reason "bad_luck"`},
		{[]string{"list", "now"}, env, "list takes flags only"},
		{[]string{"list", "--wait", "-1s"}, env, "--wait"},
		{[]string{"show"}, env, "want one ID"},
		{[]string{"drop"}, env, "want IDs"},
		{[]string{"lsit"}, env, "did you mean list?"},
		{[]string{"list"}, env[:1], "which Google Cloud project? Give --project"},
		{[]string{"list"}, nil, "no local pipeline is running"},
		{[]string{"list", "--policy", "/nowhere.yaml"}, env, "the policy can't be used"},
	} {
		c := &command{args: append([]string{"deadletters"}, test.args...), env: test.env}
		c.expect(t, c.run(t, t.Context()), exitUsage, test.want)
	}
}

func TestAMissingSubscriptionIsToldWithItsRemedy(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	c := i.deadLetters("list", "--subscription", "elsewhere")
	c.expect(t, c.run(t, t.Context()), exitUsage, "there is no subscription elsewhere of project "+i.spec.Project, "--subscription")
}

func TestTheOperatorIsWhoeverIsLoggedIn(t *testing.T) {
	t.Parallel()
	if got := defaultOperator(); !strings.Contains(got, "@") || strings.HasPrefix(got, "@") {
		t.Errorf("defaultOperator() = %q, want user@host", got)
	}
	if err := interrupted(t.Context(), errors.New("x"), "y"); errors.Is(err, errInterrupted) {
		t.Errorf("interrupted() = %v of a command that was not interrupted, want the error itself", err)
	}
}
