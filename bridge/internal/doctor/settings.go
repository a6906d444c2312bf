package doctor

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"tebraproxy/bridge"
	"tebraproxy/functions"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/policy"
)

// settings checks the variables of this environment as the programs would. What
// they require and this environment does not have is not asked for: it is often
// not theirs.
func (e *examination) settings(context.Context) {
	a := e.area("settings")
	ours, err := config.Load[functions.Config](e.complete("FUNCTION_TARGET=" + functions.ProcessRequest))
	problems := problemsOf(err)
	if len(problems) == 0 {
		problems = policyProblems(e.Policy.Check(policy.Limits{PHPTimeout: ours.PHPTimeout, LedgerTTL: ours.LedgerTTL}))
	}
	tell(a, "functions", problems, "waiting for a turn and the call < handler < ack deadline < lease")
	_, err = config.Load[bridge.Config](e.complete())
	tell(a, "bridge", problemsOf(err), "batches, deadlines and retention fit together")
}

func tell(a area, check string, problems []string, good string) {
	if len(problems) == 0 {
		a.ok(check, "%s", good)
		return
	}
	for _, p := range problems {
		a.fail(check, p, "correct it: the program refuses to start so")
	}
}

// complete returns the environment, with something in the place of what is
// required and not there.
func (e *examination) complete(more ...string) []string {
	have := env.ToMap(e.Environ)
	all := append([]string(nil), e.Environ...)
	for name, value := range map[string]string{
		"REDIS_URL": "redis://any:6379", "GOOGLE_CLOUD_PROJECT": "any",
		"TEBRA_PHP_API_URL": "http://any/api", "TEBRA_INTERNAL_API_KEY": "any",
	} {
		if have[name] == "" {
			all = append(all, name+"="+value)
		}
	}
	return append(all, more...)
}

func problemsOf(err error) []string {
	var wrong *config.Error
	if errors.As(err, &wrong) {
		return wrong.Problems
	}
	return nil
}

func policyProblems(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// ackDeadline is what the functions of this environment take for the ack deadline.
func (e *examination) ackDeadline() time.Duration {
	ours, err := config.Load[functions.Config](e.complete("FUNCTION_TARGET=" + functions.ProcessRequest))
	if err != nil || ours.AckDeadline == 0 {
		return wantAckDeadline
	}
	return ours.AckDeadline
}
