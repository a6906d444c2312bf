// Package telemetry makes what operators see: logs, in the form in which Cloud
// Logging reads them.
package telemetry

import (
	"io"
	"log/slog"
	"os"
)

// NewLogger returns a logger to w: text for people when w is a terminal, else
// one JSON object a line with the field names of Cloud Logging's structured
// logging ("severity", "message").
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	opts.ReplaceAttr = cloudLogging
	return slog.New(slog.NewJSONHandler(w, opts))
}

// cloudLogging renames slog's own fields.
func cloudLogging(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.MessageKey:
		a.Key = "message"
	case slog.LevelKey:
		a.Key = "severity"
		if level, ok := a.Value.Any().(slog.Level); ok && level == slog.LevelWarn {
			a.Value = slog.StringValue("WARNING")
		}
	}
	return a
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
