package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"tebraproxy/pkg/tebra"
)

// report prints what becomes of one request. For people, progress goes to stderr
// and data to stdout; as JSON, everything is a line of stdout.
type report struct {
	stdout, stderr io.Writer
	style          style // of stderr
	terminal       bool  // stdout is one
	noWait         bool
	output         format
	request        tebra.Request
	now            func() time.Time
	start          time.Time
	err            error // the first that stdout returned
}

func (a *app) newReport(o sendOptions, request tebra.Request) *report {
	return &report{
		stdout: a.stdout, stderr: a.stderr,
		style: a.styleFor(a.stderr), terminal: a.isTerminal(a.stdout),
		noWait: o.noWait, output: a.output, request: request, now: a.now,
	}
}

// begin sets the time from which all others are counted.
func (r *report) begin() { r.start = r.now() }

// event is what all lines of JSON have.
type event struct {
	Event         string `json:"event"` // sent, status or answer
	ElapsedMillis int64  `json:"elapsedMs"`
	RequestID     string `json:"requestId"`
	CorrelationID string `json:"correlationId"`
	Action        string `json:"action"`
	UserID        string `json:"userId"`
}

func (r *report) event(name string) event {
	return event{
		Event: name, ElapsedMillis: r.elapsed().Milliseconds(),
		RequestID: r.request.ID, CorrelationID: r.request.CorrelationID,
		Action: r.request.Action, UserID: r.request.UserID,
	}
}

// sent tells that the request is on the stream, as entry.
func (r *report) sent(entry string) {
	if r.output == formatJSON {
		r.line(struct {
			event
			EntryID string `json:"entryId"`
		}{r.event("sent"), entry})
		return
	}
	what := fmt.Sprintf("%s for %s, request %s, entry %s", r.request.Action, r.request.UserID, r.request.ID, entry)
	if r.noWait { // then this is what was asked for
		r.print(what + "\n")
		return
	}
	r.progress("sent", r.style.dim, what)
}

// status tells that the request has come into another state.
func (r *report) status(update tebra.StatusUpdate) {
	if r.output == formatJSON {
		r.line(struct {
			event
			Status    tebra.State     `json:"status"`
			Attempt   int             `json:"attempt,omitempty"`
			ErrorCode tebra.ErrorCode `json:"errorCode,omitempty"`
		}{r.event("status"), update.State, update.Attempt, update.ErrorCode})
		return
	}
	var details []string
	if update.Attempt > 0 {
		details = append(details, "attempt "+strconv.Itoa(update.Attempt))
	}
	if update.ErrorCode != "" {
		details = append(details, string(update.ErrorCode)+": "+update.ErrorCode.Meaning())
	}
	paint := r.style.dim
	if update.State == tebra.Processing {
		paint = r.style.active
	}
	r.progress(string(update.State), paint, strings.Join(details, ", "))
}

// answer tells the answer, and prints its data. The error of an answer is the
// command's error, and told as such.
func (r *report) answer(answer tebra.Response) {
	if r.output == formatJSON {
		r.line(struct {
			event
			Status         tebra.State     `json:"status"`
			Data           json.RawMessage `json:"data,omitempty"`
			ErrorCode      tebra.ErrorCode `json:"errorCode,omitempty"`
			Error          string          `json:"error,omitempty"`
			Attempts       int             `json:"attempts"`
			DurationMillis int64           `json:"durationMs"`
		}{r.event("answer"), answer.State(), asJSON(answer.Data), answer.ErrorCode, answer.Error, answer.Attempts, answer.Duration.Milliseconds()})
		return
	}
	paint := r.style.good
	if answer.State() == tebra.Failed {
		paint = r.style.bad
	}
	r.progress(string(answer.State()), paint, fmt.Sprintf("attempts %d, answered in %s", answer.Attempts, roundly(answer.Duration)))
	r.data(answer.Data)
}

// data prints the data of a success: as it came, but for the space between its
// parts.
func (r *report) data(data json.RawMessage) {
	if len(data) == 0 {
		return
	}
	var b bytes.Buffer
	format := json.Compact
	if r.terminal {
		format = func(dst *bytes.Buffer, src []byte) error { return json.Indent(dst, src, "", "  ") }
	}
	if err := format(&b, data); err != nil { // not JSON; print what there is
		b.Reset()
		b.Write(data)
	}
	b.WriteByte('\n')
	r.print(b.String())
}

// asJSON returns data, as a JSON string where it is not JSON itself.
func asJSON(data json.RawMessage) json.RawMessage {
	if len(data) == 0 || json.Valid(data) {
		return data
	}
	return jsonText(string(data))
}

// trouble tells that Redis can't be read at the moment.
func (r *report) trouble(err error) {
	fmt.Fprintf(r.stderr, "%s Redis can't be read: %s; trying again, the request is safe\n", r.style.bad("tebra:"), printable(err.Error()))
}

// waiting tells people why nothing happens. Programs have the states.
func (r *report) waiting(why string) {
	if r.output != formatJSON {
		r.progress("waiting", r.style.dim, why)
	}
}

// progress tells people of a state and when it was reached.
func (r *report) progress(state string, paint func(string) string, details string) {
	at := "+" + roundly(r.elapsed())
	text := fmt.Sprintf("%s  %9s  %s", paint(fmt.Sprintf("%-10s", state)), at, printable(details))
	fmt.Fprintln(r.stderr, strings.TrimRight(text, " "))
}

func (r *report) elapsed() time.Duration { return r.now().Sub(r.start) }

// line prints v as one line of JSON.
func (r *report) line(v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		r.fail(err)
		return
	}
	r.print(b.String())
}

// print writes to stdout until that fails once. A pipe gets text as it is.
func (r *report) print(text string) {
	if r.err != nil {
		return
	}
	if r.terminal {
		text = printable(text)
	}
	_, err := io.WriteString(r.stdout, text)
	r.fail(err)
}

func (r *report) fail(err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("printing to stdout: %w", err)
	}
}

// roundly writes a duration as precisely as people want to read it.
func roundly(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Hour:
		text := d.Round(time.Second).String()
		if strings.HasSuffix(text, "m0s") {
			text = strings.TrimSuffix(text, "0s")
		}
		return text
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}
