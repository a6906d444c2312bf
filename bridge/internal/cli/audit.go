package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/user"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// addOperatorFlag gives --operator to cmd.
func addOperatorFlag(cmd *cobra.Command) {
	cmd.Flags().String("operator", "", "`who` asks to see them, for the record (default user@host)")
}

// recordShown puts on record that somebody is about to see what requests hold; each
// record names one. Where that fails, nothing must be shown.
func (a *app) recordShown(cmd *cobra.Command, rdb *redis.Client, keys tebra.Keys, records []tebra.AuditRecord) error {
	if len(records) == 0 {
		return nil
	}
	operator, err := cmd.Flags().GetString("operator")
	if err != nil {
		return err
	}
	for i := range records {
		r := &records[i]
		r.At, r.Operator, r.Operation, r.Decision = a.now(), cmp.Or(operator, defaultOperator()), tebra.PayloadsShown, tebra.Allowed
		r.Reason = cmd.Name()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), putTimeout)
	defer cancel()
	if err := stream.New(rdb, keys).Audit(ctx, records...); err != nil {
		return fmt.Errorf("nothing is shown, because that can't be put on record: %w", err)
	}
	return nil
}

// defaultOperator is who works at this terminal, as far as the system knows.
func defaultOperator() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil && h != "" {
		host = h
	}
	return name + "@" + host
}
