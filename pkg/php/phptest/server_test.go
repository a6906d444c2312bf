package phptest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"tebraproxy/pkg/php/phptest"
)

const key = "test-key"

// setup serves a stand-in until the test ends.
func setup(t testing.TB, cfg phptest.Config) (*phptest.Server, string) {
	t.Helper()
	cfg.APIKey = key
	api := phptest.New(cfg)
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	return api, server.URL
}

// answer is what a call got.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	err    error // of the connection
}

func call(t testing.TB, url, requestID, body string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-API-Key", key)
	request.Header.Set("Idempotency-Key", requestID)
	request.Header.Set("X-Correlation-ID", "c-"+requestID)
	return do(t, request)
}

func do(t testing.TB, request *http.Request) answer {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	a := answer{status: response.StatusCode, header: response.Header, err: err}
	if err := json.Unmarshal(text, &a.body); err != nil {
		a.body = nil // not every answer is JSON
	}
	return a
}

const create = `{"action":"createAppointment","params":{"appointmentData":{"a":1}}}`

func TestCallsAreCheckedInTheAPIsOrder(t *testing.T) {
	t.Parallel()
	api, url := setup(t, phptest.Config{})
	for name, row := range map[string]struct {
		method, key, body string
		status            int
		kind              string
	}{
		"no key, wrong method": {http.MethodGet, "", "", 401, "authentication_error"},
		"wrong key":            {http.MethodPost, "other", create, 401, "authentication_error"},
		"wrong method":         {http.MethodGet, key, "", 405, "method_error"},
		"no JSON":              {http.MethodPost, key, "{", 400, "json_error"},
		"params a list":        {http.MethodPost, key, `{"action":"health","params":[1]}`, 400, "json_error"},
		"no action":            {http.MethodPost, key, `{}`, 400, "validation_error"},
		"params missing":       {http.MethodPost, key, `{"action":"getPatient"}`, 400, "validation_error"},
		"behaviour a number":   {http.MethodPost, key, `{"action":"health","params":{"_behave":1}}`, 400, "validation_error"},
	} {
		t.Run(name, func(t *testing.T) {
			request := httptest.NewRequest(row.method, url+"/api/anything", strings.NewReader(row.body))
			request.RequestURI = ""
			request.Header.Set("X-API-Key", row.key)
			got := do(t, request)
			if got.status != row.status || got.body["type"] != row.kind || got.body["success"] != false {
				t.Errorf("status %d, body %v, want %d with type %s", got.status, got.body, row.status, row.kind)
			}
		})
	}
	for _, e := range api.Journal() {
		if e.Executed {
			t.Errorf("journal has %+v executed, want none", e)
		}
	}
}

func TestRulesHoldForTheCallsTheyChoose(t *testing.T) {
	t.Parallel()
	api, url := setup(t, phptest.Config{})
	for _, r := range []phptest.Rule{
		{RequestID: "chosen", Do: "502"},
		{Action: "createAppointment", Do: "act-500", Times: 2},
		{Action: "health", Do: "429,retry-after=4"},
	} {
		if err := api.Behave(r); err != nil {
			t.Fatalf("Behave(%+v) = %v, want no error", r, err)
		}
	}
	for _, step := range []struct {
		id, body string
		status   int
	}{
		{"chosen", create, 502},
		{"w-1", create, 500},
		{"w-2", create, 500},
		{"w-3", create, 200},
		{"r-1", `{"action":"health"}`, 429},
		{"r-2", `{"action":"health","params":{"_behave":"ok"}}`, 200},
	} {
		if got := call(t, url, step.id, step.body); got.status != step.status {
			t.Errorf("%s: status %d, want %d", step.id, got.status, step.status)
		}
	}
	for id, want := range map[string]int{"chosen": 0, "w-1": 1, "w-3": 1, "r-1": 0} {
		if got := api.Executions(id); got != want {
			t.Errorf("Executions(%s) = %d, want %d", id, got, want)
		}
	}
	api.Reset()
	if got := call(t, url, "r-3", `{"action":"health"}`); got.status != 200 {
		t.Errorf("after Reset: status %d, want 200", got.status)
	}
}

func TestAProbabilityIsRepeatable(t *testing.T) {
	t.Parallel()
	outcomes := func() (statuses string, failures int) {
		api, url := setup(t, phptest.Config{Seed: 7})
		if err := api.Behave(phptest.Rule{Do: "500", Probability: 0.5}); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			if call(t, url, "r", `{"action":"health"}`).status == 500 {
				statuses += "x"
				failures++
				continue
			}
			statuses += "."
		}
		return statuses, failures
	}
	first, failures := outcomes()
	second, _ := outcomes()
	if first != second || failures < 5 || failures > 35 {
		t.Errorf("outcomes %s and %s, want twice the same, mixed", first, second)
	}
}

func TestDownMeansNoAnswerAndNothingExecuted(t *testing.T) {
	t.Parallel()
	api, url := setup(t, phptest.Config{})
	api.Down()
	if got := call(t, url, "w-1", create); got.err == nil {
		t.Errorf("while down: status %d, want a lost connection", got.status)
	}
	api.Up()
	if got := call(t, url, "w-2", create); got.status != 200 {
		t.Errorf("once up: status %d (%v), want 200", got.status, got.err)
	}
	if got := len(api.Journal()); got != 1 {
		t.Errorf("the journal has %d calls, want the one after Up", got)
	}
}

