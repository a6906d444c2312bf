package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// scope names what made the telemetry.
const scope = "tebraproxy"

const (
	// maxPoints is how many points or spans go in one request: as many as Google takes
	// (FACTS: Terraform and the platform, telemetry).
	maxPoints = 200
	// maxSeries bounds the series of one instrument, whatever else goes wrong. The
	// rest is counted together.
	maxSeries = 2000
	// maxSpansQueued bounds the spans that wait to be sent. The rest is dropped.
	maxSpansQueued = 2048
)

// Options is what a program says of itself.
type Options struct {
	Service string // unless OTEL_SERVICE_NAME says another
	Version string
	// Spans and Metrics, where set, are given everything as well, at once.
	Spans   sdktrace.SpanExporter
	Metrics sdkmetric.Reader
}

// Telemetry makes and sends a program's metrics and traces. It is safe for
// concurrent use. Whoever made it calls Shutdown.
type Telemetry struct {
	registry *prometheus.Registry
	meters   *sdkmetric.MeterProvider
	meter    metric.Meter
	tracers  *sdktrace.TracerProvider // nil where nobody wants spans
	tracer   trace.Tracer
	sampler  sdktrace.Sampler
}

// New returns a program's telemetry. It dials nobody yet, but looks for the
// service's credentials where these are needed. cfg must have no Problems.
func New(ctx context.Context, cfg Config, opts Options) (*Telemetry, error) {
	about, err := describe(cfg, opts)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{registry: prometheus.NewRegistry(), tracer: noop.NewTracerProvider().Tracer(scope), sampler: sdktrace.NeverSample()}
	if err := t.startMetrics(ctx, cfg, opts, about); err != nil {
		return nil, err
	}
	if err := t.startTraces(ctx, cfg, opts, about); err != nil {
		return nil, errors.Join(err, t.meters.Shutdown(ctx))
	}
	return t, nil
}

// describe returns what is said of this process with all that it sends.
func describe(cfg Config, opts Options) (*resource.Resource, error) {
	own := []attribute.KeyValue{
		attribute.String("service.name", opts.Service),
		attribute.String("service.version", opts.Version),
		attribute.String("service.instance.id", uuid.NewString()),
	}
	if cfg.Project != "" {
		own = append(own, attribute.String("gcp.project_id", cfg.Project))
	}
	given, err := cfg.attributes()
	if err != nil {
		return nil, err
	}
	if cfg.Service != "" {
		given = append(given, attribute.String("service.name", cfg.Service))
	}
	about, err := resource.Merge(resource.NewSchemaless(own...), resource.NewSchemaless(given...))
	if err != nil {
		return nil, fmt.Errorf("describing this process: %w", err)
	}
	return about, nil
}

func (t *Telemetry) startMetrics(ctx context.Context, cfg Config, opts Options, about *resource.Resource) error {
	text, err := otelprom.New(otelprom.WithRegisterer(t.registry), otelprom.WithoutScopeInfo(),
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithoutSuffixes))
	if err != nil {
		return fmt.Errorf("making metrics: %w", err)
	}
	providerOpts := []sdkmetric.Option{sdkmetric.WithResource(about), sdkmetric.WithReader(text), sdkmetric.WithCardinalityLimit(maxSeries)}
	if opts.Metrics != nil {
		providerOpts = append(providerOpts, sdkmetric.WithReader(opts.Metrics))
	}
	if endpoint := cfg.metricsEndpoint(); endpoint != "" {
		exporter, err := newMetricExporter(ctx, endpoint, cfg.Project)
		if err != nil {
			return err
		}
		providerOpts = append(providerOpts, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter,
			sdkmetric.WithInterval(cfg.interval()), sdkmetric.WithMaxExportBatchSize(maxPoints))))
	}
	t.meters = sdkmetric.NewMeterProvider(providerOpts...)
	t.meter = t.meters.Meter(scope)
	if err := runtime.Start(runtime.WithMeterProvider(t.meters)); err != nil {
		return fmt.Errorf("making the metrics of the Go runtime: %w", err)
	}
	return t.observeCPU()
}

func (t *Telemetry) startTraces(ctx context.Context, cfg Config, opts Options, about *resource.Resource) error {
	sampler, err := cfg.sampler()
	if err != nil {
		return err
	}
	providerOpts := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(about), sdktrace.WithSampler(sampler), sdktrace.WithIDGenerator(ids{}),
	}
	endpoint := cfg.tracesEndpoint()
	if endpoint == "" && opts.Spans == nil {
		return nil
	}
	if opts.Spans != nil {
		providerOpts = append(providerOpts, sdktrace.WithSyncer(opts.Spans))
	}
	if endpoint != "" {
		exporter, err := newSpanExporter(ctx, endpoint, cfg.Project)
		if err != nil {
			return err
		}
		providerOpts = append(providerOpts, sdktrace.WithBatcher(exporter,
			sdktrace.WithMaxExportBatchSize(maxPoints), sdktrace.WithMaxQueueSize(maxSpansQueued)))
	}
	t.tracers = sdktrace.NewTracerProvider(providerOpts...)
	t.tracer, t.sampler = t.tracers.Tracer(scope), sampler
	return nil
}

// observeCPU makes process.cpu.time, as OpenTelemetry names it.
func (t *Telemetry) observeCPU() error {
	user := metric.WithAttributeSet(attribute.NewSet(attribute.String("cpu.mode", "user")))
	system := metric.WithAttributeSet(attribute.NewSet(attribute.String("cpu.mode", "system")))
	_, err := t.meter.Float64ObservableCounter("process.cpu.time", metric.WithUnit("s"),
		metric.WithDescription("CPU time that this process has used."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			inUser, inSystem := CPUTime()
			o.Observe(inUser.Seconds(), user)
			o.Observe(inSystem.Seconds(), system)
			return nil
		}))
	if err != nil {
		return fmt.Errorf("making the metric of CPU time: %w", err)
	}
	return nil
}

// MetricsHandler serves the metrics as Prometheus text.
func (t *Telemetry) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 4 * time.Second})
}

// shutdownTimeout bounds sending what is left, within Cloud Run's 10 s.
const shutdownTimeout = time.Second

// Shutdown sends what is left, for a second at most, and stops. It needs no context that
// is still alive.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	var spans error
	var g sync.WaitGroup // at once: neither may take the time that the other needs
	if t.tracers != nil {
		g.Go(func() { spans = t.tracers.Shutdown(ctx) })
	}
	err := t.meters.Shutdown(ctx)
	g.Wait()
	if err = errors.Join(err, spans); err != nil {
		return fmt.Errorf("sending the last telemetry: %w", err)
	}
	return nil
}

// ReportErrors has what goes wrong with sending telemetry logged, thinned. It is
// for main programs: OpenTelemetry has one handler a process.
func ReportErrors(log *slog.Logger) {
	log = Thin(log)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("telemetry could not be sent", "error", err)
	}))
}
