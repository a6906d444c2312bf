package policy

import (
	_ "embed"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/tebra"
)

//go:embed example.yaml
var exampleYAML string

// mustParse parses a policy that has to be right.
func mustParse(t testing.TB, file string) *Policy {
	t.Helper()
	p, err := Parse([]byte(file))
	if err != nil {
		t.Fatalf("Parse() = %v, want a policy from:\n%s", err, file)
	}
	return p
}

// problemsOf parses a policy that has to be wrong, and returns what is.
func problemsOf(t testing.TB, file string) []string {
	t.Helper()
	p, err := Parse([]byte(file))
	var invalid *InvalidError
	if !errors.As(err, &invalid) || p != nil {
		t.Fatalf("Parse() = %v, %v, want no policy and an *InvalidError from:\n%s", p, err, file)
	}
	list := make([]string, 0, len(invalid.Problems))
	for _, problem := range invalid.Problems {
		list = append(list, problem.String())
	}
	return list
}

func TestDefaultKnowsTheActionsAndGrantsNobodyAnything(t *testing.T) {
	t.Parallel()
	want := []Action{
		{Name: "createAppointment", Effect: Write, TTL: 4 * time.Hour, Lane: "create"},
		{Name: "getAppointments", Effect: Read, TTL: 24 * time.Hour, Lane: "appointments"},
		{Name: "getHealthStatus", Effect: Read, TTL: 24 * time.Hour, Lane: "default"},
		{Name: "getPatient", Effect: Read, TTL: 24 * time.Hour, Lane: "patients"},
		{Name: "getPatients", Effect: Read, TTL: 24 * time.Hour, Lane: "patients"},
		{Name: "getProviders", Effect: Read, TTL: 24 * time.Hour, Lane: "providers"},
		{Name: "health", Effect: Read, TTL: 24 * time.Hour, Lane: "default"},
		{Name: "searchPatients", Effect: Read, TTL: 24 * time.Hour, Lane: "patients"},
		{Name: "syncSchedule", Effect: Read, TTL: 24 * time.Hour, Lane: "appointments"},
		{Name: "testConnection", Effect: Read, TTL: 24 * time.Hour, Lane: "providers"},
		{Name: "updateAppointment", Effect: Write, TTL: 4 * time.Hour, Lane: "update"},
	}
	if got := Default().Actions(); !reflect.DeepEqual(got, want) {
		t.Errorf("Default().Actions() = %+v, want %+v", got, want)
	}
	if got := Default().Probe().Name; got != "testConnection" {
		t.Errorf("Default().Probe() = %v, want testConnection", got)
	}
	if _, err := staticOf(t, Default()).Roles(t.Context(), "u-1"); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("Default() users: Roles() = %v, want %v", err, ErrUnknownUser)
	}
}

// staticOf returns the users that the policy has in its file.
func staticOf(t testing.TB, p *Policy) *Static {
	t.Helper()
	s, ok := p.Static()
	if !ok {
		t.Fatal("Static() = none, want the users of the file")
	}
	return s
}

// actionOf returns an action that the policy has to know.
func actionOf(t testing.TB, p *Policy, name string) Action {
	t.Helper()
	a, ok := p.Action(name)
	if !ok {
		t.Fatalf("Action(%q) = none, want it known", name)
	}
	return a
}

// laneOf returns a lane that the policy has to have.
func laneOf(t testing.TB, p *Policy, name string) Lane {
	t.Helper()
	l, ok := p.Lane(name)
	if !ok {
		t.Fatalf("Lane(%q) = none, want it there", name)
	}
	return l
}

// The limits are those of FACTS (Tebra's Technical Guide 2025), plus 250 ms.
func TestDefaultLanesKeepTebrasLimitsWithAMargin(t *testing.T) {
	t.Parallel()
	want := []Lane{
		{Name: "appointments", Interval: 1250 * time.Millisecond, Burst: 1},
		{Name: "create", Interval: 750 * time.Millisecond, Burst: 1},
		{Name: "default"},
		{Name: "patients", Interval: 1250 * time.Millisecond, Burst: 1},
		{Name: "providers", Interval: 750 * time.Millisecond, Burst: 1},
		{Name: "update", Interval: 750 * time.Millisecond, Burst: 1},
	}
	if got := Default().Lanes(); !reflect.DeepEqual(got, want) {
		t.Errorf("Default().Lanes() = %+v, want %+v", got, want)
	}
}

