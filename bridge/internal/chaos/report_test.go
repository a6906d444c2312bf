package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tebraproxy/pkg/tebra"
)

// mostShown is how many violations of one promise are shown with their history.
const mostShown = 3

// explain returns a report of violations: how many of each promise, the first of
// them with the history of their entries, and the faults.
func (c *checker) explain(found []violation, faults []string) string {
	var out strings.Builder
	byPromise := map[string][]violation{}
	for _, v := range found {
		byPromise[v.promise] = append(byPromise[v.promise], v)
	}
	for _, promise := range slices.Sorted(maps.Keys(byPromise)) {
		all := byPromise[promise]
		fmt.Fprintf(&out, "\nNOT KEPT, %d times: %s\n", len(all), promise)
		for _, v := range all[:min(len(all), mostShown)] {
			fmt.Fprintf(&out, "  - %s\n", v.detail)
			for _, key := range v.keys[:min(len(v.keys), mostShown)] {
				c.history(&out, key)
			}
		}
	}
	fmt.Fprintf(&out, "\nthe faults:\n  %s\n", strings.Join(faults, "\n  "))
	return out.String()
}

// history writes what is known of the entries with a correlation ID.
func (c *checker) history(out *strings.Builder, key string) {
	at := func(t time.Time) string { return t.UTC().Format("15:04:05.000") }
	for _, e := range c.byKey[key] {
		id, err := tebra.ParseEntryID(e.entryID)
		when := "?"
		if err == nil {
			when = at(time.UnixMilli(int64(id.Millis)))
		}
		fmt.Fprintf(out, "      %s entry %s: %s, %s by %s, id %q, form %d\n", when, e.entryID, e.class, e.action, e.user, e.id, e.form)
		for _, l := range c.letters {
			if l.entryID() == e.entryID {
				fmt.Fprintf(out, "      dead letter: reason %q, by the policy: %v\n", l.attributes[tebra.AttrReason], l.attributes[byPolicy] != "")
			}
		}
		if len(c.byRequest[e.request()]) > 1 {
			for _, other := range c.byRequest[e.request()] {
				fmt.Fprintf(out, "      of one request: entry %s, %s\n", other.entryID, other.key)
			}
		}
	}
	for _, s := range c.statuses[key] {
		fmt.Fprintf(out, "      %s status %s, attempt %d %s\n", at(s.Timestamp), s.State, s.Attempt, s.ErrorCode)
	}
	for _, j := range c.journal {
		if j.CorrelationID == key {
			fmt.Fprintf(out, "      %s API: %s, executed: %v\n", at(j.Time), j.Action, j.Executed)
		}
	}
	for _, a := range c.answers[key] {
		fmt.Fprintf(out, "      %s answer %s: %q, attempts %d\n", at(a.Timestamp), a.entryID, a.ErrorCode, a.Attempts)
	}
}

// figures summarises a run.
func (c *checker) figures(took time.Duration, faults []string) string {
	codes := map[tebra.ErrorCode]int{}
	answers, attempts := 0, 0
	var waits []time.Duration
	for _, list := range c.answers {
		for _, a := range list {
			codes[a.ErrorCode]++
			answers++
			attempts += a.Attempts
			waits = append(waits, a.Duration)
		}
	}
	slices.Sort(waits)
	writes, executed := 0, 0
	for request, entries := range c.byRequest {
		if entries[0].write {
			writes++
			executed += len(c.executed[request])
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%d entries in %v: %d answers, %d calls of the API, %d changes asked for, %d executed, %d dead letters\n",
		len(c.entries), took.Round(time.Second), answers, len(c.journal), writes, executed, len(c.letters))
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		name := string(code)
		if name == "" {
			name = "success"
		}
		fmt.Fprintf(&out, "  %-16s %d\n", name, codes[code])
	}
	if len(waits) > 0 {
		fmt.Fprintf(&out, "  answered after %v (median), %v (p99), %v (longest)\n",
			waits[len(waits)/2], waits[len(waits)*99/100], waits[len(waits)-1])
	}
	fmt.Fprintf(&out, "  %s", countFaults(faults))
	return out.String()
}

// countFaults counts the faults by kind.
func countFaults(faults []string) string {
	kinds := []string{kill, stop, freeze, "the API is down"}
	var parts []string
	for _, kind := range kinds {
		n := 0
		for _, f := range faults {
			if strings.Contains(f, kind) {
				n++
			}
		}
		parts = append(parts, fmt.Sprintf("%d × %s", n, kind))
	}
	return "faults: " + strings.Join(parts, ", ")
}
