package cli

import (
	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/deadletters"
	"tebraproxy/pkg/policy"
)

// completeFlag has the shell offer values for a flag, which must be there.
func completeFlag(cmd *cobra.Command, flag string, values []cobra.Completion) {
	// It can only fail for a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// reasonCompletions offers the reasons of dead letters, each with its meaning.
func reasonCompletions() []cobra.Completion {
	var all []cobra.Completion
	for _, reason := range deadletters.Reasons() {
		all = append(all, cobra.CompletionWithDesc(reason, deadletters.Meaning(reason)))
	}
	return all
}

// actionCompletions offers the actions that are known everywhere.
func actionCompletions() []cobra.Completion {
	var all []cobra.Completion
	for _, action := range policy.Default().Actions() {
		all = append(all, cobra.CompletionWithDesc(action.Name, string(action.Effect)))
	}
	return all
}
