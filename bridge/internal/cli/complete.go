package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/deadletters"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/tebra"
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

// completeRequest offers an action, and then its parameters that are not there yet.
func completeRequest(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return actionCompletions(), cobra.ShellCompDirectiveNoFileComp
	}
	return paramCompletions(args[0], args[1:]), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeRead is [completeRequest] for reads only.
func completeRead(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all, directive := completeRequest(cmd, args, toComplete)
	if len(args) == 0 {
		all = slices.DeleteFunc(all, func(c cobra.Completion) bool {
			name, _, _ := strings.Cut(c, "\t")
			return checkRead(name, policy.Default()) != nil
		})
	}
	return all, directive
}

// paramCompletions offers key= or, for what is no text, key:=.
func paramCompletions(action string, given []string) []cobra.Completion {
	var all []cobra.Completion
	for _, p := range tebra.Params(action) {
		key := p.Name + "="
		if p.Object {
			key = p.Name + ":="
		}
		if !slices.ContainsFunc(given, func(arg string) bool { return strings.HasPrefix(arg, key) }) {
			all = append(all, key)
		}
	}
	return all
}
