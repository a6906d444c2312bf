package telemetry_test

import (
	"strings"
	"testing"

	"tebraproxy/pkg/config"
	"tebraproxy/pkg/telemetry"
)

func TestEveryMistakeIsNamed(t *testing.T) {
	t.Parallel()
	const google = "OTEL_EXPORTER_OTLP_ENDPOINT=https://telemetry.googleapis.com"
	for name, tt := range map[string]struct {
		environ []string
		want    string
	}{
		"no URL":              {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=localhost:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"no host":             {[]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"},
		"another scheme":      {[]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=grpc://h"}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"},
		"an unknown sampler":  {[]string{"OTEL_TRACES_SAMPLER=jaeger_remote"}, "OTEL_TRACES_SAMPLER"},
		"no share":            {[]string{"OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=many"}, "OTEL_TRACES_SAMPLER_ARG"},
		"over the whole":      {[]string{"OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=1.5"}, "OTEL_TRACES_SAMPLER_ARG"},
		"not a number at all": {[]string{"OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=NaN"}, "OTEL_TRACES_SAMPLER_ARG"},
		"too often":           {[]string{"OTEL_METRIC_EXPORT_INTERVAL=4999"}, "OTEL_METRIC_EXPORT_INTERVAL"},
		"no list":             {[]string{"OTEL_RESOURCE_ATTRIBUTES=cloud.region"}, "OTEL_RESOURCE_ATTRIBUTES"},
		"no region":           {[]string{google, "GOOGLE_CLOUD_PROJECT=p"}, "cloud.region"},
		"no project":          {[]string{google, "OTEL_RESOURCE_ATTRIBUTES=cloud.region=r"}, "GOOGLE_CLOUD_PROJECT"},
	} {
		cfg, err := config.Load[telemetry.Config](tt.environ)
		if err != nil {
			t.Fatalf("%s: Load() = %v", name, err)
		}
		if got := cfg.Problems(); len(got) != 1 || !strings.Contains(got[0], tt.want) {
			t.Errorf("%s: Problems() = %q, want one that names %s", name, got, tt.want)
		}
	}
}

func TestWhatOpenTelemetryAllowsIsAllowed(t *testing.T) {
	t.Parallel()
	for _, environ := range [][]string{
		nil,
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317", "OTEL_METRIC_EXPORT_INTERVAL=5000"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=https://telemetry.googleapis.com:443", "GOOGLE_CLOUD_PROJECT=p", "OTEL_RESOURCE_ATTRIBUTES=service.namespace=a%20b, cloud.region=us-central1"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=https://telemetry.googleapis.com", "OTEL_SDK_DISABLED=true"},
		{"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01"},
		{"OTEL_TRACES_SAMPLER=traceidratio"}, {"OTEL_TRACES_SAMPLER=always_off"}, {"OTEL_TRACES_SAMPLER=parentbased_always_off"},
	} {
		cfg, err := config.Load[telemetry.Config](environ)
		if err != nil {
			t.Fatalf("%v: Load() = %v", environ, err)
		}
		if got := cfg.Problems(); len(got) > 0 {
			t.Errorf("%v: Problems() = %q, want none", environ, got)
		}
	}
}
