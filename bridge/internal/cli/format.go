package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// format is how a command prints its results.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
)

var _ pflag.Value = (*format)(nil)

func (f *format) String() string { return string(*f) }

// Set reads the flag's value.
func (f *format) Set(text string) error {
	switch format(text) {
	case formatTable, formatJSON:
		*f = format(text)
		return nil
	default:
		return fmt.Errorf("want %s or %s", formatTable, formatJSON)
	}
}

// Type names the value in help texts.
func (f *format) Type() string { return "table|json" }

// addOutputFlag gives --output to cmd and the commands under it.
func addOutputFlag(cmd *cobra.Command, f *format) {
	*f = formatTable
	cmd.PersistentFlags().VarP(f, "output", "o", "how results are printed: for people, or one JSON object a line")
	// The completion can only fail for a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{string(formatTable), string(formatJSON)}, cobra.ShellCompDirectiveNoFileComp))
}
