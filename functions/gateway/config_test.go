package gateway

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"tebraproxy/pkg/config"
)

// loaded reads the gateway's configuration from the least that is needed and more.
func loaded(more ...string) (Config, error) {
	return config.Load[Config](append([]string{
		"REDIS_URL=redis://localhost", "GOOGLE_CLOUD_PROJECT=demo", "FUNCTION_TARGET=Gateway",
	}, more...))
}

func TestOriginsAreAsBrowsersWriteThem(t *testing.T) {
	t.Parallel()
	got, err := loaded("GATEWAY_ORIGINS=https://App.Example.com:443/, http://localhost:5173,http://x:80,https://y:8443,http://[::1]:3000")
	if err != nil {
		t.Fatalf("Load() = %v, want nil", err)
	}
	want := []string{"https://app.example.com", "http://localhost:5173", "http://x", "https://y:8443", "http://[::1]:3000"}
	if !slices.Equal(got.Origins, want) {
		t.Errorf("Origins = %q, want %q", got.Origins, want)
	}
	if got, err := loaded("GATEWAY_ORIGINS="); err != nil || len(got.Origins) != 0 {
		t.Errorf("Load() without origins = %q, %v, want none", got.Origins, err)
	}
}

// TestEveryRuleHasItsBoundary: one step beyond it is refused, naming the variable,
// and the boundary itself is admitted.
func TestEveryRuleHasItsBoundary(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ refused, admitted string }{
		{"GATEWAY_ORIGINS=*", "GATEWAY_ORIGINS=https://a"},
		{"GATEWAY_ORIGINS=https://*.example.com", "GATEWAY_ORIGINS=https://a.example.com"},
		{"GATEWAY_ORIGINS=null", "GATEWAY_ORIGINS=http://null"},
		{"GATEWAY_ORIGINS=https://a/path", "GATEWAY_ORIGINS=https://a/"},
		{"GATEWAY_ORIGINS=https://u:p@a", "GATEWAY_ORIGINS=https://a"},
		{"GATEWAY_ORIGINS=app.example.com", "GATEWAY_ORIGINS=http://app.example.com"},
		{"GATEWAY_ORIGINS=ftp://a", "GATEWAY_ORIGINS=http://a"},
		{"GATEWAY_USER_RATE=0", "GATEWAY_USER_RATE=1"},
		{"GATEWAY_USER_RATE=1001", "GATEWAY_USER_RATE=1000"},
		{"GATEWAY_STREAM_TIME=60m", "GATEWAY_STREAM_TIME=59m"},
		{"GATEWAY_STREAM_TIME=999ms", "GATEWAY_STREAM_TIME=1s"},
		{"GATEWAY_MAX_STREAMS=0", "GATEWAY_MAX_STREAMS=1"},
		{"GATEWAY_MAX_USER_STREAMS=0", "GATEWAY_MAX_USER_STREAMS=1"},
		{"MAX_REQUEST_BYTES=1023", "MAX_REQUEST_BYTES=1024"},
		{"RETENTION=0s", "RETENTION=1s"},
		{"PORT=65536", "PORT=65535"},
		{"FUNCTION_TARGET=gateway", "FUNCTION_TARGET=Gateway"},
		{"STREAM_PREFIX=a b", "STREAM_PREFIX={tebra:0}"},
	} {
		t.Run(test.refused, func(t *testing.T) {
			t.Parallel()
			_, err := loaded(test.refused)
			var bad *config.Error
			name, _, _ := strings.Cut(test.refused, "=")
			if !errors.As(err, &bad) || len(bad.Problems) != 1 || !strings.Contains(bad.Problems[0], name) {
				t.Errorf("Load(%s) = %v, want one problem that names %s", test.refused, err, name)
			}
			if _, err := loaded(test.admitted); err != nil {
				t.Errorf("Load(%s) = %v, want nil", test.admitted, err)
			}
		})
	}
}

func TestTheGatewayReadsNoKeyAndNoTopic(t *testing.T) {
	t.Parallel()
	for _, name := range config.Variables[Config]() {
		if strings.HasPrefix(name, "TEBRA_") || strings.HasSuffix(name, "_TOPIC") || strings.HasPrefix(name, "PUBSUB") {
			t.Errorf("the gateway reads %s, which it has no use for", name)
		}
	}
}
