package tebra_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/tebra"
)

func fieldMap(fields []string) map[string]string {
	m := make(map[string]string, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		m[fields[i]] = fields[i+1]
	}
	return m
}

func TestAResponseComesOutOfItsFieldsUnchanged(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"response-success", "response-error"} {
		want := responses()[name]
		want.Timestamp = want.Timestamp.Truncate(time.Millisecond).UTC()
		want.Duration = want.Duration.Truncate(time.Millisecond)
		if got, err := tebra.ParseResponse(fieldMap(want.Fields())); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseResponse(%s) = %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestAStatusUpdateComesOutOfItsFieldsUnchanged(t *testing.T) {
	t.Parallel()
	for name, want := range statuses() {
		want.Timestamp = want.Timestamp.Truncate(time.Millisecond).UTC()
		if got, err := tebra.ParseStatus(fieldMap(want.Fields())); err != nil || got != want {
			t.Errorf("ParseStatus(%s) = %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestAppendFieldsKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	s := statuses()["status-again"]
	got := s.AppendFields([]string{"MAXLEN", "100"})
	if want := append([]string{"MAXLEN", "100"}, s.Fields()...); !slices.Equal(got, want) {
		t.Errorf("AppendFields() = %q, want %q", got, want)
	}
}

func TestParseResponseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, from, field, value, want string }{
		{"no timestamp", "response-success", "timestamp", "", "response: timestamp is not RFC 3339"},
		{"timestamp past year 9999", "response-success", "timestamp", "9999-12-31T23:59:59-01:00", "response: timestamp is not RFC 3339"},
		{"no duration", "response-success", "duration", "", "response: duration is not a number of milliseconds"},
		{"negative duration", "response-success", "duration", "-1", "response: duration is not a number of milliseconds"},
		{"duration of ages", "response-success", "duration", "9223372036855", "response: duration is not a number of milliseconds"},
		{"no attempts", "response-success", "attempts", "", "response: attempts is not a number"},
		{"negative attempts", "response-success", "attempts", "-1", "response: attempts is not a number"},
		{"no status", "response-success", "status", "", "response: status is neither success nor error"},
		{"status not terminal", "response-success", "status", "pending", "response: status is neither success nor error"},
		{"success with a code", "response-success", "errorCode", "rejected", "response: a success with an error"},
		{"success with an error", "response-success", "error", "no", "response: a success with an error"},
		{"error without a code", "response-error", "errorCode", "", "response: errorCode is not one of the closed set"},
		{"error with an unknown code", "response-error", "errorCode", "whatever", "response: errorCode is not one of the closed set"},
		{"error with data", "response-error", "data", "{}", "response: an error with data"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fields := fieldMap(responses()[tt.from].Fields())
			fields[tt.field] = tt.value
			if _, err := tebra.ParseResponse(fields); err == nil || err.Error() != tt.want {
				t.Errorf("ParseResponse() error = %v, want %s", err, tt.want)
			}
		})
	}
}

func TestParseStatusRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, field, value, want string }{
		{"no status", "status", "", "status update: status is not one of the four words"},
		{"a fifth word", "status", "retrying", "status update: status is not one of the four words"},
		{"no timestamp", "timestamp", "", "status update: timestamp is not RFC 3339"},
		{"timestamp before year 0", "timestamp", "0000-01-01T00:00:00+01:00", "status update: timestamp is not RFC 3339"},
		{"attempt no number", "attempt", "first", "status update: attempt is not a number"},
		{"negative attempt", "attempt", "-1", "status update: attempt is not a number"},
		{"unknown code", "errorCode", "whatever", "status update: errorCode is not one of the closed set"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fields := fieldMap(statuses()["status-again"].Fields())
			fields[tt.field] = tt.value
			if _, err := tebra.ParseStatus(fields); err == nil || err.Error() != tt.want {
				t.Errorf("ParseStatus() error = %v, want %s", err, tt.want)
			}
		})
	}
}

func TestParseErrorsOfAnswersHoldNothingOfAValue(t *testing.T) {
	t.Parallel()
	const canary = "CANARY"
	check := func(kind string, good map[string]string, parse func(map[string]string) error) {
		refused := 0
		for name := range good {
			fields := maps.Clone(good)
			for other := range fields { // the names of whom it is about, too
				if strings.HasSuffix(strings.ToLower(other), "id") {
					fields[other] = canary
				}
			}
			fields[name] = canary
			err := parse(fields)
			if err == nil {
				continue
			}
			refused++
			if strings.Contains(err.Error(), canary) {
				t.Errorf("%s with that %s: error = %q, which holds a value", kind, name, err)
			}
		}
		if refused < 4 {
			t.Errorf("%s: %d refused, want at least 4", kind, refused)
		}
	}
	check("response", fieldMap(responses()["response-error"].Fields()), func(m map[string]string) error {
		_, err := tebra.ParseResponse(m)
		return err
	})
	check("status", fieldMap(statuses()["status-again"].Fields()), func(m map[string]string) error {
		_, err := tebra.ParseStatus(m)
		return err
	})
}

func TestErrorCodesAreAClosedSetWithAMeaningEach(t *testing.T) {
	t.Parallel()
	want := strings.Fields("bad_response dead_lettered duplicate expired malformed no_answer outcome_unknown rate_limited rejected response_too_large too_large unauthorized unavailable unknown_action")
	var got []string
	for _, c := range tebra.Codes() {
		got = append(got, string(c))
		if m := c.Meaning(); m == "" || strings.Contains(m, "\n") {
			t.Errorf("ErrorCode(%s).Meaning() = %q, want one line", c, m)
		}
		if parsed, err := tebra.ParseErrorCode(string(c)); err != nil || parsed != c {
			t.Errorf("ParseErrorCode(%s) = %s, %v, want the same", c, parsed, err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("Codes() = %v, want those of DESIGN section 4: %v", got, want)
	}
	for _, s := range []string{"", "Malformed", "trimmed"} {
		if c, err := tebra.ParseErrorCode(s); err == nil || c != "" || tebra.ErrorCode(s).Meaning() != "" {
			t.Errorf("ParseErrorCode(%q) = %q, %v, want an error", s, c, err)
		}
	}
}

func TestOnlySuccessAndErrorAreTerminal(t *testing.T) {
	t.Parallel()
	for state, want := range map[tebra.State]bool{
		tebra.Pending: false, tebra.Processing: false, tebra.Success: true, tebra.Failed: true, "": false,
	} {
		if got := state.Terminal(); got != want {
			t.Errorf("State(%q).Terminal() = %v, want %v", state, got, want)
		}
	}
}
