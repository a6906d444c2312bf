package gateway

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"tebraproxy/pkg/config"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// Target is the function's name, as FUNCTION_TARGET has it.
const Target = "Gateway"

// Config is the gateway's configuration (DESIGN section 13). It knows neither
// topics nor the API.
type Config struct {
	config.Redis
	Target          string        `env:"FUNCTION_TARGET,required,notEmpty"`
	Port            int           `env:"PORT" envDefault:"8080"`
	Project         string        `env:"GOOGLE_CLOUD_PROJECT,required,notEmpty"` // whose Firebase tokens are believed
	Origins         []string      `env:"GATEWAY_ORIGINS"`
	UserRate        int           `env:"GATEWAY_USER_RATE" envDefault:"120"`
	StreamTime      time.Duration `env:"GATEWAY_STREAM_TIME" envDefault:"50m"`
	MaxStreams      int           `env:"GATEWAY_MAX_STREAMS" envDefault:"10000"`
	MaxUserStreams  int           `env:"GATEWAY_MAX_USER_STREAMS" envDefault:"20"`
	MaxRequestBytes int           `env:"MAX_REQUEST_BYTES" envDefault:"1048576"`
	Retention       time.Duration `env:"RETENTION" envDefault:"24h"`
	Telemetry       telemetry.Config
}

// Bounds of the configuration.
const (
	// mostUserRate is what the shared limiter can count (package rate's burst).
	mostUserRate = 1000
	mostOrigins  = 100
	mostStreams  = 100_000
	// longestStream is below Cloud Run's longest request.
	longestStream  = 59 * time.Minute
	shortestStream = time.Second
	leastRequest   = 1 << 10
	mostRequest    = 8 << 20
)

// Validate returns everything that is wrong with c, a line each. It puts the
// origins into the form that browsers send.
func (c *Config) Validate() []string {
	var found []string
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if _, err := tebra.NewKeys(c.Prefix); err != nil {
		add("STREAM_PREFIX: %v", err)
	}
	if c.Target != Target {
		add("FUNCTION_TARGET is not %s", Target)
	}
	between := func(name string, value, least, most int) {
		if value < least || value > most {
			add("%s is %d: want %d to %d", name, value, least, most)
		}
	}
	between("PORT", c.Port, 0, 65535)
	between("GATEWAY_USER_RATE", c.UserRate, 1, mostUserRate)
	between("GATEWAY_MAX_STREAMS", c.MaxStreams, 1, mostStreams)
	between("GATEWAY_MAX_USER_STREAMS", c.MaxUserStreams, 1, mostStreams)
	between("MAX_REQUEST_BYTES", c.MaxRequestBytes, leastRequest, mostRequest)
	if c.StreamTime < shortestStream || c.StreamTime > longestStream {
		add("GATEWAY_STREAM_TIME is %v: want %v to %v, which is shorter than Cloud Run's longest request", c.StreamTime, shortestStream, longestStream)
	}
	if c.Retention <= 0 {
		add("RETENTION is %v: want more than 0s", c.Retention)
	}
	if len(c.Origins) > mostOrigins {
		add("GATEWAY_ORIGINS names %d origins: want at most %d", len(c.Origins), mostOrigins)
	}
	for i, text := range c.Origins {
		origin, err := ParseOrigin(text)
		if err != nil {
			add("GATEWAY_ORIGINS: number %d %v", i+1, err)
		}
		c.Origins[i] = origin
	}
	return append(found, c.Telemetry.Problems()...)
}

// ParseOrigin reads an origin and returns it as browsers write it: the scheme and
// the host in small letters, and no port where it is the scheme's own.
func ParseOrigin(text string) (string, error) {
	text = strings.TrimSpace(text)
	if strings.Contains(text, "*") {
		return "", fmt.Errorf("has a wildcard: name each origin, such as https://app.example.com")
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", fmt.Errorf("is no origin: want scheme://host or scheme://host:port, such as https://app.example.com")
	}
	if u.User != nil || strings.TrimPrefix(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("is more than an origin: want scheme://host or scheme://host:port and nothing after it")
	}
	host := strings.ToLower(u.Host)
	if port := u.Port(); port == "" || port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return u.Scheme + "://" + host, nil
}
