package peertest

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// AfterFirst returns a hook that does something, once, when the next command of its
// client was answered: what happens between two commands of one operation. Pipelines
// count as none. What it does must go through another client.
func AfterFirst(do func()) redis.Hook { return afterFirst(sync.OnceFunc(do)) }

type afterFirst func()

func (do afterFirst) DialHook(next redis.DialHook) redis.DialHook { return next }

func (do afterFirst) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (do afterFirst) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if err == nil {
			do()
		}
		return err
	}
}
