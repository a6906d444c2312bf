package tebra

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// TimeFormat is how every timestamp that we write looks: RFC 3339 in UTC, to the
// millisecond.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// FormatTime writes t as [TimeFormat].
func FormatTime(t time.Time) string { return t.UTC().Format(TimeFormat) }

// Response is the terminal answer to a request, an entry of the responses
// stream. Exactly one of Data and ErrorCode is set; neither, and it is a success
// whose data is null.
type Response struct {
	ID            string
	RequestID     string
	CorrelationID string
	Data          json.RawMessage // JSON text, on success
	Error         string          // text for people, on error
	ErrorCode     ErrorCode       // on error
	Timestamp     time.Time
	Duration      time.Duration // from arrival to answer; written in milliseconds
	Attempts      int           // calls begun, including the one that ended it
	UserID        string
	Action        string
}

// State returns Success or Failed.
func (r Response) State() State {
	if r.ErrorCode != "" {
		return Failed
	}
	return Success
}

// Fields returns the response as flat names and values in turn, the form that
// node-redis and the existing SSE proxy need (DESIGN section 4).
func (r Response) Fields() []string {
	f := make([]string, 0, 22)
	f = append(f, "id", r.ID, "requestId", r.RequestID, "correlationId", r.CorrelationID, "status", string(r.State()))
	if r.State() == Success {
		f = append(f, "data", cmp.Or(string(r.Data), "null"))
	} else {
		f = append(f, "error", r.Error)
	}
	ms := max(r.Duration.Milliseconds(), 0) // two machines' clocks may disagree
	f = append(f, "timestamp", FormatTime(r.Timestamp), "duration", strconv.FormatInt(ms, 10),
		"attempts", strconv.Itoa(r.Attempts), "userId", r.UserID, "action", r.Action)
	if r.State() == Failed {
		f = append(f, "errorCode", string(r.ErrorCode))
	}
	return f
}

// ParseResponse reads an entry of the responses stream. Its errors quote nothing
// of the entry, which holds what users typed.
func ParseResponse(fields map[string]string) (Response, error) {
	r := Response{
		ID: fields["id"], RequestID: fields["requestId"], CorrelationID: fields["correlationId"],
		Error: fields["error"], ErrorCode: ErrorCode(fields["errorCode"]),
		UserID: fields["userId"], Action: fields["action"],
	}
	if d := fields["data"]; d != "" {
		r.Data = json.RawMessage(d)
	}
	var err error
	if r.Timestamp, err = parseTime(fields["timestamp"]); err != nil {
		return r, fmt.Errorf("response: %w", err)
	}
	ms, err := strconv.ParseInt(fields["duration"], 10, 64)
	if err != nil || ms < 0 || ms > math.MaxInt64/int64(time.Millisecond) {
		return r, errors.New("response: duration is not a number of milliseconds")
	}
	r.Duration = time.Duration(ms) * time.Millisecond
	if r.Attempts, err = parseCount(fields["attempts"]); err != nil {
		return r, errors.New("response: attempts is not a number")
	}
	return r, r.checkState(State(fields["status"]))
}

// checkState returns an error unless what the response holds fits its status.
func (r Response) checkState(status State) error {
	switch status {
	case Success:
		if r.ErrorCode != "" || r.Error != "" {
			return errors.New("response: a success with an error")
		}
	case Failed:
		if r.ErrorCode.Meaning() == "" {
			return errors.New("response: errorCode is not one of the closed set")
		}
		if r.Data != nil {
			return errors.New("response: an error with data")
		}
	default:
		return errors.New("response: status is neither success nor error")
	}
	return nil
}

// parseTime reads an RFC 3339 time that [TimeFormat] can write.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if year := t.UTC().Year(); err != nil || year < 0 || year > 9999 {
		return time.Time{}, errors.New("timestamp is not RFC 3339")
	}
	return t, nil
}

// parseCount reads a number of attempts.
func parseCount(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// StatusUpdate is one change of a request's state, an entry of the status stream.
type StatusUpdate struct {
	CorrelationID string
	RequestID     string
	State         State
	Timestamp     time.Time
	UserID        string
	Action        string
	Attempt       int       // from the first processing on
	ErrorCode     ErrorCode // why it is pending again, or failed
}

// Fields returns the update as flat names and values in turn.
func (s StatusUpdate) Fields() []string { return s.AppendFields(make([]string, 0, 16)) }

// AppendFields appends what [StatusUpdate.Fields] returns to dst.
func (s StatusUpdate) AppendFields(dst []string) []string {
	dst = append(dst, "correlationId", s.CorrelationID, "requestId", s.RequestID, "status", string(s.State),
		"timestamp", FormatTime(s.Timestamp), "userId", s.UserID, "action", s.Action)
	if s.Attempt > 0 {
		dst = append(dst, "attempt", strconv.Itoa(s.Attempt))
	}
	if s.ErrorCode != "" {
		dst = append(dst, "errorCode", string(s.ErrorCode))
	}
	return dst
}

// ParseStatus reads an entry of the status stream. Its errors quote nothing of the
// entry, which holds what users typed.
func ParseStatus(fields map[string]string) (StatusUpdate, error) {
	s := StatusUpdate{
		CorrelationID: fields["correlationId"], RequestID: fields["requestId"], State: State(fields["status"]),
		UserID: fields["userId"], Action: fields["action"], ErrorCode: ErrorCode(fields["errorCode"]),
	}
	switch s.State {
	case Pending, Processing, Success, Failed:
	default:
		return s, errors.New("status update: status is not one of the four words")
	}
	var err error
	if s.Timestamp, err = parseTime(fields["timestamp"]); err != nil {
		return s, fmt.Errorf("status update: %w", err)
	}
	if a := fields["attempt"]; a != "" {
		if s.Attempt, err = parseCount(a); err != nil {
			return s, errors.New("status update: attempt is not a number")
		}
	}
	if s.ErrorCode != "" && s.ErrorCode.Meaning() == "" {
		return s, errors.New("status update: errorCode is not one of the closed set")
	}
	return s, nil
}
