package main

import (
	"errors"

	"github.com/caarlos0/env/v11"
	"github.com/redis/go-redis/v9"

	"tebraproxy/functions"
	"tebraproxy/functions/firebase"
	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/stream"
)

// settings is the configuration of ProcessRequest with what its variables stand for.
type settings struct {
	functions.Config
	rules *policy.Policy
	redis *redis.Options
}

// recorderSettings is that of RecordDeadLetter.
type recorderSettings struct {
	functions.RecorderConfig
	rules *policy.Policy
	redis *redis.Options
}

// gatewaySettings is that of Gateway.
type gatewaySettings struct {
	gateway.Config
	redis *redis.Options
}

// findings gathers what is wrong.
type findings []error

func (f *findings) keep(err error) {
	if err != nil {
		*f = append(*f, err)
	}
}

// lookup finds variables in environ, as os.LookupEnv does in the process's own.
func lookup(environ []string) func(string) (string, bool) {
	variables := env.ToMap(environ)
	return func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok
	}
}

// targetOf returns the function that is asked for.
func targetOf(environ []string) string {
	target, _ := lookup(environ)("FUNCTION_TARGET")
	return target
}

// load reads everything that ProcessRequest is configured with. Its error, as
// that of the other two, is a [*config.Error] with all that is wrong.
func load(environ []string) (settings, error) {
	var s settings
	var found findings
	var wrong, err error
	s.Config, wrong = config.Load[functions.Config](environ)
	found.keep(wrong)
	found.keep(firebase.CheckEnvironment(lookup(environ)))
	s.rules, err = policy.Load(s.PolicyFile)
	found.keep(err)
	if err == nil {
		found.keep(checkUsers(s.rules, lookup(environ)))
	}
	if err == nil && wrong == nil {
		found.keep(s.rules.Check(policy.Limits{PHPTimeout: s.PHPTimeout, LedgerTTL: s.LedgerTTL}))
	}
	s.redis = found.redis(s.Redis)
	return s, join(found)
}

// loadRecorder reads everything that RecordDeadLetter is configured with.
func loadRecorder(environ []string) (recorderSettings, error) {
	var s recorderSettings
	var found findings
	var err error
	s.RecorderConfig, err = config.Load[functions.RecorderConfig](environ)
	found.keep(err)
	s.rules, err = policy.Load(s.PolicyFile)
	found.keep(err)
	s.redis = found.redis(s.Redis)
	return s, join(found)
}

// loadGateway reads everything that Gateway is configured with.
func loadGateway(environ []string) (gatewaySettings, error) {
	var s gatewaySettings
	var found findings
	var err error
	s.Config, err = config.Load[gateway.Config](environ)
	found.keep(err)
	found.keep(firebase.CheckEnvironment(lookup(environ)))
	s.redis = found.redis(s.Redis)
	return s, join(found)
}

// redis returns the options of a client of the configured Redis.
func (f *findings) redis(cfg config.Redis) *redis.Options {
	if cfg.URL == "" { // it is reported as missing
		return nil
	}
	options, err := stream.Options(cfg.URL, cfg.CACert)
	f.keep(err)
	return options
}

// cloudRunVariable is set by Cloud Run in every service (its container runtime
// contract).
const cloudRunVariable = "K_SERVICE"

// checkUsers returns an error where everybody would have roles on Cloud Run.
func checkUsers(rules *policy.Policy, lookup func(string) (string, bool)) error {
	static, ok := rules.Static()
	if _, deployed := lookup(cloudRunVariable); !ok || !deployed || !static.AdmitsAnyone() {
		return nil
	}
	return errors.New("POLICY_FILE gives roles to any user whatsoever (users: anyone), which is for a run on one's own machine: on Cloud Run, name the accounts, or use source: firebase")
}

// join makes one configuration error of several.
func join(found []error) error {
	var lines []string
	for _, err := range found {
		var bad *config.Error
		if errors.As(err, &bad) {
			lines = append(lines, bad.Problems...)
			continue
		}
		lines = append(lines, err.Error())
	}
	if len(lines) == 0 {
		return nil
	}
	return &config.Error{Problems: lines}
}
