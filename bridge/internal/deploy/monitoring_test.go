package deploy

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

const terraformDir = "../../../terraform"

// made returns the names of all metrics that the programs make, each with the labels
// that its series have. A histogram is there under the names of its parts.
func made(t *testing.T) map[string][]string {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	tel, err := telemetry.New(t.Context(), telemetry.Config{}, telemetry.Options{Service: "test", Metrics: reader})
	if err != nil {
		t.Fatal(err)
	}
	useAll(t, tel)
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			labels := labelsOf(t, m.Data)
			names[m.Name] = labels
			if _, ok := m.Data.(metricdata.Histogram[float64]); ok {
				for _, part := range []string{"_count", "_sum"} {
					names[m.Name+part] = labels
				}
				names[m.Name+"_bucket"] = append(slices.Clone(labels), "le")
			}
		}
	}
	return names
}

// useAll has every instrument make a series.
func useAll(t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	e := &tebra.Envelope{RequestID: "r", Action: "health", EntryID: "1-0", Lane: "default", Ledger: tebra.LedgerHash("u", "r")}
	b := tel.Bridge(nil, []string{"default"})
	b.Read(1)
	b.Claimed(1)
	b.Published(1, time.Second, nil)
	b.Waited(time.Second)
	b.Rejected(tebra.Malformed)
	b.BreakerChanged(true)
	b.Saw(telemetry.State{At: time.Now(), Lanes: map[string]telemetry.LaneState{"default": {}}})
	f := tel.Functions([]string{"health"}, []string{"default"})
	f.Handler("ProcessRequest", http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
	g := tel.Gateway([]string{"/"}, nil)
	g.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
	g.Streaming()(telemetry.StreamSlow)
	ctx, run := f.Begin(t.Context(), e, time.Now())
	run.Claimed("run", 1, 0, time.Now())
	run.Waiting(ctx, "default")()
	_, done := run.Calling(ctx, "")
	done(telemetry.Called{})
	run.Ended(telemetry.Ended{Answered: true, DeadLetter: true})
	run.End()
}

func labelsOf(t *testing.T, data metricdata.Aggregation) (labels []string) {
	t.Helper()
	add := func(keys []string) { labels = append(labels, keys...) }
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			add(keysOf(p.Attributes.MarshalJSON))
		}
	case metricdata.Sum[float64]:
		for _, p := range d.DataPoints {
			add(keysOf(p.Attributes.MarshalJSON))
		}
	case metricdata.Gauge[int64]:
		for _, p := range d.DataPoints {
			add(keysOf(p.Attributes.MarshalJSON))
		}
	case metricdata.Gauge[float64]:
		for _, p := range d.DataPoints {
			add(keysOf(p.Attributes.MarshalJSON))
		}
	case metricdata.Histogram[float64]:
		for _, p := range d.DataPoints {
			add(keysOf(p.Attributes.MarshalJSON))
		}
	}
	slices.Sort(labels)
	return slices.Compact(labels)
}

// keysOf reads a set of attributes in its JSON form.
func keysOf(marshal func() ([]byte, error)) (keys []string) {
	var attributes []struct{ Key string }
	if text, err := marshal(); err == nil && json.Unmarshal(text, &attributes) == nil {
		for _, a := range attributes {
			keys = append(keys, a.Key)
		}
	}
	return keys
}

// queries returns the text of everything in terraform/ that holds queries, by file.
func queries(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(terraformDir, "dashboards", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("dashboards: %v, %v, want some", files, err)
	}
	texts := map[string]string{}
	for _, path := range append(files, filepath.Join(terraformDir, "alerts.tf")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(path)] = strings.ReplaceAll(string(text), `\"`, `"`)
	}
	return texts
}

var (
	ownName   = regexp.MustCompile(`\btebra_[a-z_]+`)
	otherName = regexp.MustCompile(`\{"([a-z.]+[a-z_]*)"`)
	// selector is a metric with what it is selected by, if anything.
	selector = regexp.MustCompile(`(?:\b(tebra_[a-z_]+)\{|\{"([a-z._]+)", ?)([^}]*)\}`)
	grouping = regexp.MustCompile(`by \(([a-z_, ]+)\) \([^()]*(?:\([^()]*)*?(tebra_[a-z_]+)`)
	matcher  = regexp.MustCompile(`([a-z_.]+)"? ?(?:=~|!=|!~|=)`)
)

// resourceLabels are those that Google makes of what is said of the process.
var resourceLabels = []string{"namespace", "job", "instance"}

