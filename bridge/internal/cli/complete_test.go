package cli

import (
	"slices"
	"strings"
	"testing"
)

func TestTheShellIsOfferedWhatFits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args        []string
		want, never []string
	}{
		{[]string{"send", ""}, []string{"syncSchedule\tread", "createAppointment\twrite"}, nil},
		{[]string{"send", "getAppointments", ""}, []string{"fromDate=", "toDate="}, nil},
		{[]string{"send", "getAppointments", "fromDate=2026-11-01", ""}, []string{"toDate="}, []string{"fromDate="}},
		{[]string{"send", "createAppointment", ""}, []string{"appointmentData:="}, []string{"appointmentData="}},
		{[]string{"send", "health", ""}, nil, []string{"date="}},
		{[]string{"compare", ""}, []string{"getProviders\tread"}, []string{"createAppointment\twrite"}},
		{[]string{"compare", "syncSchedule", ""}, []string{"date="}, nil},
		{[]string{"deadletters", ""}, []string{"list\tList dead letters and leave them where they are", "replay\tSend the requests of dead letters again"}, nil},
		{[]string{"deadletters", "list", "--reason", ""}, []string{"outcome_unknown\tthe call may or may not have been made; a person must look before it is sent again", "trimmed\tthe entry was removed from the stream by somebody else before it was served"}, nil},
		{[]string{"deadletters", "replay", "--reason", ""}, []string{"dead_lettered\tthe request failed too often and waits for an operator"}, nil},
		{[]string{"deadletters", "list", "--action", ""}, []string{"getPatient\tread"}, nil},
		{[]string{"doctor", "--output", ""}, []string{"json", "table"}, nil},
	} {
		c := &command{args: append([]string{"__complete"}, test.args...)}
		c.expect(t, c.run(t, t.Context()), exitOK)
		lines := strings.Split(c.stdout.String(), "\n")
		for _, want := range test.want {
			if !slices.Contains(lines, want) {
				t.Errorf("after tebra %q the shell is offered\n%swant %q among it", test.args, c.stdout.String(), want)
			}
		}
		for _, never := range test.never {
			if slices.Contains(lines, never) {
				t.Errorf("after tebra %q the shell is offered %q, want not", test.args, never)
			}
		}
	}
}

func TestEveryShellGetsAScript(t *testing.T) {
	t.Parallel()
	for shell, want := range map[string]string{"bash": "__start_tebra", "zsh": "#compdef tebra", "fish": "complete -c tebra"} {
		c := &command{args: []string{"completion", shell}}
		c.expect(t, c.run(t, t.Context()), exitOK)
		if !strings.Contains(c.stdout.String(), want) {
			t.Errorf("tebra completion %s printed %d bytes without %q", shell, len(c.stdout.String()), want)
		}
	}
}
