package telemetry

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Config is what of OpenTelemetry's environment variables decides whether and
// where telemetry is sent; they mean what OpenTelemetry says they mean. What else
// it defines (headers, certificates, timeouts, span limits), its SDK reads itself.
type Config struct {
	Disabled        bool   `env:"OTEL_SDK_DISABLED"`
	Endpoint        string `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	TracesEndpoint  string `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	MetricsEndpoint string `env:"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"`
	Service         string `env:"OTEL_SERVICE_NAME"`
	Attributes      string `env:"OTEL_RESOURCE_ATTRIBUTES"`
	Sampler         string `env:"OTEL_TRACES_SAMPLER" envDefault:"parentbased_always_on"`
	SamplerArg      string `env:"OTEL_TRACES_SAMPLER_ARG"`
	// MetricInterval is in milliseconds. OpenTelemetry's own default is a minute,
	// which is all the time that an operator may have to wait to see trouble.
	MetricInterval int `env:"OTEL_METRIC_EXPORT_INTERVAL" envDefault:"30000"`
	// Project is where Google's endpoint puts what it is sent.
	Project string `env:"GOOGLE_CLOUD_PROJECT"`
}

// googleHost is Google's own endpoint. It wants the service's credentials, the
// project and a region.
const googleHost = "telemetry.googleapis.com"

// minInterval is how often Google takes a point of one series (FACTS: Terraform and the platform, telemetry).
const minInterval = 5 * time.Second

// Problems returns everything that is wrong with c, a line each.
func (c Config) Problems() []string {
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for _, e := range []struct{ variable, value string }{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", c.Endpoint},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", c.TracesEndpoint},
		{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", c.MetricsEndpoint},
	} {
		if e.value != "" && !isEndpoint(e.value) {
			wrong("%s is not the http:// or https:// address of an OTLP receiver, such as http://127.0.0.1:4317", e.variable)
		}
	}
	if _, err := c.sampler(); err != nil {
		wrong("%v", err)
	}
	if c.MetricInterval != 0 && c.interval() < minInterval {
		wrong("OTEL_METRIC_EXPORT_INTERVAL is %d ms: want at least %d", c.MetricInterval, minInterval.Milliseconds())
	}
	attributes, err := c.attributes()
	if err != nil {
		wrong("%v", err)
	}
	if !isGoogle(c.metricsEndpoint()) {
		return problems
	}
	if !hasKey(attributes, "cloud.region") {
		wrong("OTEL_RESOURCE_ATTRIBUTES must hold cloud.region=REGION: without one %s refuses metrics", googleHost)
	}
	if c.Project == "" {
		wrong("GOOGLE_CLOUD_PROJECT is required: %s asks whose telemetry it is", googleHost)
	}
	return problems
}

func isEndpoint(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

func isGoogle(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && u.Hostname() == googleHost
}

func (c Config) tracesEndpoint() string  { return c.endpoint(c.TracesEndpoint) }
func (c Config) metricsEndpoint() string { return c.endpoint(c.MetricsEndpoint) }

// endpoint returns where one signal goes, "" for nowhere.
func (c Config) endpoint(own string) string {
	switch {
	case c.Disabled:
		return ""
	case own != "":
		return own
	default:
		return c.Endpoint
	}
}

func (c Config) interval() time.Duration { return time.Duration(c.MetricInterval) * time.Millisecond }

// sampler returns what OTEL_TRACES_SAMPLER names.
func (c Config) sampler() (sdktrace.Sampler, error) {
	name, byParent := strings.CutPrefix(c.Sampler, "parentbased_")
	var s sdktrace.Sampler
	switch name {
	case "always_on":
		s = sdktrace.AlwaysSample()
	case "always_off":
		s = sdktrace.NeverSample()
	case "traceidratio":
		ratio, err := strconv.ParseFloat(c.SamplerArg, 64)
		if c.SamplerArg == "" {
			ratio, err = 1, nil
		}
		if err != nil || !(ratio >= 0 && ratio <= 1) {
			return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG is not a number from 0 to 1")
		}
		s = sdktrace.TraceIDRatioBased(ratio)
	case "":
		return sdktrace.ParentBased(sdktrace.AlwaysSample()), nil
	default:
		return nil, fmt.Errorf("OTEL_TRACES_SAMPLER is none of always_on, always_off, traceidratio, or one of these after parentbased_")
	}
	if byParent {
		s = sdktrace.ParentBased(s)
	}
	return s, nil
}

// attributes reads OTEL_RESOURCE_ATTRIBUTES: name=value, percent-encoded, with
// commas between.
func (c Config) attributes() ([]attribute.KeyValue, error) {
	var all []attribute.KeyValue
	for pair := range strings.SplitSeq(c.Attributes, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || name == "" || err != nil {
			return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES is not a list such as cloud.region=us-central1,service.namespace=tebra")
		}
		all = append(all, attribute.String(name, value))
	}
	return all, nil
}

// Namespace returns the installation's name, service.namespace among
// OTEL_RESOURCE_ATTRIBUTES, "" where it has none.
func (c Config) Namespace() string {
	attributes, err := c.attributes()
	if err != nil { // [Config.Problems] tells
		return ""
	}
	for _, a := range attributes {
		if a.Key == "service.namespace" {
			return a.Value.AsString()
		}
	}
	return ""
}

func hasKey(all []attribute.KeyValue, key attribute.Key) bool {
	for _, a := range all {
		if a.Key == key && a.Value.AsString() != "" {
			return true
		}
	}
	return false
}
