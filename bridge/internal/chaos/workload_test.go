package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// class is what a request is, and with it how it may be answered.
type class string

const (
	valid        class = "valid"
	refused      class = "refused by the API"
	unknown      class = "unknown action"
	unauthorized class = "unauthorized"
	malformed    class = "malformed"
	tooLarge     class = "too large"
)

// canary is in the contents of every request, and must not be anywhere else.
const canary = "Canarypatient"

// maxRequestBytes is MAX_REQUEST_BYTES of the run: small, so that requests over
// it are cheap.
const maxRequestBytes = 16 << 10

// noteField is a field that the system ignores. It tells which of the planned
// requests an entry is, also of one that was added twice because the reply to the
// first XADD was lost.
const noteField = "chaos"

// planned is a request that is to be sent.
type planned struct {
	class       class
	user        string
	id          string // empty where the client gives none
	correlation string // empty likewise; else nobody else's
	action      string
	params      string
	write       bool
	form        int // how the entry is written
}

// user IDs that the policy knows; the last of them may do nothing.
var users = []string{"u-anna", "u-bert", "u-carl", "u-dora", "u-nobody"}

// policyText lets every lane flow fast enough for the run, at different rates. What
// may be published ahead of a lane's rate must find its turn within RATE_WAIT.
const policyText = `
version: 1
lanes:
  appointments: {interval: 12ms, burst: 5}
  patients: {interval: 8ms}
  providers: {interval: 8ms}
  create: {interval: 8ms, burst: 3}
  update: {interval: 8ms}
actions:
  syncSchedule: {roles: [staff]}
  getAppointments: {roles: [staff]}
  getPatient: {roles: [staff]}
  searchPatients: {roles: [staff]}
  getProviders: {roles: [staff]}
  getHealthStatus: {roles: [staff]}
  testConnection: {roles: [staff]}
  createAppointment: {roles: [staff]}
  updateAppointment: {roles: [staff]}
users:
  source: static
  accounts:
    u-anna: {roles: [staff]}
    u-bert: {roles: [staff]}
    u-carl: {roles: [staff]}
    u-dora: {roles: [staff]}
    u-nobody: {roles: []}
`

// plan returns n requests, the same for the same rng.
func plan(rng *rand.Rand, n int) []planned {
	p := planner{rng: rng}
	for len(p.all) < n {
		p.next()
	}
	return p.all
}

type planner struct {
	rng  *rand.Rand
	all  []planned
	sent []int // indices of those that a client may send again
}

func (p *planner) next() {
	n := len(p.all)
	r := p.fresh(n)
	switch roll := p.rng.Float64(); {
	case roll < 0.78:
		p.sent = append(p.sent, n)
	case roll < 0.88 && len(p.sent) > 0: // sent again
		r = p.all[p.recent()]
		r.correlation = correlation(n)
	case roll < 0.89 && len(p.sent) > 0: // something else under the same ID
		r = p.all[p.recent()]
		r.correlation = correlation(n)
		r.params = strings.Replace(r.params, "{", `{"other":1,`, 1)
	case roll < 0.90 && len(p.sent) > 0: // somebody else's under the same ID
		r = p.all[p.recent()]
		r.correlation = correlation(n)
		r.user = users[p.rng.IntN(len(users)-1)]
	case roll < 0.94:
		r.class, r.form = malformed, p.rng.IntN(malformedForms)
	case roll < 0.95:
		r.class = tooLarge
		r.params = fmt.Sprintf(`{"note":%q}`, canary+strings.Repeat("x", maxRequestBytes))
	case roll < 0.96:
		r.class, r.action, r.write = unknown, "dropTables", false
	case roll < 0.975:
		r.class, r.user = unauthorized, users[len(users)-1]
	case roll < 0.985:
		r.class, r.action, r.params, r.write = refused, "updateAppointment", fmt.Sprintf(`{"note":%q}`, canary), true
	default: // the client names it by one name, or by none
		if p.rng.IntN(2) == 0 {
			r.id = ""
		}
		if r.id == "" && p.rng.IntN(2) == 0 || r.id != "" {
			r.correlation = ""
		}
	}
	p.all = append(p.all, r)
}

// recent picks a request that was planned lately: the same moment, or a while ago.
func (p *planner) recent() int {
	back := 1 + p.rng.IntN(min(len(p.sent), 200))
	if p.rng.IntN(3) == 0 {
		back = 1
	}
	return p.sent[len(p.sent)-back]
}

func correlation(n int) string { return fmt.Sprintf("c-%06d", n) }