func TestExampleSaysWhatItDocuments(t *testing.T) {
	t.Parallel()
	p := mustParse(t, exampleYAML)
	wantActions := map[string]Action{
		"getAppointments":      {Effect: Read, Roles: []string{"clinician", "scheduler"}, TTL: 24 * time.Hour, Lane: "appointments"},
		"syncSchedule":         {Effect: Read, Roles: []string{"clinician", "scheduler"}, Timeout: 20 * time.Second, TTL: 24 * time.Hour, Lane: "appointments"},
		"createAppointment":    {Effect: Write, Roles: []string{"scheduler"}, TTL: time.Hour, Lane: "create"},
		"getUtilizationReport": {Effect: Read, Roles: []string{"admin"}, TTL: 24 * time.Hour, Lane: "reports"},
		"updateAppointment":    {Effect: Write, TTL: 4 * time.Hour, Lane: "update"},
	}
	for name, want := range wantActions {
		want.Name = name
		if got, ok := p.Action(name); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("Action(%q) = %+v, %v, want %+v", name, got, ok, want)
		}
	}
	wantLanes := []Lane{
		{Name: "appointments", Interval: 2 * time.Second, Burst: 1},
		{Name: "reports", Interval: 5 * time.Second, Burst: 1},
		{Name: "create", Interval: 750 * time.Millisecond, Burst: 1},
	}
	for _, want := range wantLanes {
		if got, ok := p.Lane(want.Name); !ok || got != want {
			t.Errorf("Lane(%q) = %+v, %v, want %+v", want.Name, got, ok, want)
		}
	}
	want := Firebase{Claim: "roles", Cache: time.Minute}
	if got, ok := p.Firebase(); !ok || got != want {
		t.Errorf("Firebase() = %+v, %v, want %+v", got, ok, want)
	}
	if _, ok := p.Static(); ok {
		t.Error("Static() is there beside Firebase(), want one source")
	}
}

// The example has room for one source; the other stands in its comments.
func TestExampleDocumentsTheStaticSourceToo(t *testing.T) {
	t.Parallel()
	block := regexp.MustCompile(`(?m)^#   users:\n(#     .*\n)+`).FindString(exampleYAML)
	static := strings.ReplaceAll(block, "#   ", "")
	head, _, found := strings.Cut(exampleYAML, "\nusers:\n")
	if block == "" || !found {
		t.Fatal("example.yaml has no commented static users, or no users")
	}
	source := staticOf(t, mustParse(t, head+"\n"+static))
	tests := []struct {
		user  string
		roles []string
		err   error
	}{
		{user: "u-17", roles: []string{"clinician"}},
		{user: "u-18", err: ErrDisabledUser},
		{user: "u-19", roles: []string{"clinician"}},
	}
	for _, tt := range tests {
		roles, err := source.Roles(t.Context(), tt.user)
		if !slices.Equal(roles, tt.roles) || !errors.Is(err, tt.err) {
			t.Errorf("Roles(%q) = %v, %v, want %v, %v", tt.user, roles, err, tt.roles, tt.err)
		}
	}
}

func TestParseReadsJSON(t *testing.T) {
	t.Parallel()
	p := mustParse(t, "{\n\t\"version\": 1,\n\t\"actions\": {\n\t\t\"health\": {\"roles\": [\"a\"], \"ttl\": \"90s\"}\n\t},\n"+
		"\t\"users\": {\"source\": \"static\", \"accounts\": {\"u\\u002d1\": {\"roles\": [\"a\"], \"disabled\": false}}}\n}\n")
	if a, _ := p.Action("health"); a.TTL != 90*time.Second || !slices.Equal(a.Roles, []string{"a"}) {
		t.Errorf("Action(health) = %+v, want ttl 90s and role a", a)
	}
	if roles, err := staticOf(t, p).Roles(t.Context(), "u-1"); err != nil || !slices.Equal(roles, []string{"a"}) {
		t.Errorf("Roles(u-1) = %v, %v, want [a]", roles, err)
	}
}

