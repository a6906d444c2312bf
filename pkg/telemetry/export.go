package telemetry

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/oauth2/google"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/oauth"
)

// googleScope is what sending telemetry to Google asks for; roles/telemetry.writer
// decides.
const googleScope = "https://www.googleapis.com/auth/cloud-platform"

// googleOptions returns what Google's endpoint asks for: the service's
// credentials, and the project that the quota counts against. Others get neither.
func googleOptions(ctx context.Context, endpoint, project string) (dial []grpc.DialOption, headers map[string]string, err error) {
	if !isGoogle(endpoint) {
		return nil, nil, nil
	}
	found, err := google.FindDefaultCredentials(ctx, googleScope)
	if err != nil {
		return nil, nil, fmt.Errorf("sending telemetry to %s needs the service's credentials: %w", googleHost, err)
	}
	dial = append(dial, grpc.WithPerRPCCredentials(oauth.TokenSource{TokenSource: found.TokenSource}))
	return dial, map[string]string{"x-goog-user-project": project}, nil
}

func newMetricExporter(ctx context.Context, endpoint, project string) (sdkmetric.Exporter, error) {
	opts := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpointURL(endpoint)}
	dial, headers, err := googleOptions(ctx, endpoint, project)
	if err != nil {
		return nil, err
	}
	if dial != nil {
		opts = append(opts, otlpmetricgrpc.WithDialOption(dial...), otlpmetricgrpc.WithHeaders(headers))
	}
	exporter, err := otlpmetricgrpc.New(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("making a sender of metrics: %w", err)
	}
	return exporter, nil
}

func newSpanExporter(ctx context.Context, endpoint, project string) (sdktrace.SpanExporter, error) {
	opts := []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL(endpoint)}
	dial, headers, err := googleOptions(ctx, endpoint, project)
	if err != nil {
		return nil, err
	}
	if dial != nil {
		opts = append(opts, otlptracegrpc.WithDialOption(dial...), otlptracegrpc.WithHeaders(headers))
	}
	exporter, err := otlptracegrpc.New(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("making a sender of spans: %w", err)
	}
	return exporter, nil
}