// TestEveryMetricThatIsLookedAtIsMade holds alerts and dashboards against the code:
// a query of a metric or label that nobody makes finds nothing, and says nothing.
func TestEveryMetricThatIsLookedAtIsMade(t *testing.T) {
	t.Parallel()
	names := made(t)
	for file, text := range queries(t) {
		seen := 0
		for _, m := range append(ownName.FindAllString(text, -1), captured(otherName, text)...) {
			seen++
			if _, ok := names[m]; !ok {
				t.Errorf("%s asks for %s, which nobody makes", file, m)
			}
		}
		if seen < 10 {
			t.Errorf("%s asks for %d metrics; is it still read right?", file, seen)
		}
		for _, s := range selector.FindAllStringSubmatch(text, -1) {
			for _, m := range matcher.FindAllStringSubmatch(s[3], -1) {
				checkLabel(t, file, names, s[1]+s[2], m[1])
			}
		}
		for _, g := range grouping.FindAllStringSubmatch(text, -1) {
			for label := range strings.SplitSeq(g[1], ",") {
				checkLabel(t, file, names, g[2], strings.TrimSpace(label))
			}
		}
	}
}

func checkLabel(t *testing.T, file string, names map[string][]string, metric, label string) {
	t.Helper()
	if !slices.Contains(names[metric], label) && !slices.Contains(resourceLabels, label) {
		t.Errorf("%s looks at label %s of %s, whose labels are %v", file, label, metric, names[metric])
	}
}

func captured(pattern *regexp.Regexp, text string) (all []string) {
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// TestEveryAlertHasItsSectionInTheRunbook: and the section says what it means, how
// to look, and what to do; and there is none for an alert that is gone.
func TestEveryAlertHasItsSectionInTheRunbook(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(terraformDir, "RUNBOOK.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		name, body, _ := strings.Cut(section, "\n")
		sections[name] = body
	}
	alerts := []string{"absent"} // what all absence policies carry
	for _, m := range regexp.MustCompile(`(?m)^    ([a-z0-9_]+) = \{\n      title`).FindAllStringSubmatch(queries(t)["alerts.tf"], -1) {
		alerts = append(alerts, m[1])
	}
	if len(alerts) < 9 {
		t.Fatalf("alerts.tf has alerts %v; is it still read right?", alerts)
	}
	for _, alert := range alerts {
		for _, part := range []string{"**What it means.**", "**How to look.**", "**What to do.**"} {
			if !strings.Contains(sections[alert], part) {
				t.Errorf("section %s of RUNBOOK.md has no %s", alert, part)
			}
		}
		if !strings.Contains(sections[alert], "`tebra ") && !strings.Contains(sections[alert], "logs of") {
			t.Errorf("section %s of RUNBOOK.md names no command", alert)
		}
		delete(sections, alert)
	}
	if len(sections) > 0 {
		t.Errorf("RUNBOOK.md has sections %v, which are no alerts", slices.Sorted(maps.Keys(sections)))
	}
}

// TestTheSinkTakesWhatTheAuditorWrites holds the sink's filter against the labels of an
// audit record, of a program that is configured as Terraform configures each.
func TestTheSinkTakesWhatTheAuditorWrites(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(terraformDir, "audit.tf"))
	if err != nil {
		t.Fatal(err)
	}
	filter := regexp.MustCompile(`(?m)^  filter = "(.*)"$`).FindSubmatch(text)
	if filter == nil {
		t.Fatal("audit.tf has no filter; is it still read right?")
	}
	rest := strings.ReplaceAll(string(filter[1]), `\"`, `"`)
	want := map[string]string{}
	for _, m := range regexp.MustCompile(`labels\.([a-z]+)="([^"]*)"`).FindAllStringSubmatch(rest, -1) {
		want[m[1]] = strings.ReplaceAll(m[2], "${var.name}", "tebra")
		rest = strings.Replace(rest, m[0], "", 1)
	}
	if strings.Trim(rest, " AND") != "" || len(want) < 2 {
		t.Fatalf("the filter %s asks for more than labels, or for too few", filter[1])
	}
	plain := environment(t, "environment")
	for name := range programs {
		var cfg telemetry.Config
		for _, variable := range evaluate(t, plain[name]) {
			if value, ok := strings.CutPrefix(variable, "OTEL_RESOURCE_ATTRIBUTES="); ok {
				cfg.Attributes = value
			}
		}
		var out bytes.Buffer
		log := telemetry.NewLogger(&out, slog.LevelInfo, telemetry.InNamespace(cfg.Namespace()))
		telemetry.NewAuditor(log, func(name string) string { return name }).Operation(telemetry.Operation{Envelope: &tebra.Envelope{}})
		var line struct {
			Labels map[string]string `json:"logging.googleapis.com/labels"`
		}
		if err := json.Unmarshal(out.Bytes(), &line); err != nil || !maps.Equal(line.Labels, want) {
			t.Errorf("an audit record of %s has labels %v (%v), want %v, which the sink takes", name, line.Labels, err, want)
		}
	}
}