func TestParseTakesOverWhatTheFileLeavesOut(t *testing.T) {
	t.Parallel()
	p := mustParse(t, `
version: 1
lanes:
  patients: {burst: 3}
actions:
  createAppointment: {lane: patients}
  getProviders: {effect: write}
  purgeCache: {effect: write}
`)
	if got, want := laneOf(t, p, "patients"), (Lane{Name: "patients", Interval: 1250 * time.Millisecond, Burst: 3}); got != want {
		t.Errorf("Lane(patients) = %+v, want %+v", got, want)
	}
	tests := []Action{
		{Name: "createAppointment", Effect: Write, TTL: 4 * time.Hour, Lane: "patients"},
		{Name: "getProviders", Effect: Write, TTL: 24 * time.Hour, Lane: "providers"},
		{Name: "purgeCache", Effect: Write, TTL: 4 * time.Hour, Lane: "default"},
	}
	for _, want := range tests {
		if got := actionOf(t, p, want.Name); !reflect.DeepEqual(got, want) {
			t.Errorf("Action(%q) = %+v, want %+v", want.Name, got, want)
		}
	}
	if got := actionOf(t, Default(), "getProviders").Effect; got != Read {
		t.Errorf("after Parse, Default() has getProviders as a %v, want it untouched", got)
	}
}

