package bridge

import (
	"fmt"
	"time"

	"tebraproxy/pkg/config"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// Config is the bridge's configuration (DESIGN section 13).
type Config struct {
	config.Redis
	config.PubSub
	MaxInFlight     int           `env:"MAX_IN_FLIGHT" envDefault:"1000"`
	BatchSize       int           `env:"BATCH_SIZE" envDefault:"500"`
	Retention       time.Duration `env:"RETENTION" envDefault:"24h"`
	AnswerDeadline  time.Duration `env:"ANSWER_DEADLINE" envDefault:"2h"`
	ClaimIdle       time.Duration `env:"CLAIM_IDLE" envDefault:"150s"`
	MaxRequestBytes int           `env:"MAX_REQUEST_BYTES" envDefault:"1048576"`
	LedgerTTL       time.Duration `env:"LEDGER_TTL" envDefault:"48h"`
	PolicyFile      string        `env:"POLICY_FILE"`
	HealthPort      int           `env:"HEALTH_PORT" envDefault:"8080"`
	Telemetry       telemetry.Config
}

// Bounds of the configuration.
const (
	// maxBatch is what one publish request carries, and few enough for the
	// arguments of a Lua script.
	maxBatch = publish.MaxMessages
	// maxMessageBytes leaves room for attributes below Pub/Sub's 10 MB.
	maxMessageBytes = 8 << 20
)

// Validate returns everything that is wrong with c, a line each.
func (c *Config) Validate() []string {
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if _, err := tebra.NewKeys(c.Prefix); err != nil {
		wrong("STREAM_PREFIX: %v", err)
	}
	if _, err := stream.Options(c.URL, c.CACert); err != nil {
		wrong("%v", err)
	}
	if _, err := policy.Load(c.PolicyFile); err != nil {
		wrong("%v", err)
	}
	if c.MaxInFlight < 1 || c.MaxInFlight > 1_000_000 {
		wrong("MAX_IN_FLIGHT is %d: want 1 to 1000000 requests", c.MaxInFlight)
	}
	if c.BatchSize < 1 || c.BatchSize > maxBatch {
		wrong("BATCH_SIZE is %d: want 1 to %d entries", c.BatchSize, maxBatch)
	}
	if c.MaxRequestBytes < 1024 || c.MaxRequestBytes > maxMessageBytes {
		wrong("MAX_REQUEST_BYTES is %d: want 1024 to %d", c.MaxRequestBytes, maxMessageBytes)
	}
	if c.ClaimIdle < time.Second {
		wrong("CLAIM_IDLE is %v: want at least 1s", c.ClaimIdle)
	}
	if c.AnswerDeadline <= c.ClaimIdle {
		wrong("ANSWER_DEADLINE (%v) must be longer than CLAIM_IDLE (%v)", c.AnswerDeadline, c.ClaimIdle)
	}
	if c.Retention < c.AnswerDeadline {
		wrong("RETENTION (%v) must be at least ANSWER_DEADLINE (%v)", c.Retention, c.AnswerDeadline)
	}
	if c.LedgerTTL < c.Retention {
		wrong("LEDGER_TTL (%v) must be at least RETENTION (%v)", c.LedgerTTL, c.Retention)
	}
	if c.HealthPort < 0 || c.HealthPort > 65535 {
		wrong("HEALTH_PORT is %d: want 0 (any free port) to 65535", c.HealthPort)
	}
	return append(problems, c.Telemetry.Problems()...)
}
