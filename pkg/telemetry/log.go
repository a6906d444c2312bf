package telemetry

import (
	"io"
	"log/slog"
	"os"
)

// Keys of attributes that Cloud Logging reads, as the code writes them: JSON lines
// name them as Cloud Logging wants, text for people leaves them as they are.
const (
	TraceKey = "traceId" // a trace's ID, in hex
	SpanKey  = "spanId"
	logKey   = "log" // which log a line belongs to, a label
	// namespaceKey is the label that tells installations apart.
	namespaceKey = "namespace"
)

// LogOption is a choice about a logger.
type LogOption func(*logOptions)

type logOptions struct{ project, namespace string }

// InProject has traces named in full, so that Cloud Logging links lines to them.
// An empty project changes nothing.
func InProject(project string) LogOption {
	return func(o *logOptions) { o.project = project }
}

// InNamespace has lines that belong to a log of their own, such as the audit log,
// carry the label namespace too, so that a sink tells several installations in a
// project apart. An empty namespace changes nothing.
func InNamespace(namespace string) LogOption {
	return func(o *logOptions) { o.namespace = namespace }
}

// NewLogger returns a logger to w: text for people when w is a terminal, else
// one JSON object a line with the field names of Cloud Logging's structured
// logging ("severity", "message", trace, span and labels).
func NewLogger(w io.Writer, level slog.Leveler, opts ...LogOption) *slog.Logger {
	var o logOptions
	for _, opt := range opts {
		opt(&o)
	}
	handlerOpts := &slog.HandlerOptions{Level: level}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, handlerOpts))
	}
	handlerOpts.ReplaceAttr = o.cloudLogging
	return slog.New(slog.NewJSONHandler(w, handlerOpts))
}

// cloudLogging renames slog's own fields and ours.
func (o logOptions) cloudLogging(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.MessageKey:
		a.Key = "message"
	case slog.LevelKey:
		a.Key = "severity"
		if level, ok := a.Value.Any().(slog.Level); ok {
			a.Value = slog.StringValue(severity(level))
		}
	case TraceKey:
		a.Key = "logging.googleapis.com/trace"
		if o.project != "" {
			a.Value = slog.StringValue("projects/" + o.project + "/traces/" + a.Value.String())
		}
	case SpanKey:
		a.Key = "logging.googleapis.com/spanId"
	case logKey:
		labels := map[string]string{logKey: a.Value.String()}
		if o.namespace != "" {
			labels[namespaceKey] = o.namespace
		}
		return slog.Any("logging.googleapis.com/labels", labels)
	}
	return a
}

// severity is Cloud Logging's word for a level. As a text it also costs a line less
// than as what has to be asked for its JSON.
func severity(level slog.Level) string {
	if level == slog.LevelWarn {
		return "WARNING"
	}
	return level.String()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
