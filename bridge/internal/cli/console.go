package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/console"
	"tebraproxy/bridge/internal/deadletters"
	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/telemetry"
)

const consoleHelp = `Serve a page on this machine: send a request, watch requests go through, see rates
and latencies, how everything stands, and replay or drop dead letters.

The address that it prints lets its owner in, and nobody else; it changes with
each start. The console listens on loopback only: from elsewhere, reach it through
a tunnel (ssh -L). What requests hold is hidden until it is asked for; that, replays
and drops are put on record, with --operator. Dead letters are there where the
Google Cloud project is known. Ctrl-C ends it.

A 'tebra local' has a console of its own.`

type consoleOptions struct {
	letters letterFlags
	listen  string
}

func (a *app) consoleCommand() *cobra.Command {
	var o consoleOptions
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Serve a page for operators on this machine",
		Long:  consoleHelp,
		Example: `  tebra console
  tebra console --redis rediss://10.0.0.3:6378 --project my-project \
    --listen 127.0.0.1:8090`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              a.runE(func(cmd *cobra.Command, _ []string) error { return a.console(cmd, o) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "`host:port` on loopback; port 0 takes a free one")
	o.letters.pipeline.register(flags)
	o.letters.surroundings.register(flags)
	flags.StringVar(&o.letters.subscription, "subscription", "", "the operators' `subscription` (default INSPECT_SUBSCRIPTION, else tebra-dead-letters-inspect)")
	flags.StringVar(&o.letters.operator, "operator", "", "`who` acts, for the record (default user@host)")
	flags.DurationVar(&o.letters.wait, "wait", deadletters.DefaultQuiet, "how long nothing may come before the list is believed to be whole (an emulator needs none)")
	return cmd
}

func (a *app) console(cmd *cobra.Command, o consoleOptions) error {
	ctx := cmd.Context()
	if err := console.CheckListen(o.listen); err != nil {
		return usagef("--listen is %q: %w", o.listen, err)
	}
	target, err := o.letters.pipeline.find(ctx, a.env, cmd.Flags())
	if err != nil {
		return err
	}
	around, err := o.letters.surroundings.find(ctx, a.env, target)
	if err != nil {
		return err
	}
	if o.letters.operator == "" {
		o.letters.operator = defaultOperator()
	}
	rdb := redis.NewClient(target.redis)
	defer func() { _ = rdb.Close() }() // everything that matters was answered before
	cfg := console.Config{Where: target.redis.Addr, Operator: o.letters.operator}
	if cfg.MaxRequestBytes, err = maxRequestBytes(a.env); err != nil {
		return err
	}
	if target.local {
		cfg.User = defaultUser
	}
	deps := console.Deps{
		Redis: rdb, Keys: target.keys, Rules: around.policy, Inspector: inspect.New(rdb, target.keys, around.policy),
		Auditor: stream.New(rdb, target.keys), Now: a.now,
		Log: telemetry.NewLogger(a.stderr, slog.LevelWarn),
	}
	if around.pubsub.Project != "" {
		desk, err := o.letters.open(cmd, a)
		if err != nil {
			return err
		}
		defer desk.close()
		deps.Letters = desk.Queue
	}
	c, err := console.New(cfg, deps)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return configf("the console can't be served: %w; give another port with --listen", err)
	}
	p, address := a.newPrinter(), c.Address("http://"+ln.Addr().String())
	if p.asJSON() {
		p.object(struct {
			URL string `json:"url"`
		}{address})
		return errors.Join(serveConsole(ctx, ln, c), p.err)
	}
	p.line(word("The console of ", target.keys.Prefix(), " at ", target.redis.Addr, ", for this machine only; open the whole address:"))
	p.line(word(address))
	return errors.Join(serveConsole(ctx, ln, c), p.err)
}

// serveConsole serves c until ctx ends, and closes ln.
func serveConsole(ctx context.Context, ln net.Listener, c *console.Console) error {
	server := &http.Server{Handler: c, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // pages come back or not; nothing of theirs is lost
	err := server.Serve(ln)
	interrupted := ctx.Err() != nil
	stop()
	cancel()
	running.Wait()
	if interrupted {
		return nil
	}
	return fmt.Errorf("serving the console: %w", err)
}
