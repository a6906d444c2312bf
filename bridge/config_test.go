package bridge

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/config"
)

// needed is the least that a bridge has to be told.
var needed = []string{"REDIS_URL=redis://localhost:6379", "GOOGLE_CLOUD_PROJECT=p"}

func TestTheDefaultsAreThoseOfTheDesign(t *testing.T) {
	t.Parallel()
	c, err := config.Load[Config](needed)
	if err != nil {
		t.Fatalf("Load() = %v", err)
	}
	for name, v := range map[string]struct{ got, want any }{
		"STREAM_PREFIX": {c.Prefix, "tebra"}, "REQUESTS_TOPIC": {c.Requests(), "projects/p/topics/tebra-requests"},
		"DEAD_LETTERS_TOPIC": {c.DeadLetters(), "projects/p/topics/tebra-dead-letters"},
		"MAX_IN_FLIGHT":      {c.MaxInFlight, 1000}, "BATCH_SIZE": {c.BatchSize, 500}, "RETENTION": {c.Retention, 24 * time.Hour},
		"ANSWER_DEADLINE": {c.AnswerDeadline, 2 * time.Hour}, "CLAIM_IDLE": {c.ClaimIdle, 150 * time.Second},
		"MAX_REQUEST_BYTES": {c.MaxRequestBytes, 1 << 20}, "LEDGER_TTL": {c.LedgerTTL, 48 * time.Hour}, "HEALTH_PORT": {c.HealthPort, 8080},
	} {
		if v.got != v.want {
			t.Errorf("default of %s = %v, want %v", name, v.got, v.want)
		}
	}
}

func TestEachBadVariableIsNamed(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(broken, []byte("version: 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	for variable, values := range map[string][]string{
		"REDIS_URL":            {"", "localhost:6379", "http://localhost"},
		"REDIS_CA_CERT":        {"/does/not/exist", "-----BEGIN nonsense"},
		"GOOGLE_CLOUD_PROJECT": {""},
		"STREAM_PREFIX":        {"a b", ":", "{", strings.Repeat("x", 100)},
		"MAX_IN_FLIGHT":        {"0", "-1", "1000001", "many"},
		"BATCH_SIZE":           {"0", "1001", "1.5"},
		"MAX_REQUEST_BYTES":    {"1023", "8388609"},
		"CLAIM_IDLE":           {"0s", "999ms", "150"},
		"ANSWER_DEADLINE":      {"150s", "25h"},
		"RETENTION":            {"1h", "49h"},
		"LEDGER_TTL":           {"1h", "soon"},
		"POLICY_FILE":          {"/does/not/exist", broken},
		"HEALTH_PORT":          {"-1", "65536"},
	} {
		for _, value := range values {
			environ := append(slices.Clone(needed), variable+"="+value)
			_, err := config.Load[Config](environ)
			var bad *config.Error
			if !errors.As(err, &bad) || len(bad.Problems) != 1 || !strings.Contains(bad.Problems[0], variable) {
				t.Errorf("Load() with %s=%q = %v, want one problem that names it", variable, value, err)
			}
		}
	}
}

func TestWhatIsJustAllowedIsAllowed(t *testing.T) {
	t.Parallel()
	for _, more := range [][]string{
		{"BATCH_SIZE=1"}, {"BATCH_SIZE=1000"}, {"MAX_IN_FLIGHT=1"}, {"MAX_IN_FLIGHT=1000000"},
		{"MAX_REQUEST_BYTES=1024"}, {"MAX_REQUEST_BYTES=8388608"}, {"CLAIM_IDLE=1s", "ANSWER_DEADLINE=1001ms"},
		{"RETENTION=48h"}, {"RETENTION=2h"}, {"HEALTH_PORT=0"}, {"STREAM_PREFIX={tebra:0}"}, {"REDIS_URL=rediss://u:p@h:6378/1"},
	} {
		if _, err := config.Load[Config](append(slices.Clone(needed), more...)); err != nil {
			t.Errorf("Load() with %v = %v, want nil", more, err)
		}
	}
}

func TestAllBadVariablesComeAtOnceAndNoSecretWithThem(t *testing.T) {
	t.Parallel()
	_, err := config.Load[Config]([]string{
		"REDIS_URL=http://user:secret@h", "BATCH_SIZE=many", "MAX_IN_FLIGHT=0", "CLAIM_IDLE=1ms", "HEALTH_PORT=99999", "POLICY_FILE=/none", "STREAM_PREFIX=a b",
	})
	var bad *config.Error
	if !errors.As(err, &bad) {
		t.Fatalf("Load() = %v, want a config.Error", err)
	}
	for _, name := range []string{"REDIS_URL", "GOOGLE_CLOUD_PROJECT", "BATCH_SIZE", "MAX_IN_FLIGHT", "CLAIM_IDLE", "HEALTH_PORT", "POLICY_FILE", "STREAM_PREFIX"} {
		n := 0
		for _, p := range bad.Problems {
			if strings.Contains(p, name) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d problems name %s, want 1: %q", n, name, bad.Problems)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("Load() = %v, want no password in it", err)
	}
}