// fresh returns a valid request that nobody sent before.
func (p *planner) fresh(n int) planned {
	r := planned{
		class: valid, user: users[p.rng.IntN(len(users)-1)],
		id: fmt.Sprintf("r-%06d", n), correlation: correlation(n), form: p.rng.IntN(validForms),
	}
	kinds := []struct {
		action, params string
		write          bool
	}{
		{"getHealthStatus", `{"note":%q}`, false},
		{"getHealthStatus", `{"note":%q}`, false},
		{"syncSchedule", `{"date":"2026-11-23","note":%q}`, false},
		{"getAppointments", `{"fromDate":"2026-11-23","toDate":"2026-11-24","note":%q}`, false},
		{"getPatient", `{"patientId":%q}`, false},
		{"searchPatients", `{"lastName":%q}`, false},
		{"getProviders", `{"note":%q}`, false},
		{"createAppointment", `{"appointmentData":{"patient":%q}}`, true},
		{"createAppointment", `{"appointmentData":{"patient":%q}}`, true},
		{"updateAppointment", `{"appointmentData":{"patient":%q}}`, true},
	}
	k := kinds[p.rng.IntN(len(kinds))]
	r.action, r.write = k.action, k.write
	r.params = fmt.Sprintf(k.params, canary+strconv.Itoa(n))
	return r
}

// The forms in which entries are written.
const (
	validForms     = 3
	malformedForms = 7
)

// fields returns the entry of planned request n.
func (r planned) fields(n int) []string {
	if r.class == malformed {
		return append(r.malformedFields(), noteField, strconv.Itoa(n))
	}
	if r.form == 0 {
		return append(r.flat("action", r.action, "params", r.params), noteField, strconv.Itoa(n))
	}
	name := []string{"message", "payload"}[r.form-1]
	return []string{name, r.whole(), noteField, strconv.Itoa(n)}
}

// flat returns the names that the request has, and then more.
func (r planned) flat(more ...string) []string {
	fields := []string{"userId", r.user, "timestamp", "2026-11-23T08:00:00.000Z"}
	if r.id != "" {
		fields = append(fields, "id", r.id)
	}
	if r.correlation != "" {
		fields = append(fields, "correlationId", r.correlation)
	}
	return append(fields, more...)
}

func (r planned) whole() string {
	object := map[string]any{"userId": r.user, "action": r.action, "params": json.RawMessage(r.params), "timestamp": 1795408829097}
	if r.id != "" {
		object["id"] = r.id
	}
	if r.correlation != "" {
		object["correlationId"] = r.correlation
	}
	text, err := json.Marshal(object)
	if err != nil {
		panic(err) // strings and JSON always marshal
	}
	return string(text)
}

func (r planned) malformedFields() []string {
	switch r.form {
	case 0:
		return r.flat("params", r.params)
	case 1:
		return r.flat("action", r.action, "params", "[object Object]")
	case 2:
		return r.flat("action", r.action, "params", r.params, "action", r.action)
	case 3:
		return r.flat("action", r.action, "params", "{\"note\":\"\xff"+canary+"\"}")
	case 4:
		return []string{"id", r.id, "correlationId", r.correlation, "action", r.action, "params", r.params} // no user
	case 5:
		return r.flat("message", `{"action":"getHealthStatus","params":`)
	default: // nobody can be told
		return []string{"userId", r.user, "params", "[object Object]"}
	}
}

// answerable reports whether anybody can be told that the request is malformed.
func (r planned) answerable() bool { return r.class != malformed || r.form != malformedForms-1 }

// key returns the correlation ID of the answer to the request's entry.
func (r planned) key(keys tebra.Keys, entryID string) string {
	switch {
	case r.correlation != "":
		return r.correlation
	case r.id != "":
		return r.id
	}
	return derivedID(keys, entryID)
}

// sender writes requests to the stream, as browsers' clients do: an XADD that got no
// reply is sent again.
type sender struct {
	rdb  *redis.Client
	keys tebra.Keys
	sent atomic.Int64
}

// senders is how many clients send at a time.
const senders = 4

// send sends all requests, so many a second, and returns when each is in the
// stream, or ctx has ended.
func (s *sender) send(ctx context.Context, all []planned, rate int) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for n := range next {
				s.one(ctx, n, all[n])
			}
		})
	}
	defer wg.Wait()
	defer close(next)
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for n := range all {
		select {
		case next <- n:
		case <-ctx.Done():
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *sender) one(ctx context.Context, n int, r planned) {
	args := []any{"XADD", s.keys.Requests(), "*"}
	for _, f := range r.fields(n) {
		args = append(args, f)
	}
	for ctx.Err() == nil {
		tryCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := s.rdb.Do(tryCtx, args...).Err()
		cancel()
		if err == nil {
			s.sent.Add(1)
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
