package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/pflag"

	"tebraproxy/bridge/internal/local"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// pipelineFlags say which pipeline a command talks to.
type pipelineFlags struct{ redis, caCert, prefix string }

func (f *pipelineFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.redis, "redis", "", "`URL` of Redis, redis:// or rediss://, or @FILE that holds it (default REDIS_URL, else the running 'tebra local')")
	flags.StringVar(&f.caCert, "redis-ca-cert", "", "`PEM` text or file that a rediss:// URL trusts (default REDIS_CA_CERT)")
	flags.StringVar(&f.prefix, "prefix", "", "what all Redis keys begin with (default STREAM_PREFIX, else tebra)")
}

// pipeline is where requests go and answers come from.
type pipeline struct {
	redis *redis.Options
	keys  tebra.Keys
	local bool // a local run that was found by itself
}

// address names one pipeline, and who named it.
type address struct {
	source              string
	url, caCert, prefix string
	local               bool
}

// find returns the pipeline that the flags name, else the environment, else the
// local run that noted itself.
func (f *pipelineFlags) find(ctx context.Context, env environment, flags *pflag.FlagSet) (pipeline, error) {
	for _, name := range [...]string{"redis", "redis-ca-cert", "prefix"} {
		if flag := flags.Lookup(name); flag.Changed && flag.Value.String() == "" {
			return pipeline{}, usagef("--%s is empty; give it a value, or leave it out for its default", name)
		}
	}
	at, err := f.address(ctx, env)
	if err != nil {
		return pipeline{}, err
	}
	return at.open()
}

func (f *pipelineFlags) address(ctx context.Context, env environment) (address, error) {
	at := address{caCert: cmp.Or(f.caCert, env["REDIS_CA_CERT"]), prefix: cmp.Or(f.prefix, env["STREAM_PREFIX"], tebra.DefaultPrefix)}
	switch {
	case f.redis != "":
		var err error
		at.source = "--redis"
		at.url, err = redisURL(f.redis)
		return at, err
	case env["REDIS_URL"] != "":
		at.source, at.url = "the environment", env["REDIS_URL"]
		return at, nil
	}
	return f.discovered(ctx, env)
}

func (f *pipelineFlags) discovered(ctx context.Context, env environment) (address, error) {
	info, err := local.Discover(ctx, local.DiscoveryPath(env.lookup))
	switch {
	case ctx.Err() != nil:
		return address{}, fmt.Errorf("%w while looking for a local pipeline", errInterrupted)
	case errors.Is(err, local.ErrNotRunning):
		return address{}, configf("%w; give --redis URL, or set REDIS_URL, or start 'tebra local' in another terminal", err)
	case err != nil:
		return address{}, &configError{err}
	}
	return address{
		source: "the local pipeline", local: true,
		url: info.RedisURL, caCert: cmp.Or(f.caCert, info.RedisCACert), prefix: cmp.Or(f.prefix, info.Prefix),
	}, nil
}

func (at address) open() (pipeline, error) {
	keys, err := tebra.NewKeys(at.prefix)
	if err != nil {
		return pipeline{}, &configError{err}
	}
	options, err := stream.Options(at.url, at.caCert)
	if err != nil {
		return pipeline{}, configf("the address of Redis, from %s, can't be used: %w", at.source, err)
	}
	return pipeline{redis: options, keys: keys, local: at.local}, nil
}
