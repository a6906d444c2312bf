package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/tebra"
)

// looking is an open pipeline that is looked at. Its close must be called.
type looking struct {
	*inspect.Inspector
	keys  tebra.Keys
	where string // the address of Redis, without secrets
	rdb   *redis.Client
}

func (l *looking) close() { _ = l.rdb.Close() } // nothing was written that could be lost

// look opens the pipeline that the flags name.
func (a *app) look(cmd *cobra.Command, f pipelineFlags) (*looking, error) {
	target, err := f.find(cmd.Context(), a.env, cmd.Flags())
	if err != nil {
		return nil, err
	}
	rules, err := a.rules(target)
	if err != nil {
		return nil, err
	}
	rdb := redis.NewClient(target.redis)
	return &looking{
		Inspector: inspect.New(rdb, target.keys, rules), keys: target.keys, where: target.redis.Addr, rdb: rdb,
	}, nil
}

// rules returns what POLICY_FILE holds, as bridges and functions read it, else the
// known actions and lanes. A local run doesn't go by the environment.
func (a *app) rules(target pipeline) (*policy.Policy, error) {
	if path := a.env["POLICY_FILE"]; path != "" && !target.local {
		return policy.Load(path)
	}
	return policy.Default(), nil
}

// cantLook is the error of a Redis that can't be looked at.
func cantLook(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w while looking", errInterrupted)
	}
	return fmt.Errorf("%w; is Redis running there, and may this user read it? 'tebra doctor' looks into it", err)
}

// stateWord is a request's state for people, who are told as well what has none
// yet.
func stateWord(r inspect.Request) cell {
	switch {
	case r.State == tebra.Success:
		return painted(good, r.State)
	case r.State == tebra.Failed:
		return painted(bad, r.State)
	case r.State == tebra.Processing:
		return painted(active, r.State)
	case r.State != "":
		return word(r.State)
	case r.ErrorCode != "":
		return painted(bad, "unanswerable")
	default:
		return painted(dimmed, "unread")
	}
}

// requestObject is a request for programs.
type requestObject struct {
	inspect.Request
	TookMillis *int64 `json:"tookMs,omitempty"` // nil where it isn't known
}

func asObject(r inspect.Request, now time.Time) requestObject {
	o := requestObject{Request: r}
	if took, known := r.Took(now); known {
		millis := took.Milliseconds()
		o.TookMillis = &millis
	}
	return o
}

// timeTaken is how long a request took, "" where that isn't known.
func timeTaken(r inspect.Request, now time.Time) string {
	if took, known := r.Took(now); known {
		return roundly(took)
	}
	return ""
}

// completeStates offers the four words.
func completeStates() cobra.CompletionFunc {
	return cobra.FixedCompletions([]string{
		string(tebra.Pending), string(tebra.Processing), string(tebra.Success), string(tebra.Failed),
	}, cobra.ShellCompDirectiveNoFileComp)
}

// requestFlags say which requests are meant.
type requestFlags struct{ user, action string }

func (f *requestFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.user, "user", "", "only requests of the user with this `ID`")
	cmd.Flags().StringVar(&f.action, "action", "", "only requests for this `action`")
	// The completion can only fail for a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc("action", completeAction)
}

func (f *requestFlags) filter() inspect.Filter {
	return inspect.Filter{UserID: f.user, Action: f.action}
}
