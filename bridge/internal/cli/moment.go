package cli

import (
	"errors"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// moment is a flag's value: a time, given as how long ago, as a date, or as a time.
type moment struct {
	now  func() time.Time
	zone *time.Location
	text string
	time time.Time // zero until it is set
}

var _ pflag.Value = (*moment)(nil)

// newMoment returns a moment that is not set, in the user's time zone.
func (a *app) newMoment() *moment { return &moment{now: a.now, zone: a.zone} }

func (m *moment) String() string { return m.text }

// Set reads the flag's value: 90m, 3d, 2026-11-23, or 2026-11-23T09:30:00Z.
func (m *moment) Set(text string) error {
	at, err := m.parse(text)
	if err != nil {
		return err
	}
	m.text, m.time = text, at
	return nil
}

func (m *moment) parse(text string) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return m.now().Add(-ago), nil
	}
	if n := len(text); n > 1 && text[n-1] == 'd' {
		if days, err := strconv.ParseUint(text[:n-1], 10, 16); err == nil {
			return m.now().AddDate(0, 0, -int(days)), nil
		}
	}
	for _, layout := range [...]string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, m.zone); err == nil {
			return at, nil
		}
	}
	return time.Time{}, errors.New("want how long ago, such as 90m or 3d, a date such as 2026-11-23, or a time such as 2026-11-23T09:30:00Z")
}

// Type names the value in help texts.
func (m *moment) Type() string { return "AGO|TIME" }

// clockTime writes a time for people, in their time zone: without the date if it
// is today's.
func (a *app) clockTime(t time.Time) string {
	t, now := t.In(a.zone), a.now().In(a.zone)
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04:05.000")
	}
	return t.Format("2006-01-02 15:04:05")
}
