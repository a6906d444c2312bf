package local

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/config"
)

func TestDefaultsAreProductionsRetryPolicy(t *testing.T) {
	t.Parallel()
	o := DefaultOptions()
	if err := o.Validate(); err != nil {
		t.Fatalf("DefaultOptions().Validate() = %v, want nil", err)
	}
	if o.MinBackoff != 10*time.Second || o.MaxBackoff != 600*time.Second || o.MaxAttempts != 10 {
		t.Errorf("DefaultOptions() = %v, %v, %d attempts, want 10s, 10m0s, 10", o.MinBackoff, o.MaxBackoff, o.MaxAttempts)
	}
}

func TestValidateAdmitsTheBounds(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*Options){
		"no backoff":        func(o *Options) { o.MinBackoff, o.MaxBackoff = 0, 0 },
		"longest backoff":   func(o *Options) { o.MinBackoff, o.MaxBackoff = 600*time.Second, 600*time.Second },
		"fast":              func(o *Options) { o.MinBackoff, o.MaxBackoff = FastMinBackoff, FastMaxBackoff },
		"fewest attempts":   func(o *Options) { o.MaxAttempts = 5 },
		"most attempts":     func(o *Options) { o.MaxAttempts = 100 },
		"most instances":    func(o *Options) { o.Instances = 10 },
		"shortest project":  func(o *Options) { o.Project = "abc" },
		"cluster prefix":    func(o *Options) { o.Prefix = "{tebra:0}" },
		"a real Redis":      func(o *Options) { o.Redis = "rediss://:secret@redis.example:6378/1" },
		"a real emulator":   func(o *Options) { o.PubSubEmulator = "[::1]:8085" },
		"a real API, https": func(o *Options) { o.PHPAPI, o.PHPAPIKey = "https://api.example/api", "k" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := DefaultOptions()
			change(&o)
			if err := o.Validate(); err != nil {
				t.Errorf("Validate() = %v, want nil", err)
			}
		})
	}
}

func TestValidateNamesTheFlagAtFault(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"redis", func(o *Options) { o.Redis = "redis.example:6379" }, "--redis: "},
		{"certificate without TLS", func(o *Options) { o.Redis, o.RedisCACert = "redis://redis.example", "ca.pem" }, "--redis: "},
		{"certificate without Redis", func(o *Options) { o.RedisCACert = "ca.pem" }, "--redis: "},
		{"instances", func(o *Options) { o.Instances = 11 }, "Instances is 11"},
		{"instances below none", func(o *Options) { o.Instances = -1 }, "Instances is -1"},
		{"emulator", func(o *Options) { o.PubSubEmulator = "http://127.0.0.1" }, "--pubsub-emulator is"},
		{"API without scheme", func(o *Options) { o.PHPAPI, o.PHPAPIKey = "api.example", "k" }, "--php-api: "},
		{"API without host", func(o *Options) { o.PHPAPI, o.PHPAPIKey = "https:///api", "k" }, "--php-api: "},
		{"API without key", func(o *Options) { o.PHPAPI = "https://api.example" }, "--php-api and its key"},
		{"key without API", func(o *Options) { o.PHPAPIKey = "k" }, "--php-api and its key"},
		{"prefix", func(o *Options) { o.Prefix = "a b" }, "--prefix: "},
		{"gateway's origin", func(o *Options) { o.GatewayOrigins = []string{"http://a", "*"} }, "--gateway: number 2 has a wildcard"},
		{"gateway's port", func(o *Options) { o.GatewayOrigins, o.GatewayPort = []string{"http://a"}, 65536 }, "--gateway-port is 65536"},
		{"port of no gateway", func(o *Options) { o.GatewayPort = 80 }, "--gateway-port goes with --gateway"},
		{"project", func(o *Options) { o.Project = "ab" }, "--project is"},
		{"negative minimum", func(o *Options) { o.MinBackoff = -1 }, "--min-backoff is"},
		{"long minimum", func(o *Options) { o.MinBackoff = 600*time.Second + 1 }, "--min-backoff is"},
		{"negative maximum", func(o *Options) { o.MaxBackoff = -1 }, "--max-backoff is"},
		{"long maximum", func(o *Options) { o.MaxBackoff = 600*time.Second + 1 }, "--max-backoff is"},
		{"crossed", func(o *Options) { o.MinBackoff, o.MaxBackoff = 2, 1 }, "--min-backoff (2ns) is longer"},
		{"few attempts", func(o *Options) { o.MaxAttempts = 4 }, "--max-attempts is 4"},
		{"many attempts", func(o *Options) { o.MaxAttempts = 101 }, "--max-attempts is 101"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := DefaultOptions()
			test.change(&o)
			var wrong *config.Error
			if err := o.Validate(); !errors.As(err, &wrong) {
				t.Fatalf("Validate() = %v, want a *config.Error", err)
			}
			if !slices.ContainsFunc(wrong.Problems, func(p string) bool { return strings.HasPrefix(p, test.want) }) {
				t.Errorf("Validate() = %q, want one that begins with %q", wrong.Problems, test.want)
			}
		})
	}
}

func TestValidateReportsEverythingAtOnceAndNoSecret(t *testing.T) {
	t.Parallel()
	o := Options{Redis: "http://:secret@redis.example", PHPAPI: "ftp://u:secret@api.example", MaxAttempts: 10}
	var wrong *config.Error
	if err := o.Validate(); !errors.As(err, &wrong) || len(wrong.Problems) != 5 {
		t.Fatalf("Validate() = %v, want 5 problems: Redis, API, its key, prefix, project", err)
	}
	if strings.Contains(wrong.Error(), "secret") {
		t.Errorf("Validate() = %v holds a password", wrong)
	}
}