func TestParseReportsEverythingAtOnceByPlace(t *testing.T) {
	t.Parallel()
	got := problemsOf(t, `version: 2
colour: red
lanes:
  default: {interval: 1s}
  Fast: {interval: 1s}
  slow: {interval: 1h, burst: 0}
  idle: {burst: 2}
actions:
  getPatients:
    roles: [clinician, "front desk", clinician]
    lane: nowhere
    effekt: read
  createAppointment: {effect: read, timeout: 30}
  createAppointment: {roles: [x]}
  listRooms: {timeout: 1ms, ttl: soon}
  " x": {effect: read}
  health: []
users:
  source: static
  claim: roles
  accounts:
    "*": {roles: [x]}
    17: {roles: [x]}
    u-1: {roles: x, disabled: "no"}
probe: updateAppointment
`)
	want := []string{
		`1:10: version 2 is not known here: want 1`,
		`2:1: the policy has no key "colour": want actions, lanes, probe, users, version`,
		`4:3: the lane default never has a rate: give its actions a lane of another name`,
		`5:3: lane "Fast": want a small letter, then up to 31 of a-z, 0-9, _ and -`,
		`6:20: the interval of a lane is 1h0m0s: want 1ms to 30s`,
		`6:31: the burst of a lane is 0: want 1 to 100`,
		`7:17: lane "idle" has a burst and no interval: add the interval, or leave out the burst`,
		`10:24: role "front desk": want 1 to 64 letters, digits and . _ : / -`,
		`10:38: role "clinician" is here twice: remove one`,
		`11:11: no lane "nowhere": add it under lanes, or name one of appointments, create, default, idle, patients, providers, slow, update`,
		`12:5: an action has no key "effekt": want effect, lane, roles, timeout, ttl`,
		`13:31: action "createAppointment" is a write in the built-in catalogue: it can't be made a read`,
		`13:46: want a duration with its unit, such as 30s, 1250ms or 4h, found a number`,
		`14:3: "createAppointment" is here twice, first at 13:3: remove one`,
		`15:3: action "listRooms": the effect is missing: add effect: read, or effect: write if it changes anything`,
		`15:24: a timeout is 1ms: want 1s to 10m0s`,
		`15:34: "soon" is no duration: want a number with its unit, such as 30s, 1250ms or 4h`,
		`16:3: the name of an action is " x": want 1 to 256 bytes, without control characters and without spaces around it`,
		`17:11: an action: want keys with values, found a list`,
		`20:10: claim is not for source: static: leave it out, or use the other source`,
		`22:5: "*" would be a user of that ID: for any user write anyone: {roles: [...]} beside accounts`,
		`23:5: a key has to be text: put it in quotes, and write out what it stands for`,
		`24:18: want a list such as [one, another], found the text "x"`,
		`24:31: want true or false, found the text "no"`,
		`25:8: the probe "updateAppointment" is not a read, and is called again and again: name a read`,
	}
	for i := range max(len(got), len(want)) {
		if g, w := at(got, i), at(want, i); g != w {
			t.Errorf("problem %d = %s, want %s", i, g, w)
		}
	}
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return "(none)"
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const v1 = "version: 1\n"
	tests := map[string]struct{ file, want string }{
		"an empty file":            {"", "1:1: the file is empty: begin with version: 1"},
		"only a comment":           {"# soon\n", "1:1: the file is empty: begin with version: 1"},
		"a list":                   {"- version: 1\n", "1:1: the policy: want keys with values, found a list"},
		"no version":               {"actions: {}\n", "1:1: the version is missing: begin with version: 1"},
		"a version in hexadecimal": {"version: 0x1\n", `1:10: want a decimal whole number, found "0x1"`},
		"a version as text":        {`version: "1"`, `1:10: want a whole number, found the text "1"`},
		"broken YAML":              {v1 + "actions: [", "2:10: this is neither YAML nor JSON: sequence end token ']' not found"},
		"a second document":        {v1 + "---\nversion: 1\n", "3:1: a second document begins here: a policy is one document without directives"},
		"a directive":              {"%YAML 1.2\n---\nversion: 1\n", "3:1: a second document begins here: a policy is one document without directives"},
		"bytes that are not UTF-8": {v1 + "probe: a\xffb\n", "2:9: this byte is not UTF-8: save the file as UTF-8"},
		"nested brackets":          {strings.Repeat("[", 50_000), "1:17: more than 16 brackets within each other: a policy needs five"},
		"an anchor":                {v1 + "actions: &a {}\n", "2:10: actions: want keys with values, found an anchor or alias (write the value out)"},
		"an alias":                 {v1 + "probe: *a\n", "2:8: want text, found an anchor or alias (write the value out)"},
		"a merge key":              {v1 + "<<: {probe: health}\n", "2:1: a key has to be text: put it in quotes, and write out what it stands for"},
		"a tag":                    {v1 + "probe: !!str health\n", "2:8: want text, found a tag (leave it out)"},
		"a block of text":          {v1 + "probe: |\n  health\n", "2:8: want text, found something a policy never has"},
		"a name that is a boolean": {v1 + "probe: true\n", "2:8: want text, found true or false (put it in quotes if it is a name)"},
		"lanes without a value":    {v1 + "lanes:\n", "2:8: lanes: want keys with values, found nothing"},
		"roles without a value":    {v1 + "actions: {health: {roles: }}\n", "2:26: want a list such as [one, another], found nothing"},
		"a role that is a number":  {v1 + "actions: {health: {roles: [1]}}\n", "2:28: want text, found a number"},
		"an effect of its own":     {v1 + "actions: {health: {effect: wipe}}\n", `2:28: no effect "wipe": want read, or write if it changes anything`},
		"a probe it does not know": {v1 + "probe: ping\n", `2:8: the probe "ping" is no action of this policy: add it under actions, or name another`},
		"grants and no users":      {v1 + "actions: {health: {roles: [a]}}\n", `2:27: action "health" grants roles, and nothing says who has them: add users with source: static or source: firebase`},
		"users without a source":   {v1 + "users: {}\n", "2:8: users: the source is missing: add source: static or source: firebase"},
		"users of another source":  {v1 + "users: {source: ldap}\n", `2:17: no source "ldap": want static or firebase`},
		"users that are text":      {v1 + "users: static\n", `2:8: users: want keys with values, found the text "static"`},
		"accounts for firebase":    {v1 + "users: {source: firebase, accounts: {}}\n", "2:37: accounts is not for source: firebase: leave it out, or use the other source"},
		"anyone for firebase":      {v1 + "users: {source: firebase, anyone: {}}\n", "2:35: anyone is not for source: firebase: leave it out, or use the other source"},
		"a cache for static":       {v1 + "users: {source: static, cache: 1m}\n", "2:32: cache is not for source: static: leave it out, or use the other source"},
		"anyone being disabled":    {v1 + "users: {source: static, anyone: {disabled: true}}\n", `2:34: anyone has no key "disabled": want roles`},
		"an empty claim":           {v1 + "users: {source: firebase, claim: \"\"}\n", `2:34: the claim is "": want 1 to 256 bytes, without control characters and without spaces around it`},
		"a user with a line break": {v1 + "users: {source: static, accounts: {\"a\\nb\": {}}}\n", `2:36: a user ID is "a\nb": want 1 to 256 bytes, without control characters and without spaces around it`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := problemsOf(t, tt.file); !slices.Equal(got, []string{tt.want}) {
				t.Errorf("Parse() reports %q, want only %q", got, tt.want)
			}
		})
	}
}

