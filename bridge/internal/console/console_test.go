package console_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/peertest/browser"
	"tebraproxy/pkg/tebra"
)

const patience = 30 * time.Second

// site is a local pipeline with its console.
type site struct {
	t *testing.T
	*local.Pipeline
	base, token string
}

func newSite(t *testing.T) *site {
	t.Helper()
	o := local.DefaultOptions()
	o.Console, o.Operator = true, "tester@here"
	o.MinBackoff, o.MaxBackoff, o.MaxAttempts = 10*time.Millisecond, 20*time.Millisecond, 5
	p, err := local.Start(t.Context(), o, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	base, token, ok := strings.Cut(p.Console, "/#")
	if !ok || len(token) < 20 {
		t.Fatalf("the console's address is %q, want one with a token", p.Console)
	}
	return &site{t, p, base, token}
}

// call calls the API as the page does.
func (s *site) call(method, path string, body any) (int, map[string]any) {
	s.t.Helper()
	resp := s.open(method, path, body)
	defer resp.Body.Close()
	answer := map[string]any{}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, answer
}

func (s *site) open(method, path string, body any) *http.Response {
	s.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.base+path, bytes.NewReader(raw))
	if err != nil {
		s.t.Fatal(err)
	}
	token := s.token
	if strings.HasPrefix(path, "/v1/") {
		token += ".u1"
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp
}

// send sends a request and returns its ID.
func (s *site) send(action string, params map[string]any) string {
	s.t.Helper()
	status, answer := s.call(http.MethodPost, "/v1/requests", map[string]any{"action": action, "params": params})
	id, _ := answer["id"].(string)
	if status != http.StatusAccepted || id == "" {
		s.t.Fatalf("sending %s = %d %v, want 202 and an ID", action, status, answer)
	}
	return id
}

// answered waits for the answers to n requests.
func (s *site) answered(n int64) {
	s.t.Helper()
	peertest.Eventually(s.t, patience, fmt.Sprintf("%d answers", n), func() bool {
		return s.Redis.XLen(s.t.Context(), s.Keys.Responses()).Val() >= n
	})
}

// deadLetter makes one, of a read that the API fails at.
func (s *site) deadLetter() {
	s.t.Helper()
	before := s.Redis.XLen(s.t.Context(), s.Keys.Responses()).Val()
	s.send("getProviders", map[string]any{"_behave": "text", "secret": "Mrs Health"})
	s.answered(before + 1)
}

// letters returns the IDs of the dead letters, once there are some.
func (s *site) letters() (ids []string) {
	s.t.Helper()
	peertest.Eventually(s.t, patience, "a dead letter", func() bool {
		_, answer := s.call(http.MethodGet, "/api/letters", nil)
		ids = nil
		all, _ := answer["letters"].([]any)
		for _, l := range all {
			ids = append(ids, l.(map[string]any)["id"].(string))
		}
		return len(ids) > 0
	})
	return ids
}

// records returns what is on record.
func (s *site) records() (all []tebra.AuditRecord) {
	s.t.Helper()
	entries, err := s.Redis.XRange(context.Background(), s.Keys.Audit(), "-", "+").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		fields := map[string]string{}
		for name, value := range e.Values {
			fields[name], _ = value.(string)
		}
		r, err := tebra.ParseAudit(fields)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// TestContentsAreShownOnRecordOnly: until they are asked for they don't leave, and
// that they were is on record with who asked.
func TestContentsAreShownOnRecordOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.send("getPatient", map[string]any{"patientId": "Mrs Health"})
	s.answered(1)
	events := s.open(http.MethodGet, "/api/events", nil)
	defer events.Body.Close()
	in := bufio.NewReader(events.Body)
	var seen strings.Builder
	for !strings.Contains(seen.String(), id) {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		seen.WriteString(line)
	}
	_, bare := s.call(http.MethodPost, "/api/trace", map[string]any{"id": id, "userId": "u1", "payloads": false})
	if text := seen.String() + fmt.Sprint(bare); strings.Contains(text, "Mrs Health") {
		t.Errorf("what nobody asked for was shown: %s", text)
	}
	if got := s.records(); len(got) != 0 {
		t.Errorf("on record = %v, want nothing before contents are shown", got)
	}
	_, full := s.call(http.MethodPost, "/api/trace", map[string]any{"id": id, "userId": "u1", "payloads": true})
	if !strings.Contains(fmt.Sprint(full), "patientId") {
		t.Errorf("contents = %v, want the params", full)
	}
	got := s.records()
	if len(got) != 1 || got[0].Operator != "tester@here" || got[0].Operation != tebra.PayloadsShown || got[0].RequestID != id {
		t.Errorf("on record = %+v, want that tester@here saw %s", got, id)
	}
}

// TestAnswersAreTheClientsWithoutWhatTheyHold: the page's own requests are no way around
// the record.
func TestAnswersAreTheClientsWithoutWhatTheyHold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.send("getPatient", map[string]any{"patientId": "Mrs Health"})
	s.answered(1)
	if got := s.Redis.XRange(t.Context(), s.Keys.Responses(), "-", "+").Val(); !strings.Contains(fmt.Sprint(got), "Mrs Health") {
		t.Fatalf("the answer is %v, want the patient in it", got)
	}
	events := s.open(http.MethodGet, "/v1/events?since=status:0-0,responses:0-0", nil)
	defer events.Body.Close()
	in := bufio.NewReader(events.Body)
	var seen strings.Builder
	for !strings.Contains(seen.String(), `"stream":"tebra:responses"`) {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %s", err, &seen)
		}
		seen.WriteString(line)
	}
	if got := seen.String(); strings.Contains(got, "Mrs Health") || !strings.Contains(got, `"requestId":"`+id+`"`) {
		t.Errorf("events = %s, want those of %s without what the answer holds", got, id)
	}
	if got := s.records(); len(got) != 0 {
		t.Errorf("on record = %v, want nothing: nothing was shown", got)
	}
}

