package functions

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/push"
	"tebraproxy/pkg/tebra"
)

// canary stands for what must not come into a log or an answer.
const canary = "canary-8231"

// hostileRequest is something that is no push of ours.
type hostileRequest struct {
	method      string // POST unless it says otherwise
	contentType string // application/json unless it says otherwise
	body        string
	unsized     bool // sent without a Content-Length
	status      int  // from ProcessRequest, and from RecordDeadLetter unless recorder is set
	recorder    int
}

// hostileRequests has one of each kind. m is a message that would be right.
func hostileRequests(m message) map[string]hostileRequest {
	with := func(change func(attributes map[string]string)) string {
		attributes := m.env.Attributes()
		change(attributes)
		return string(pushBody(m.data, attributes))
	}
	instead := func(data string) string { return string(pushBody([]byte(data), m.env.Attributes())) }
	right := string(m.body())
	return map[string]hostileRequest{
		"GET":             {method: http.MethodGet, status: 405},
		"PUT":             {method: http.MethodPut, body: right, status: 405},
		"DELETE":          {method: http.MethodDelete, status: 405},
		"a form":          {contentType: "application/x-www-form-urlencoded", body: right, status: 415},
		"multipart":       {contentType: "multipart/form-data; boundary=x", body: right, status: 415},
		"another charset": {contentType: "application/json; charset=utf-16", body: right, status: 415},
		"a broken type":   {contentType: "application/json; =" + canary, body: right, status: 415},

		"too long":            {body: strings.Repeat(canary, push.MaxBody/len(canary)+1), status: 413},
		"too long, unsized":   {body: strings.Repeat(canary, push.MaxBody/len(canary)+1), unsized: true, status: 413},
		"nothing":             {status: 400},
		"no JSON":             {body: canary, status: 400},
		"not UTF-8":           {body: `{"message":{"messageId":"` + "\xff" + canary + `"}}`, status: 400},
		"half a body":         {body: right[:len(right)/2], status: 400},
		"two bodies":          {body: right + right, status: 400},
		"a list":              {body: `["` + canary + `"]`, status: 400},
		"deep JSON":           {body: `{"message":` + strings.Repeat(`{"x":`, 1<<20), status: 400},
		"deep lists":          {body: `{"x":` + strings.Repeat(`[`, 1<<20), status: 400},
		"deep after all":      {body: strings.TrimSuffix(right, "}") + `,"x":` + strings.Repeat(`[`, 100) + strings.Repeat(`]`, 100) + `}`, status: 400},
		"no message":          {body: `{"subscription":"` + canary + `"}`, status: 400},
		"no message ID":       {body: `{"message":{"data":"` + canary + `"}}`, status: 400},
		"invalid base64":      {body: `{"message":{"messageId":"1","data":"` + canary + `"}}`, status: 400},
		"a number as data":    {body: `{"message":{"messageId":"1","data":8231}}`, status: 400},
		"attributes no text":  {body: `{"message":{"messageId":"1","attributes":{"a":8231}}}`, status: 400},
		"attributes twice":    {body: `{"message":{"messageId":"1","attributes":{"a":"1","a":"2"}}}`, status: 400},
		"the message twice":   {body: `{"message":{"messageId":"1"},"message":{"messageId":"2"}}`, status: 400},
		"a negative delivery": {body: `{"message":{"messageId":"1"},"deliveryAttempt":-1}`, status: 400},

		"no attributes":         {body: `{"message":{"messageId":"1","data":"` + base64.StdEncoding.EncodeToString(m.data) + `"}}`, status: 400, recorder: 204},
		"foreign attributes":    {body: string(pushBody([]byte(canary), map[string]string{"from": canary})), status: 400, recorder: 204},
		"no entry":              {body: with(func(a map[string]string) { delete(a, tebra.AttrEntryID) }), status: 400, recorder: 204},
		"an entry that is none": {body: with(func(a map[string]string) { a[tebra.AttrEntryID] = canary }), status: 400, recorder: 204},
		"no user":               {body: with(func(a map[string]string) { delete(a, tebra.AttrUserID) }), status: 400, recorder: 204},
		"a lane that is none":   {body: with(func(a map[string]string) { a[tebra.AttrLane] = "../" + canary }), status: 400, recorder: 204},
		"a time that is none":   {body: with(func(a map[string]string) { a[tebra.AttrAdmittedAt] = canary }), status: 400, recorder: 204},
		"another's ledger":      {body: with(func(a map[string]string) { a[tebra.AttrLedger] = tebra.LedgerHash("user-2", "x") }), status: 400, recorder: 204},
		"another user's":        {body: with(func(a map[string]string) { a[tebra.AttrUserID] = "user-2" }), status: 400, recorder: 204},
		"too long an attribute": {body: with(func(a map[string]string) { a[tebra.AttrAction] = strings.Repeat("a", 2000) }), status: 400, recorder: 204},

		"data that is no JSON":         {body: instead(canary), status: 400, recorder: 204},
		"data without IDs":             {body: instead(`{"action":"syncSchedule","userId":"user-1","params":{}}`), status: 400, recorder: 204},
		"data of another request":      {body: instead(`{"id":"x","correlationId":"x","action":"syncSchedule","userId":"user-1","params":{"x":"` + canary + `"}}`), status: 400, recorder: 204},
		"data with params that are no": {body: instead(`{"id":"x","correlationId":"x","action":"syncSchedule","userId":"user-1","params":"[object Object]"}`), status: 400, recorder: 204},
	}
}