// Each bound is kept exactly: its value passes, the next one does not.
func TestParseKeepsItsBounds(t *testing.T) {
	t.Parallel()
	inAction := func(key string) func(string) string {
		return func(v string) string { return fmt.Sprintf("version: 1\nactions: {health: {%s: %s}}\n", key, v) }
	}
	inLane := func(key string) func(string) string {
		return func(v string) string { return fmt.Sprintf("version: 1\nlanes: {create: {%s: %s}}\n", key, v) }
	}
	list := func(section, entry string) func(n int) string {
		return func(n int) string {
			var b strings.Builder
			b.WriteString("version: 1\n" + section)
			for i := range n {
				fmt.Fprintf(&b, entry, i)
			}
			return b.String() + "\n"
		}
	}
	actions := list("actions:", "\n  a%d: {effect: read}")
	lanes := list("lanes:", "\n  l%d: {}")
	accounts := list("users:\n source: static\n accounts:", "\n  u%d: {}")
	roles := func(n int) string {
		return list("users: {source: static}\nactions: {health: {roles: [", "r%d, ")(n) + "]}}\n"
	}
	name := func(n int) string { return "version: 1\nactions: {" + strings.Repeat("n", n) + ": {effect: read}}\n" }
	role := func(n int) string {
		return "version: 1\nusers: {source: static}\nactions: {health: {roles: [" + strings.Repeat("r", n) + "]}}\n"
	}
	size := func(n int) string { return "version: 1\n#" + strings.Repeat("x", n-len("version: 1\n#")) }

	tests := map[string]struct{ within, beyond string }{
		"shortest timeout":  {inAction("timeout")("1s"), inAction("timeout")("999ms")},
		"longest timeout":   {inAction("timeout")("10m"), inAction("timeout")("601s")},
		"shortest ttl":      {inAction("ttl")("1s"), inAction("ttl")("999ms")},
		"longest ttl":       {inAction("ttl")("168h"), inAction("ttl")("168h1s")},
		"shortest interval": {inLane("interval")("1ms"), inLane("interval")("999us")},
		"longest interval":  {inLane("interval")("30s"), inLane("interval")("31s")},
		"smallest burst":    {inLane("burst")("1"), inLane("burst")("-1")},
		"largest burst":     {inLane("burst")("100"), inLane("burst")("101")},
		"shortest cache":    {"version: 1\nusers: {source: firebase, cache: 1s}", "version: 1\nusers: {source: firebase, cache: 0s}"},
		"longest cache":     {"version: 1\nusers: {source: firebase, cache: 5m}", "version: 1\nusers: {source: firebase, cache: 301s}"},
		"actions":           {actions(maxActions - len(Default().Actions())), actions(maxActions - len(Default().Actions()) + 1)},
		"lanes":             {lanes(maxLanes - len(Default().Lanes())), lanes(maxLanes - len(Default().Lanes()) + 1)},
		"accounts":          {accounts(maxAccounts), accounts(maxAccounts + 1)},
		"roles":             {roles(maxRoles), roles(maxRoles + 1)},
		"action name":       {name(maxNameBytes), name(maxNameBytes + 1)},
		"role name":         {role(64), role(65)},
		"file":              {size(maxFileBytes), size(maxFileBytes + 1)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mustParse(t, tt.within)
			if got := problemsOf(t, tt.beyond); len(got) != 1 {
				t.Errorf("Parse() beyond the bound reports %q, want one problem", got)
			}
		})
	}
}

