package telemetry

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"tebraproxy/pkg/tebra"
)

// Bounds of histograms' buckets, in seconds.
var (
	publishBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	callBuckets    = []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60}
	waitBuckets    = []float64{.01, .05, .25, 1, 5, 15, 60, 300, 900, 3600, 14400}
)

// other is the word for whatever is in no vocabulary.
const other = tebra.OtherAction

// vocabulary is a closed set of label values. What came from outside never makes a
// series of its own.
type vocabulary map[string]struct{}

func newVocabulary(words []string) vocabulary {
	v := make(vocabulary, len(words))
	for _, w := range words {
		v[w] = struct{}{}
	}
	return v
}

// word returns w if it is known, else other.
func (v vocabulary) word(w string) string {
	if _, ok := v[w]; ok {
		return w
	}
	return other
}

// trimmed is why a bridge gives up an entry that others removed.
const trimmed = "trimmed"

// reasons is why there may be a dead letter: every error code, or trimmed.
var reasons = func() []string {
	all := []string{trimmed}
	for _, code := range tebra.Codes() {
		all = append(all, string(code))
	}
	return all
}()

func reasonWord(code tebra.ErrorCode) string {
	if slices.Contains(reasons, string(code)) {
		return string(code)
	}
	return other
}

// success is the outcome of a request that was answered so; every other outcome is
// an error code.
const success = "success"

func outcomeWord(code tebra.ErrorCode) string {
	if code == "" {
		return success
	}
	return reasonWord(code)
}

// label returns the option of one label.
func label(name, value string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String(name, value)))
}

// must is for instruments, whose names are all in this package.
func must[T any](made T, err error) T {
	if err != nil {
		panic("telemetry: " + err.Error())
	}
	return made
}

func (t *Telemetry) counter(name, description string) metric.Int64Counter {
	return must(t.meter.Int64Counter(name, metric.WithDescription(description)))
}

func (t *Telemetry) gauge(name, description string) metric.Int64ObservableGauge {
	return must(t.meter.Int64ObservableGauge(name, metric.WithDescription(description)))
}

func (t *Telemetry) seconds(name, description string) metric.Float64ObservableGauge {
	return must(t.meter.Float64ObservableGauge(name, metric.WithDescription(description), metric.WithUnit("s")))
}

func (t *Telemetry) latency(name, description string, buckets []float64) metric.Float64Histogram {
	return must(t.meter.Float64Histogram(name, metric.WithDescription(description), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(buckets...)))
}

// deadLetters makes the counter of dead letters, which bridge and functions share. It
// begins with every reason at 0, so that an alert sees the first one rise.
func (t *Telemetry) deadLetters() metric.Int64Counter {
	c := t.counter("tebra_dead_letters_total", "Requests that need a person to look, by reason.")
	for _, reason := range reasons {
		c.Add(context.Background(), 0, label("reason", reason))
	}
	return c
}
