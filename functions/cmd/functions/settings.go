package main

import (
	"errors"

	"github.com/caarlos0/env/v11"
	"github.com/redis/go-redis/v9"

	"tebraproxy/functions"
	"tebraproxy/functions/firebase"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/stream"
)

// settings is the configuration with what its variables stand for.
type settings struct {
	functions.Config
	rules *policy.Policy
	redis *redis.Options
}

// load reads everything that is configured. Its error is a [*config.Error] with
// all that is wrong.
func load(environ []string) (settings, error) {
	var s settings
	var found []error
	keep := func(err error) {
		if err != nil {
			found = append(found, err)
		}
	}
	variables := env.ToMap(environ)
	lookup := func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok
	}
	var wrong, err error
	s.Config, wrong = config.Load[functions.Config](environ)
	keep(wrong)
	keep(firebase.CheckEnvironment(lookup))
	s.rules, err = policy.Load(s.PolicyFile)
	keep(err)
	if err == nil {
		keep(checkUsers(s.rules, lookup))
	}
	if err == nil && wrong == nil {
		keep(s.rules.Check(policy.Limits{PHPTimeout: s.PHPTimeout, LedgerTTL: s.LedgerTTL}))
	}
	if s.URL != "" { // else it is reported as missing
		s.redis, err = stream.Options(s.URL, s.CACert)
		keep(err)
	}
	return s, join(found)
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