func TestInvalidErrorCountsWhatItDoesNotShow(t *testing.T) {
	t.Parallel()
	_, err := Parse([]byte("version: 1\n" + "actions: {health: {roles: [" + strings.Repeat("1, ", maxProblems+7) + "]}}\n"))
	text := fmt.Sprint(err)
	if !strings.HasSuffix(text, "\n  and 7 more") || strings.Count(text, "\n") != maxProblems+1 {
		t.Errorf("Parse() = %v, want %d problems and the number of the rest", text, maxProblems)
	}
}

func TestCheckHoldsThePolicyAgainstTheDeadlines(t *testing.T) {
	t.Parallel()
	const file = `version: 1
actions:
  health: {timeout: 20s, ttl: 100h}
  createAppointment: {ttl: 6h}
  purgeCache: {effect: write}
`
	tests := map[string]struct {
		limits Limits
		want   []string
	}{
		"everything fits": {Limits{PHPTimeout: 20 * time.Second, LedgerTTL: 6*time.Hour + 1}, nil},
		"a timeout is longer": {Limits{PHPTimeout: 19 * time.Second, LedgerTTL: 48 * time.Hour}, []string{
			`3:21: action "health": the timeout 20s is longer than PHP_TIMEOUT, 19s: shorten it, or raise PHP_TIMEOUT`,
		}},
		"a write outlives its record": {Limits{PHPTimeout: time.Minute, LedgerTTL: 6 * time.Hour}, []string{
			`4:28: action "createAppointment": the ttl of a write, 6h0m0s, has to be shorter than LEDGER_TTL, 6h0m0s: shorten it, or raise LEDGER_TTL`,
		}},
		"defaults are held too": {Limits{PHPTimeout: time.Minute, LedgerTTL: 4 * time.Hour}, []string{
			`built-in catalogue: action "updateAppointment": the ttl of a write, 4h0m0s, has to be shorter than LEDGER_TTL, 4h0m0s: shorten it, or raise LEDGER_TTL`,
			`4:28: action "createAppointment": the ttl of a write, 6h0m0s, has to be shorter than LEDGER_TTL, 4h0m0s: shorten it, or raise LEDGER_TTL`,
			`5:3: action "purgeCache": the ttl of a write, 4h0m0s, has to be shorter than LEDGER_TTL, 4h0m0s: shorten it, or raise LEDGER_TTL`,
		}},
	}
	p := mustParse(t, file)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := p.Check(tt.limits)
			if tt.want == nil && err != nil {
				t.Fatalf("Check() = %v, want nil", err)
			}
			var invalid *InvalidError
			if errors.As(err, &invalid); invalid == nil {
				invalid = &InvalidError{}
			}
			var got []string
			for _, problem := range invalid.Problems {
				got = append(got, problem.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("Check() reports %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDefaultFitsTheDefaultDeadlines(t *testing.T) {
	t.Parallel()
	if err := Default().Check(Limits{PHPTimeout: 30 * time.Second, LedgerTTL: 48 * time.Hour}); err != nil {
		t.Errorf("Default().Check() = %v, want nil", err)
	}
}

func TestLookups(t *testing.T) {
	t.Parallel()
	p := mustParse(t, "version: 1\nactions: {health: {timeout: 5s}}\nprobe: health\n")
	if got := p.LaneOf("getPatients"); got != "patients" {
		t.Errorf("LaneOf(getPatients) = %v, want patients", got)
	}
	if got := p.LaneOf("dropTables"); got != tebra.DefaultLane {
		t.Errorf("LaneOf(an unknown action) = %v, want %v", got, tebra.DefaultLane)
	}
	for action, want := range map[string]bool{"createAppointment": true, "getPatients": false, "dropTables": false} {
		if got := p.IsWrite(action); got != want {
			t.Errorf("IsWrite(%q) = %v, want %v", action, got, want)
		}
	}
	if a, ok := p.Action("dropTables"); ok {
		t.Errorf("Action(an unknown action) = %+v, want none", a)
	}
	if l, ok := p.Lane("express"); ok {
		t.Errorf("Lane(an unknown lane) = %+v, want none", l)
	}
	if got := p.Probe(); got.Name != "health" || got.CallTimeout(30*time.Second) != 5*time.Second {
		t.Errorf("Probe() = %+v, want health with its own timeout", got)
	}
	if got := actionOf(t, p, "getPatients").CallTimeout(30 * time.Second); got != 30*time.Second {
		t.Errorf("CallTimeout() without a timeout = %v, want PHP_TIMEOUT", got)
	}
	if laneOf(t, p, "default").Limited() || !laneOf(t, p, "create").Limited() {
		t.Error("Limited() = want false for default and true for create")
	}
}

// Not parallel: AllocsPerRun counts those of the whole process.
func TestLookupsAllocateNothing(t *testing.T) {
	p := mustParse(t, "version: 1\nactions: {health: {roles: [b, a]}}\nusers: {source: static, accounts: {u: {roles: [a]}}}\n")
	static := staticOf(t, p)
	cache := NewCache(static, CacheConfig{TTL: time.Hour})
	ctx := t.Context()
	direct, cached := NewAuthorizer(p, static), NewAuthorizer(p, cache)
	subject := Subject{UserID: "u", PublishedBy: "u", Action: "health"}
	lookups := map[string]func() error{
		"Action":                    func() error { p.Action("health"); return nil },
		"LaneOf":                    func() error { p.LaneOf("getPatients"); return nil },
		"IsWrite":                   func() error { p.IsWrite("createAppointment"); return nil },
		"Lane":                      func() error { p.Lane("patients"); return nil },
		"Probe":                     func() error { p.Probe(); return nil },
		"Authorize, static":         func() error { return direct.Authorize(ctx, subject) },
		"Authorize, out of a cache": func() error { return cached.Authorize(ctx, subject) },
	}
	for name, lookup := range lookups {
		if err := lookup(); err != nil {
			t.Fatalf("%s = %v, want nil", name, err)
		}
		if got := testing.AllocsPerRun(100, func() { _ = lookup() }); got != 0 {
			t.Errorf("%s allocates %v times, want 0", name, got)
		}
	}
}

// FuzzParse holds that a file is either refused with places, or gives a policy
// on which everybody else can rely.
func FuzzParse(f *testing.F) {
	f.Add([]byte(exampleYAML))
	f.Add(defaultYAML)
	f.Add([]byte(`{"version":1,"actions":{"createAppointment":{"effect":"read"}}}`))
	f.Add([]byte("version: 1\nusers: {source: static, anyone: {roles: [a]}}\n"))
	f.Add([]byte("a: &x [*x]\n<<: *x\n? b\n: |\n  c\n--- !!t\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		for _, a := range p.Actions() {
			if _, ok := p.Lane(a.Lane); !ok || (a.Effect != Read && a.Effect != Write) || a.TTL < minTTL {
				t.Errorf("action %+v, want an effect, a ttl and a lane that there is", a)
			}
		}
		if !p.IsWrite("createAppointment") || p.Probe().Effect != Read {
			t.Error("a write of the catalogue is a read, or the probe is a write")
		}
		for _, l := range p.Lanes() {
			if err := tebra.CheckLane(l.Name); err != nil || l.Limited() != (l.Burst > 0) {
				t.Errorf("lane %+v (%v), want a good name, and a burst exactly with an interval", l, err)
			}
		}
	})
}

func checkRefusal(t *testing.T, err error) {
	t.Helper()
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Problems) == 0 {
		t.Fatalf("Parse() = %v, want an *InvalidError with problems", err)
	}
	for _, p := range invalid.Problems {
		if p.Line < 1 || p.Column < 1 || p.Message == "" {
			t.Errorf("problem %+v, want a place and a message", p)
		}
	}
}