// TestNobodyAsksForUsersWithoutTheToken, nor for nobody.
func TestNobodyAsksForUsersWithoutTheToken(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, token := range []string{"", s.token, s.token + ".", s.token + ".%zz", "x.u1", s.token + "x.u1", "." + s.token, s.token + "." + strings.Repeat("u", 257)} {
		for path, method := range map[string]string{"/v1/requests": http.MethodPost, "/v1/events": http.MethodGet} {
			r, err := http.NewRequestWithContext(t.Context(), method, s.base+path, strings.NewReader(`{"action":"health"}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s with a token of %d bytes = %d, want 401", path, len(token), resp.StatusCode)
			}
		}
	}
	if n := s.Redis.XLen(t.Context(), s.Keys.Requests()).Val(); n != 0 {
		t.Errorf("%d requests on the stream, want none", n)
	}
}

// TestOnlyJSONIsRead: what a page of another site can send without a preflight is not.
func TestOnlyJSONIsRead(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.base+"/api/letters/drop", strings.NewReader(`{"ids":["1"]}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		r.Header.Set("Content-Type", media)
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("a body of type %q = %d, want 415", media, resp.StatusCode)
		}
	}
}

// TestWhatCantBePutOnRecordIsNotShown.
func TestWhatCantBePutOnRecordIsNotShown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.send("getPatient", map[string]any{"patientId": "Mrs Health"})
	s.answered(1)
	if err := s.Redis.Set(t.Context(), s.Keys.Audit(), "not a stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	status, answer := s.call(http.MethodPost, "/api/trace", map[string]any{"id": id, "userId": "u1", "payloads": true})
	if status != http.StatusBadGateway || strings.Contains(fmt.Sprint(answer), "Mrs Health") {
		t.Errorf("asking for contents = %d %v, want 502 and nothing of them", status, answer)
	}
}

// TestDeadLettersAreHandledOnRecord, and those only that are named.
func TestDeadLettersAreHandledOnRecord(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deadLetter()
	id := s.letters()[0]
	if _, shown := s.call(http.MethodPost, "/api/letters/show", map[string]any{"id": id, "payloads": false}); strings.Contains(fmt.Sprint(shown), "Mrs Health") {
		t.Errorf("a letter nobody asked to open = %v, want nothing of what it holds", shown)
	}
	if _, shown := s.call(http.MethodPost, "/api/letters/show", map[string]any{"id": id, "payloads": true}); !strings.Contains(fmt.Sprint(shown), "Mrs Health") {
		t.Errorf("an opened letter = %v, want its params", shown)
	}
	if status, _ := s.call(http.MethodPost, "/api/letters/replay", map[string]any{"ids": []string{}}); status != http.StatusBadRequest {
		t.Errorf("replaying none = %d, want 400: it must not mean all", status)
	}
	_, replayed := s.call(http.MethodPost, "/api/letters/replay", map[string]any{"ids": []string{id}})
	if !strings.Contains(fmt.Sprint(replayed), "outcome:replayed") {
		t.Errorf("replay = %v, want replayed", replayed)
	}
	s.answered(2)
	_, dropped := s.call(http.MethodPost, "/api/letters/drop", map[string]any{"ids": s.letters()})
	if !strings.Contains(fmt.Sprint(dropped), "outcome:dropped") {
		t.Errorf("drop = %v, want dropped", dropped)
	}
	var did []tebra.Operation
	for _, r := range s.records() {
		did = append(did, r.Operation)
	}
	if want := []tebra.Operation{tebra.PayloadsShown, tebra.DeadLetterReplayed, tebra.DeadLetterDropped}; !slices.Equal(did, want) {
		t.Errorf("on record = %v, want %v", did, want)
	}
}

// TestBadRequestsAreNotSent, and told why.
func TestBadRequestsAreNotSent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, body := range map[string]any{
		"no action":            map[string]any{"params": map[string]any{}},
		"params are a list":    map[string]any{"action": "health", "params": []int{1}},
		"a member of nobody's": map[string]any{"action": "health", "priority": 1},
	} {
		if status, answer := s.call(http.MethodPost, "/v1/requests", body); status != http.StatusBadRequest || answer["error"] == nil {
			t.Errorf("%s: %d %v, want 400 and why", name, status, answer)
		}
	}
	if n := s.Redis.XLen(t.Context(), s.Keys.Requests()).Val(); n != 0 {
		t.Errorf("%d requests on the stream, want none", n)
	}
}

// look opens the console in a browser.
func (s *site) look() *browser.Page {
	s.t.Helper()
	p := browser.Open(s.t)
	p.Go(s.Console)
	p.Until(patience, `document.querySelectorAll('#action option').length > 5 && document.getElementById('connection').dataset.state === 'live'`)
	return p
}

// picture keeps a screenshot where CONSOLE_PICTURES says.
func (s *site) picture(p *browser.Page, name string) {
	s.t.Helper()
	dir := os.Getenv("CONSOLE_PICTURES")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), p.Screenshot(), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

const complaints = `window.complaints.join('; ')`

// TestTheConsoleByClicks: a request is sent and goes through its states, contents
// are hidden until asked for, a dead letter is replayed and dropped.
func TestTheConsoleByClicks(t *testing.T) {
	s := newSite(t)
	p := s.look()
	if got := browser.Eval[string](p, patience, `location.href`); strings.Contains(got, s.token) {
		t.Errorf("the address still says %s, want it without the token", got)
	}
	browser.Eval[bool](p, patience, `(window.complaints = [], addEventListener('securitypolicyviolation', (e) => complaints.push(e.violatedDirective + ' ' + e.blockedURI)), addEventListener('error', (e) => complaints.push(e.message)), true)`)
	for _, action := range []string{"health", "getProviders", "testConnection"} {
		s.send(action, map[string]any{})
	}
	browser.Eval[bool](p, patience, `(document.getElementById('action').value = 'getPatient', document.getElementById('action').dispatchEvent(new Event('change')), document.querySelector('[name=patientId]').value = 'Mrs Health', true)`)
	p.Click(patience, `#submit`)
	p.Until(patience, `document.getElementById('sent').textContent === 'getPatient: success'`)
	p.Until(patience, `[...document.querySelectorAll('#requests tbody tr')].some((r) => r.textContent.includes('getPatient') && r.querySelector('.now.success'))`)
	p.Until(patience, `document.querySelectorAll('#requests .now.success').length >= 4`)
	path := browser.Eval[string](p, patience, `[...document.querySelectorAll('#requests tbody tr')].find((r) => r.textContent.includes('getPatient')).querySelector('.progress').textContent`)
	if !strings.HasSuffix(path, "success") || !strings.Contains(path, "pending") {
		t.Errorf("the request went through %q, want pending … success", path)
	}
	p.Until(patience, `document.querySelectorAll('#numbers div').length === 6 && document.querySelectorAll('#bridges tbody tr').length === 1`)
	p.Until(patience, `document.querySelectorAll('#charts canvas').length === 2`)
	p.Until(patience, `document.querySelector('#rates .u-legend').textContent.includes('/s')`)
	p.Click(patience, `#requests tbody tr:first-child button`)
	p.Until(patience, `document.querySelectorAll('#detail-steps tbody tr').length >= 3`)
	if browser.Eval[bool](p, patience, `document.body.textContent.includes('Mrs Health')`) {
		t.Error("contents show before they were asked for")
	}
	p.Click(patience, `#payloads`)
	p.Until(patience, `document.querySelector('#contents pre')`)
	s.picture(p, "detail-light")
	p.Click(patience, `#close`)
	s.deadLetter()
	s.letters()
	p.Click(patience, `#look`)
	p.Until(patience, `document.querySelectorAll('#letters tbody tr').length === 1`)
	p.Click(patience, `#letters tbody input`)
	p.Click(patience, `#replay`)
	p.Until(patience, `document.getElementById('confirm').open`)
	s.picture(p, "confirm-light")
	p.Click(patience, `#confirm-yes`)
	p.Until(patience, `document.getElementById('acted').textContent.startsWith('1 replayed')`)
	s.answered(6)
	s.letters()
	p.Click(patience, `#look`)
	p.Until(patience, `document.querySelectorAll('#letters tbody tr').length === 1`)
	s.pictures(p)
	p.Click(patience, `#all`)
	p.Click(patience, `#drop`)
	p.Until(patience, `document.getElementById('confirm').open`)
	p.Click(patience, `#confirm-yes`)
	p.Until(patience, `document.getElementById('acted').textContent.startsWith('1 dropped')`)
	if got := browser.Eval[string](p, patience, complaints); got != "" {
		t.Errorf("the browser complained: %s", got)
	}
}

// TestWhatComesLateMovesNoButton that somebody is about to press: the steps of a
// request come after it was opened.
func TestWhatComesLateMovesNoButton(t *testing.T) {
	s := newSite(t)
	p := s.look()
	s.send("health", map[string]any{})
	p.Until(patience, `document.querySelector('#requests .now.success')`)
	browser.Eval[bool](p, patience, `(() => {
		const real = window.fetch;
		window.fetch = async (path, options) => {
			const response = await real(path, options);
			if (path === '/api/trace') await new Promise((go) => { window.release = go; });
			return response;
		};
		return true;
	})()`)
	p.Click(patience, `#requests tbody tr button`)
	p.Until(patience, `document.getElementById('detail').open && window.release`)
	const places = `['payloads', 'close'].map((id) => { const r = document.getElementById(id).getBoundingClientRect(); return [r.x, r.y].join(' '); }).join(', ')`
	want := browser.Eval[string](p, patience, places)
	browser.Eval[bool](p, patience, `(release(), true)`)
	p.Until(patience, `document.querySelectorAll('#detail-steps tbody tr').length >= 3`)
	if got := browser.Eval[string](p, patience, places); got != want {
		t.Errorf("the buttons moved from %s to %s", want, got)
	}
}

// TestContentsShowUnderTheirOwnRequestOnly: those that come late are not shown where
// another request is open by then.
func TestContentsShowUnderTheirOwnRequestOnly(t *testing.T) {
	s := newSite(t)
	p := s.look()
	s.send("getPatient", map[string]any{"patientId": "Mrs Health"})
	s.send("health", map[string]any{})
	p.Until(patience, `document.querySelectorAll('#requests .now.success').length === 2`)
	open := func(action string) {
		t.Helper()
		browser.Eval[bool](p, patience, `([...document.querySelectorAll('#requests tbody tr')].find((r) => r.textContent.includes('`+action+`')).querySelector('button').click(), true)`)
		p.Until(patience, `document.getElementById('detail').open && document.getElementById('detail-title').textContent === '`+action+`'`)
	}
	browser.Eval[bool](p, patience, `(() => {
		const real = window.fetch;
		window.fetch = async (path, options) => {
			const response = await real(path, options);
			if (!options.body?.includes('"payloads":true')) return response;
			await new Promise((go) => { window.release = go; });
			window.released = true;
			return response;
		};
		return true;
	})()`)
	open("getPatient")
	p.Click(patience, `#payloads`)
	p.Until(patience, `window.release`)
	p.Click(patience, `#close`)
	open("health")
	browser.Eval[bool](p, patience, `(release(), true)`)
	p.Until(patience, `released && !document.getElementById('payloads').ariaBusy`)
	if got := browser.Eval[string](p, patience, `document.getElementById('contents').textContent`); got != "" {
		t.Errorf("under health it says %q, want nothing before it is asked for", got)
	}
}

// pictures shows the whole page in both schemes, and narrow.
func (s *site) pictures(p *browser.Page) {
	s.t.Helper()
	if os.Getenv("CONSOLE_PICTURES") == "" {
		return
	}
	for range 40 {
		s.send("syncSchedule", map[string]any{"date": "2026-11-23"})
	}
	long := strings.Repeat("longer-than-it-should-be-", 10)
	if err := s.Redis.XAdd(s.t.Context(), &redis.XAddArgs{Stream: s.Keys.Requests(), Values: []string{
		"id", long, "action", "an-unknown-" + long[:240], "userId", long, "correlationId", "c-" + long[:240]}}).Err(); err != nil {
		s.t.Fatal(err)
	}
	p.Until(time.Minute, `document.querySelectorAll('#requests .now.success').length >= 20`)
	<-time.After(12 * time.Second) // some samples
	p.Do(patience, chromedp.EmulateViewport(1280, 1500))
	browser.Eval[bool](p, patience, `(scrollTo(0, 0), true)`)
	for _, scheme := range []string{"light", "dark"} {
		p.Prefer(scheme)
		browser.Eval[bool](p, patience, `new Promise((d) => setTimeout(() => d(true), 500))`)
		s.picture(p, "page-"+scheme)
	}
	p.Do(patience, chromedp.EmulateViewport(420, 1500))
	browser.Eval[bool](p, patience, `new Promise((d) => setTimeout(() => d(true), 500))`)
	s.picture(p, "narrow-dark")
	p.Prefer("light")
	browser.Eval[bool](p, patience, `(scrollTo(0, 1200), new Promise((d) => setTimeout(() => d(true), 500)))`)
	s.picture(p, "narrow-light")
	p.Click(patience, `#requests tbody tr:first-child button`)
	p.Until(patience, `document.getElementById('detail').open`)
	s.picture(p, "narrow-detail")
	p.Click(patience, `#close`)
	p.Do(patience, chromedp.EmulateViewport(1280, 900))
}

// TestTheConsoleByKeyboard: sending, looking into a request and closing it again
// need no mouse, and the focus stays where it was.
func TestTheConsoleByKeyboard(t *testing.T) {
	s := newSite(t)
	p := s.look()
	p.Prefer("dark")
	type key = chromedp.Action[chromedp.Void]
	press := func(keys string) key { return chromedp.KeyEvent(keys) }
	focused := func(id string) string { return `document.activeElement?.id === '` + id + `'` }
	tabTo := func(id string) {
		t.Helper()
		for range 40 {
			if browser.Eval[bool](p, patience, focused(id)) {
				return
			}
			p.Do(patience, press(kb.Tab))
		}
		t.Fatalf("40 steps of the tabulator don't reach %s", id)
	}
	s.picture(p, "empty-dark")
	tabTo("action")
	p.Do(patience, press("health"))
	p.Until(patience, `document.getElementById('action').value === 'health'`)
	tabTo("submit")
	s.picture(p, "focus-dark")
	p.Do(patience, press(kb.Enter))
	p.Until(patience, `document.querySelector('#requests .now.success')`)
	tabTo("hold")
	p.Do(patience, press(kb.Tab), press(kb.Tab))
	p.Until(patience, `document.activeElement?.dataset.key?.includes('local-user')`)
	p.Do(patience, press(kb.Enter))
	p.Until(patience, `document.getElementById('detail').open && document.querySelectorAll('#detail-steps tbody tr').length >= 3`)
	s.picture(p, "detail-dark")
	p.Do(patience, press(kb.Escape))
	p.Until(patience, `!document.getElementById('detail').open && document.activeElement?.dataset.key?.includes('local-user')`)
	s.send("getProviders", map[string]any{})
	p.Until(patience, `document.querySelectorAll('#requests .now.success').length === 2`)
	if !browser.Eval[bool](p, patience, `document.activeElement?.dataset.key?.includes('local-user')`) {
		t.Error("the focus was lost when the table changed")
	}
	tabTo("look")
	p.Do(patience, press(kb.Enter))
	p.Until(patience, `document.getElementById('acted').textContent === 'There are none.'`)
}

// TestAPageOfAnotherSiteGetsNothing, neither from the API nor by framing.
func TestAPageOfAnotherSiteGetsNothing(t *testing.T) {
	s := newSite(t)
	other := anotherSite(t)
	p := browser.Open(t)
	p.Go(other)
	for _, path := range []string{"/api/about", "/api/events", "/v1/events", "/v1/tebra.js", "/"} {
		got := browser.Eval[string](p, patience, fmt.Sprintf(`fetch('%s%s', { headers: { Authorization: 'Bearer %s' } }).then((r) => 'answered ' + r.status, (e) => e.name)`, s.base, path, s.token))
		if got != "TypeError" {
			t.Errorf("%s for another site = %q, want a TypeError of fetch", path, got)
		}
	}
	got := browser.Eval[string](p, patience, fmt.Sprintf(`fetch('%s/v1/requests', { method: 'POST', mode: 'no-cors', body: '{"action":"health"}' }).then((r) => r.type, (e) => e.name)`, s.base))
	if got != "opaque" && got != "TypeError" {
		t.Errorf("a blind post = %q", got)
	}
	if n := s.Redis.XLen(t.Context(), s.Keys.Requests()).Val(); n != 0 {
		t.Errorf("%d requests on the stream, want none", n)
	}
}

// anotherSite serves an empty page of another site.
func anotherSite(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>another</title>")
	}))
	t.Cleanup(server.Close)
	return server.URL
}
