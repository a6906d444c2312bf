package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

func TestTablesAreAlignedAndSteerNoTerminal(t *testing.T) {
	t.Parallel()
	rows := table{header: []string{"ACTION", ">COUNT", "NOTE"}, indent: "  "}
	rows.add(word("getProviders"), word(7), painted(good, "fine"))
	rows.add(word("ü"), word(1234), word("two\nlines \x1b[2J\u009b"))
	for _, test := range []struct {
		colour bool
		want   string
	}{
		{false, "  ACTION        COUNT  NOTE\n  getProviders      7  fine\n  ü              1234  two lines �[2J�\n"},
		{true, "  \x1b[2mACTION\x1b[0m        \x1b[2mCOUNT\x1b[0m  \x1b[2mNOTE\x1b[0m\n" +
			"  getProviders      7  \x1b[32mfine\x1b[0m\n  ü              1234  two lines �[2J�\n"},
	} {
		var b bytes.Buffer
		p := &printer{w: &b, style: style{colour: test.colour}}
		p.table(rows)
		if b.String() != test.want || p.err != nil {
			t.Errorf("table (coloured %v) = %q (%v), want %q", test.colour, b.String(), p.err, test.want)
		}
	}
}

func TestWhatIsDrawnAgainReplacesWhatWasThere(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	l := &live{w: &b, size: func(io.Writer) (int, int) { return 11, 3 }}
	for _, step := range []struct {
		above, lines []string
		want         string
	}{
		{nil, []string{"one", "two"}, "\r\x1b[Jone\ntwo\n"},
		{[]string{"stays, whatever its length"}, []string{"\x1b[31mmuch too long\x1b[0m"}, "\x1b[2A\r\x1b[Jstays, whatever its length\n\x1b[31mmuch too l\x1b[0m\n"},
		{nil, []string{"1", "2", "3"}, "\x1b[1A\r\x1b[J1\n2\n"},
		{nil, nil, "\x1b[2A\r\x1b[J"},
		{nil, []string{"again"}, "\r\x1b[Jagain\n"},
	} {
		b.Reset()
		if err := l.draw(step.above, step.lines); err != nil || b.String() != step.want {
			t.Errorf("draw(%q, %q) = %q (%v), want %q", step.above, step.lines, b.String(), err, step.want)
		}
	}
}

func TestABarIsForTerminalsOnly(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		terminal bool
		env      environment
		want     string
	}{
		{true, environment{"NO_COLOR": "1"}, "\r\x1b[J███████░░░░░░░░░░░░░░░░░░░░░░░ 1 of 4, 9.0 s left  one failed\n\x1b[1A\r\x1b[J"},
		{true, environment{"TERM": "dumb"}, ""},
		{false, nil, ""},
	} {
		var b bytes.Buffer
		at := time.Now()
		a := &app{
			stderr: &b, env: test.env, now: func() time.Time { return at },
			isTerminal:   func(io.Writer) bool { return test.terminal },
			terminalSize: func(io.Writer) (int, int) { return 80, 24 },
		}
		bar := a.newBar(4)
		at = at.Add(3 * time.Second)
		bar.set(1, "one failed")
		at = at.Add(drawEvery / 2)
		bar.set(2, "too soon to be drawn")
		bar.end()
		if b.String() != test.want {
			t.Errorf("bar (terminal %v, %v) = %q, want %q", test.terminal, test.env, b.String(), test.want)
		}
	}
}

// TestABarGuessesNoEndWhileNothingMoves: it would only rise.
func TestABarGuessesNoEndWhileNothingMoves(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	at := time.Now()
	a := &app{
		stderr: &b, env: environment{"NO_COLOR": "1"}, now: func() time.Time { return at },
		isTerminal:   func(io.Writer) bool { return true },
		terminalSize: func(io.Writer) (int, int) { return 80, 24 },
	}
	bar := a.newBar(60)
	for _, step := range []struct {
		after time.Duration
		done  int
		want  string
	}{
		{2 * time.Second, 1, "1 of 60, 1m58s left\n"},
		{silence - time.Second, 1, " left\n"},
		{time.Second, 1, "1 of 60\n"},
		{time.Minute, 1, "1 of 60\n"},
		{time.Second, 31, " left\n"},
	} {
		at = at.Add(step.after)
		b.Reset()
		bar.set(step.done, "")
		if !strings.HasSuffix(b.String(), step.want) {
			t.Errorf("bar %v after the one before = %q, want it to end in %q", step.after, b.String(), step.want)
		}
	}
}

func TestAMomentIsHowLongAgoOrATime(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("somewhere", 2*60*60)
	now := time.Date(2026, 11, 23, 9, 30, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"90m":                  time.Date(2026, 11, 23, 8, 0, 0, 0, zone),
		"0s":                   now,
		"3d":                   time.Date(2026, 11, 20, 9, 30, 0, 0, zone),
		"2026-11-01":           time.Date(2026, 11, 1, 0, 0, 0, 0, zone),
		"2026-11-01T10:00":     time.Date(2026, 11, 1, 10, 0, 0, 0, zone),
		"2026-11-01 10:00:01":  time.Date(2026, 11, 1, 10, 0, 1, 0, zone),
		"2026-11-01T10:00:00Z": time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC),
		"-1h":                  {},
		"d":                    {},
		"99999d":               {},
		"yesterday":            {},
		"":                     {},
	} {
		m := &moment{now: func() time.Time { return now }, zone: zone}
		err := m.Set(text)
		if !m.time.Equal(want) || (err != nil) != want.IsZero() {
			t.Errorf("Set(%q) = %v (%v), want %v", text, m.time, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "want how long ago") {
			t.Errorf("Set(%q) error = %v, want it to say what is wanted", text, err)
		}
	}
}
