package functions

import (
	"fmt"
	"time"

	"tebraproxy/pkg/config"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// Common is what both functions that Pub/Sub pushes to are configured with.
type Common struct {
	config.Redis
	Target         string        `env:"FUNCTION_TARGET,required,notEmpty"`
	Port           int           `env:"PORT" envDefault:"8080"`
	PolicyFile     string        `env:"POLICY_FILE"`
	HandlerTimeout time.Duration `env:"HANDLER_TIMEOUT" envDefault:"90s"`
	AckDeadline    time.Duration `env:"ACK_DEADLINE" envDefault:"120s"`
	LedgerLease    time.Duration `env:"LEDGER_LEASE" envDefault:"150s"`
	LedgerTTL      time.Duration `env:"LEDGER_TTL" envDefault:"48h"`
	Telemetry      telemetry.Config
}

// Config is the configuration of ProcessRequest (DESIGN section 13).
type Config struct {
	Common
	config.PubSub
	PHPAPIURL      string        `env:"TEBRA_PHP_API_URL,required,notEmpty"`
	APIKey         string        `env:"TEBRA_INTERNAL_API_KEY,required,notEmpty"`
	PHPAPIAudience string        `env:"TEBRA_PHP_API_AUDIENCE"`
	PHPTimeout     time.Duration `env:"PHP_TIMEOUT" envDefault:"30s"`
	RateWait       time.Duration `env:"RATE_WAIT" envDefault:"45s"`
	LedgerReplicas int           `env:"LEDGER_REPLICAS" envDefault:"0"`
}

// RecorderConfig is the configuration of RecordDeadLetter. It calls nobody, so it
// knows neither the API nor its key, and it publishes nothing.
type RecorderConfig struct{ Common }

// The functions' names, as FUNCTION_TARGET has them.
const (
	ProcessRequest   = "ProcessRequest"
	RecordDeadLetter = "RecordDeadLetter"
)

// What the subscription of ProcessRequest is deployed with (DESIGN section 6), and
// what Pub/Sub allows (FACTS, Pub/Sub).
const (
	subscriptionRetention = 24 * time.Hour
	// totalBackoff is what ten attempts, 10 s to 600 s apart, take together.
	totalBackoff                   = 2430 * time.Second
	minAckDeadline, maxAckDeadline = 10 * time.Second, 600 * time.Second
)

// maxReplicas is more than anybody has.
const maxReplicas = 10

// Validate returns everything that is wrong with c, a line each; above all
// deadlines that do not nest, because then an answer could be given up on while
// it is being made.
func (c *Config) Validate() []string {
	var p problems
	if c.Target != ProcessRequest && c.Target != RecordDeadLetter { // a local run serves both with one configuration
		p.add("FUNCTION_TARGET is neither %s nor %s nor Gateway", ProcessRequest, RecordDeadLetter)
	}
	if c.LedgerReplicas < 0 || c.LedgerReplicas > maxReplicas {
		p.add("LEDGER_REPLICAS is %d: want 0 to %d", c.LedgerReplicas, maxReplicas)
	}
	c.validateAPI(&p)
	p.positive("PHP_TIMEOUT", c.PHPTimeout)
	p.positive("RATE_WAIT", c.RateWait)
	p.nested(fmt.Sprintf("RATE_WAIT + PHP_TIMEOUT + %v to look up roles", rolesTimeout),
		c.RateWait+c.PHPTimeout+rolesTimeout, "HANDLER_TIMEOUT", c.HandlerTimeout)
	c.validate(&p)
	return p
}

// Validate returns everything that is wrong with c, a line each.
func (c *RecorderConfig) Validate() []string {
	var p problems
	p.positive("HANDLER_TIMEOUT", c.HandlerTimeout)
	c.validate(&p)
	return p
}

// validateAPI asks the client itself what it would say, of one variable at a time.
func (c *Config) validateAPI(p *problems) {
	if _, err := php.New(php.Config{URL: c.PHPAPIURL, APIKey: "any"}); err != nil {
		p.add("TEBRA_PHP_API_URL: %v", err)
	}
	if _, err := php.New(php.Config{URL: "http://any", APIKey: c.APIKey}); err != nil {
		p.add("TEBRA_INTERNAL_API_KEY: %v", err)
	}
}

func (c *Common) validate(p *problems) {
	if _, err := tebra.NewKeys(c.Prefix); err != nil {
		p.add("STREAM_PREFIX: %v", err)
	}
	if c.Port < 0 || c.Port > 65535 {
		p.add("PORT is %d: want 0 (any free port) to 65535", c.Port)
	}
	if c.AckDeadline < minAckDeadline || c.AckDeadline > maxAckDeadline {
		p.add("ACK_DEADLINE is %v: Pub/Sub allows %v to %v", c.AckDeadline, minAckDeadline, maxAckDeadline)
	}
	p.nested("HANDLER_TIMEOUT", c.HandlerTimeout, "ACK_DEADLINE", c.AckDeadline)
	p.nested("ACK_DEADLINE", c.AckDeadline, "LEDGER_LEASE", c.LedgerLease)
	// Else a write that waited for its turn could never be started.
	p.nested(fmt.Sprintf("HANDLER_TIMEOUT + %v to answer", startMargin), c.HandlerTimeout+startMargin, "LEDGER_LEASE", c.LedgerLease)
	p.nested("LEDGER_LEASE", c.LedgerLease, "the backoff of all attempts together", totalBackoff)
	p.nested("the retention of the subscription", subscriptionRetention, "LEDGER_TTL", c.LedgerTTL)
	*p = append(*p, c.Telemetry.Problems()...)
}

// problems is what is wrong with a configuration, a line each.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

func (p *problems) positive(name string, d time.Duration) {
	if d <= 0 {
		p.add("%s is %v: want more than 0s", name, d)
	}
}

func (p *problems) nested(inner string, in time.Duration, outer string, out time.Duration) {
	if in >= out {
		p.add("%s (%v) must be less than %s (%v)", inner, in, outer, out)
	}
}
