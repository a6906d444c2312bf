package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/deadletters"
	"tebraproxy/bridge/internal/inspect"
)

const (
	// countQuiet is how long nothing may come before all are believed to be counted:
	// less than for the list, which has to be whole.
	countQuiet = time.Second
	// countTime bounds how long is counted.
	countTime = 10 * time.Second
	// countEvery is how long a count is good for.
	countEvery = time.Minute
)

// letterCounter counts the dead letters that wait, at most once a minute. Its close
// must be called.
type letterCounter struct {
	desk *desk
	now  func() time.Time
	err  error // why they can't be counted at all

	counted inspect.DeadLetters
	failed  error
	at      time.Time
}

var _ inspect.DeadLetterCounter = (*letterCounter)(nil)

// letterCounter returns what counts the dead letters, or nil where nobody wants that.
func (a *app) letterCounter(cmd *cobra.Command, o statusOptions) *letterCounter {
	if !o.count {
		return nil
	}
	o.letters.pipeline, o.letters.wait = o.pipeline, countQuiet
	desk, err := o.letters.open(cmd, a)
	return &letterCounter{desk: desk, now: a.now, err: err}
}

func (c *letterCounter) close() {
	if c.desk != nil {
		c.desk.close()
	}
}

// Count returns how many wait. All are left where they were.
func (c *letterCounter) Count(ctx context.Context) (inspect.DeadLetters, error) {
	if c.err != nil {
		return inspect.DeadLetters{}, c.err
	}
	if c.at.IsZero() || c.now().Sub(c.at) >= countEvery {
		c.counted, c.failed = c.count(ctx)
		c.at = c.now()
	}
	return c.counted, c.failed
}

func (c *letterCounter) count(ctx context.Context) (inspect.DeadLetters, error) {
	bounded, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	found, err := c.desk.List(bounded, deadletters.Filter{})
	if err != nil && found.Seen > 0 && errors.Is(err, context.DeadlineExceeded) {
		return inspect.DeadLetters{Waiting: found.Seen, More: true}, nil
	}
	if err != nil {
		return inspect.DeadLetters{}, c.desk.trouble(ctx, err, "some dead letters were not counted")
	}
	return inspect.DeadLetters{Waiting: found.Seen, More: found.More}, nil
}