func TestTheJournalSaysWhatWasExecutedAndHoldsNoParams(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	now := time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC)
	api, url := setup(t, phptest.Config{Now: func() time.Time { return now }, JournalWriter: &out})
	call(t, url, "w-1", create)
	call(t, url, "w-2", `{"action":"createAppointment","params":{"appointmentData":{"a":"secret"},"_behave":"drop"}}`)
	call(t, url, "w-3", `{"action":"createAppointment","params":{"appointmentData":{"a":"secret"},"_behave":"act-drop"}}`)
	want := []phptest.Entry{
		{Time: now, Action: "createAppointment", RequestID: "w-1", CorrelationID: "c-w-1", Write: true, Executed: true},
		{Time: now, Action: "createAppointment", RequestID: "w-2", CorrelationID: "c-w-2", Write: true},
		{Time: now, Action: "createAppointment", RequestID: "w-3", CorrelationID: "c-w-3", Write: true, Executed: true},
	}
	got := api.Journal()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(got) != len(want) || len(lines) != len(want) {
		t.Fatalf("%d entries and %d lines, want %d", len(got), len(lines), len(want))
	}
	for i := range want {
		var line phptest.Entry
		if err := json.Unmarshal([]byte(lines[i]), &line); err != nil {
			t.Errorf("line %q: %v", lines[i], err)
		}
		if got[i] != want[i] || line != want[i] {
			t.Errorf("entry %d = %+v, line %+v, want %+v", i, got[i], line, want[i])
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("the journal holds params: %s", out.String())
	}
	if err := api.JournalErr(); err != nil {
		t.Errorf("JournalErr() = %v, want nil", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestAJournalThatIsNotTheWholeTruthSaysSo(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]phptest.Config{
		"is full":   {JournalLimit: 1},
		"disk full": {JournalWriter: brokenWriter{}},
	} {
		api, url := setup(t, cfg)
		call(t, url, "r-1", `{"action":"health"}`)
		call(t, url, "r-2", `{"action":"health"}`)
		if err := api.JournalErr(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("JournalErr() = %v, want one that says %q", err, name)
		}
	}
}

func TestMinSpacingTakesActionsTogether(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC)
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	api, url := setup(t, phptest.Config{Now: clock})
	for _, step := range []struct {
		action string
		after  time.Duration
	}{
		{"getProviders", 0}, {"testConnection", 700 * time.Millisecond}, {"health", time.Millisecond}, {"getProviders", time.Second},
	} {
		mu.Lock()
		now = now.Add(step.after)
		mu.Unlock()
		call(t, url, "r", `{"action":"`+step.action+`"}`)
	}
	for _, row := range []struct {
		actions []string
		want    time.Duration
		ok      bool
	}{
		{[]string{"getProviders", "testConnection"}, 700 * time.Millisecond, true},
		{[]string{"getProviders"}, 1701 * time.Millisecond, true},
		{[]string{"health"}, 0, false},
	} {
		got, ok := api.MinSpacing(row.actions...)
		if got != row.want || ok != row.ok {
			t.Errorf("MinSpacing(%v) = %v, %t, want %v, %t", row.actions, got, ok, row.want, row.ok)
		}
	}
}

func TestConcurrentCallsAreAllInTheJournal(t *testing.T) {
	t.Parallel()
	api, url := setup(t, phptest.Config{})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { call(t, url, "w-1", create) })
	}
	all.Wait()
	if got := api.Executions("w-1"); got != 20 {
		t.Errorf("Executions() = %d, want 20: it shows every time that a write was made", got)
	}
}

func TestRulesThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	api := phptest.New(phptest.Config{APIKey: key})
	for _, r := range []phptest.Rule{
		{Do: ""}, {Do: "nonsense"}, {Do: "status"}, {Do: "200"}, {Do: "600"}, {Do: "act-fail=1"}, {Do: "act-ok"},
		{Do: "fail"}, {Do: "fail=9"}, {Do: "fail=-1"}, {Do: "huge=1e9"}, {Do: "trickle"}, {Do: "latency=fast"}, {Do: "latency=-1s"},
		{Do: "latency=11m"}, {Do: "500,drop"}, {Do: "ok", Times: -1}, {Do: "ok", Probability: 1.5},
	} {
		if err := api.Behave(r); err == nil {
			t.Errorf("Behave(%+v) = nil, want an error", r)
		}
	}
}

func FuzzNoRequestBreaksTheStandIn(f *testing.F) {
	api := phptest.New(phptest.Config{APIKey: key, JournalLimit: 1})
	for _, seed := range []string{
		create, `{"action":"syncSchedule","params":{"date":"2026-03-04"}}`, `{"action":"searchPatients","params":{"lastName":1e400}}`,
		`{"action":"getPatient","params":{"patientId":null}}`, `{"action":"health","params":{"_behave":"503"}}`, `null`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, slow := range []string{"hang", "trickle", "latency", "huge", "drop", "half", `\u`} {
			if bytes.Contains(body, []byte(slow)) {
				return // they take time, or end the connection
			}
		}
		request := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		request.Header.Set("X-API-Key", key)
		response := httptest.NewRecorder()
		api.ServeHTTP(response, request)
		if response.Code == 200 && response.Body.Len() > 0 && !bytes.HasPrefix(response.Body.Bytes(), []byte("<br")) &&
			!json.Valid(response.Body.Bytes()) {
			t.Errorf("%q got %q, want JSON", body, response.Body)
		}
	})
}
