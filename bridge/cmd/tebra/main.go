// Command tebra is the command line of the bridge's operators and developers.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/redis/go-redis/v9/logging"

	"tebraproxy/bridge/internal/cli"
	"tebraproxy/pkg/config"
)

func main() {
	if err := config.KeepSecrets(); err != nil {
		fmt.Fprintln(os.Stderr, "tebra: a crash may write secrets to disk:", err)
	}
	logging.Disable()         // what the client would print is in the errors that it returns
	log.SetOutput(io.Discard) // net/http may quote the API's answer there (package php)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from then on, a second signal ends the process at once
	os.Exit(cli.Run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
