package functions

import (
	"fmt"
	"net/url"
	"time"

	"tebraproxy/pkg/config"
	"tebraproxy/pkg/tebra"
)

// Config is the functions' configuration (DESIGN section 13).
type Config struct {
	config.Redis
	config.PubSub
	Target         string        `env:"FUNCTION_TARGET,required,notEmpty"`
	Port           int           `env:"PORT" envDefault:"8080"`
	PHPAPIURL      string        `env:"TEBRA_PHP_API_URL,required,notEmpty"`
	APIKey         string        `env:"TEBRA_INTERNAL_API_KEY,required,notEmpty"`
	PHPAPIAudience string        `env:"TEBRA_PHP_API_AUDIENCE"`
	PolicyFile     string        `env:"POLICY_FILE"`
	PHPTimeout     time.Duration `env:"PHP_TIMEOUT" envDefault:"30s"`
	HandlerTimeout time.Duration `env:"HANDLER_TIMEOUT" envDefault:"90s"`
	AckDeadline    time.Duration `env:"ACK_DEADLINE" envDefault:"120s"`
	LedgerLease    time.Duration `env:"LEDGER_LEASE" envDefault:"150s"`
	RateWait       time.Duration `env:"RATE_WAIT" envDefault:"45s"`
	LedgerTTL      time.Duration `env:"LEDGER_TTL" envDefault:"48h"`
	LedgerReplicas int           `env:"LEDGER_REPLICAS" envDefault:"0"`
}

// The functions' names, as FUNCTION_TARGET has them.
const (
	ProcessRequest   = "ProcessRequest"
	RecordDeadLetter = "RecordDeadLetter"
)

// subscriptionRetention is how long Pub/Sub keeps a request that is not
// acknowledged (DESIGN section 6); a record must outlive it.
const subscriptionRetention = 24 * time.Hour

// maxAckDeadline is Pub/Sub's bound (FACTS, Pub/Sub).
const maxAckDeadline = 600 * time.Second

// Validate returns everything that is wrong with c, a line each; above all
// deadlines that do not nest, because then an answer could be given up on while
// it is being made.
func (c *Config) Validate() []string {
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if _, err := tebra.NewKeys(c.Prefix); err != nil {
		wrong("STREAM_PREFIX: %v", err)
	}
	if c.Target != ProcessRequest && c.Target != RecordDeadLetter {
		wrong("FUNCTION_TARGET is neither %s nor %s", ProcessRequest, RecordDeadLetter)
	}
	if c.Port < 0 || c.Port > 65535 {
		wrong("PORT is %d: want 0 (any free port) to 65535", c.Port)
	}
	if u, err := url.Parse(c.PHPAPIURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		wrong("TEBRA_PHP_API_URL is not an http or https URL")
	}
	for name, d := range map[string]time.Duration{"PHP_TIMEOUT": c.PHPTimeout, "RATE_WAIT": c.RateWait} {
		if d <= 0 {
			wrong("%s is %v: want more than 0s", name, d)
		}
	}
	nested := func(inner string, in time.Duration, outer string, out time.Duration) {
		if in >= out {
			wrong("%s (%v) must be less than %s (%v)", inner, in, outer, out)
		}
	}
	nested("RATE_WAIT + PHP_TIMEOUT", c.RateWait+c.PHPTimeout, "HANDLER_TIMEOUT", c.HandlerTimeout)
	nested("HANDLER_TIMEOUT", c.HandlerTimeout, "ACK_DEADLINE", c.AckDeadline)
	nested("ACK_DEADLINE", c.AckDeadline, "LEDGER_LEASE", c.LedgerLease)
	nested("the retention of the subscription", subscriptionRetention, "LEDGER_TTL", c.LedgerTTL)
	if c.AckDeadline > maxAckDeadline {
		wrong("ACK_DEADLINE is %v: Pub/Sub knows at most %v", c.AckDeadline, maxAckDeadline)
	}
	if c.LedgerReplicas < 0 || c.LedgerReplicas > 10 {
		wrong("LEDGER_REPLICAS is %d: want 0 to 10", c.LedgerReplicas)
	}
	return problems
}