func (h hostileRequest) send(fn http.Handler) *httptest.ResponseRecorder {
	method, contentType := h.method, h.contentType
	if method == "" {
		method = http.MethodPost
	}
	if contentType == "" {
		contentType = "application/json"
	}
	var body io.Reader = strings.NewReader(h.body)
	if h.unsized {
		body = io.MultiReader(body)
	}
	r := httptest.NewRequest(method, "/", body)
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	fn.ServeHTTP(w, r)
	return w
}

// TestWhatIsNoPushOfOursIsRefused: with a clear status, without a call, and without
// repeating any of it.
func TestWhatIsNoPushOfOursIsRefused(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	f := newFixture(t, server)
	m := f.publish(aRead)
	for name, h := range hostileRequests(m) {
		t.Run(name, func(t *testing.T) {
			w := h.send(f.processor())
			f.wantRefusal(t, w, h.status)
			f.wantState(m, state{open: true})
		})
	}
	for name, h := range hostileRequests(m) {
		if h.recorder == 0 {
			t.Run("RecordDeadLetter/"+name, func(t *testing.T) { f.wantRefusal(t, h.send(f.recorder()), h.status) })
			continue
		}
		t.Run("RecordDeadLetter/"+name, func(t *testing.T) {
			if w := h.send(f.recorder()); w.Code != h.recorder {
				t.Errorf("status = %d, want %d", w.Code, h.recorder)
			}
		})
	}
	f.wantCalls(0)
	f.wantNoCanary(canary)
}

func (f *fixture) wantRefusal(t *testing.T, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	if w.Code != status {
		t.Errorf("status = %d, want %d", w.Code, status)
	}
	if text := w.Body.String(); strings.TrimSpace(text) == "" || strings.Contains(text, canary) {
		t.Errorf("the answer is %.200q, want a reason that repeats nothing", text)
	}
	if strings.Contains(f.logs.String(), canary) {
		t.Errorf("the log repeats what came:\n%s", f.logs)
	}
}

// FuzzProcessRequest: whatever comes, the answer is a status that Pub/Sub knows, the
// API is called at most for a message of ours, and the log repeats nothing.
func FuzzProcessRequest(f *testing.F) {
	fix := newFixture(f, peertest.Redis(f))
	m := fix.publish(aRead)
	f.Add(m.body(), "application/json")
	f.Add(probe().body(), "")
	for _, h := range hostileRequests(m) {
		if len(h.body) < 1<<16 {
			f.Add([]byte(h.body), h.contentType)
		}
	}
	processor := fix.processor()
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		fix.logs.reset()
		processor.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusNoContent, http.StatusTooManyRequests:
			if _, err := push.Decode(body); err != nil {
				t.Errorf("status %d for what is no push: %v", w.Code, err)
			}
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		default:
			t.Errorf("status = %d, want one of those that doc.go lists", w.Code)
		}
		if strings.Contains(fix.logs.String(), canary) {
			t.Error("the log repeats what came")
		}
	})
}

// FuzzRecordDeadLetter: it needs less of a message, so more comes through.
func FuzzRecordDeadLetter(f *testing.F) {
	fix := newFixture(f, peertest.Redis(f))
	m := fix.publish(aRead)
	f.Add(m.body())
	for _, h := range hostileRequests(m) {
		if len(h.body) < 1<<16 {
			f.Add([]byte(h.body))
		}
	}
	recorder := fix.recorder()
	f.Fuzz(func(t *testing.T, body []byte) {
		switch w := post(recorder, body); w.Code {
		case http.StatusNoContent, http.StatusServiceUnavailable:
			if _, err := push.Decode(body); err != nil {
				t.Errorf("status %d for what is no push: %v", w.Code, err)
			}
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		default:
			t.Errorf("status = %d, want 204, 400, 413 or 503", w.Code)
		}
	})
}
