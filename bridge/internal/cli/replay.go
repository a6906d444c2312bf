package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tebraproxy/bridge/internal/deadletters"
)

const replayHelp = `Put the requests of dead letters back on the requests stream, under their own IDs,
so that lanes, breaker and policy hold for them as for any other, and take the
letters off. Each letter is taken off last, when its request is surely on the
stream, so the command may be interrupted and run again: nothing is lost, and
nothing is done twice.

Refused, and left where it is, is what succeeded since, what is being worked on,
and what is no request. With --force only: a change of which nobody knows
whether it was made (look in the practice-management system first), a request
that has not come to its end yet, and one that a bridge would reject as too
large, by MAX_REQUEST_BYTES (default 1048576), which must be here as it is there.

Exit codes: 0 all that was meant is back on the stream, 1 some of it was refused
or failed, 2 bad usage, 130 interrupted. With --dry-run: 0 unless a letter is
not there.`

// replayFlags are those of replay.
type replayFlags struct {
	all, dryRun, force bool
	reason             string
}

func (a *app) replayCommand(f *letterFlags) *cobra.Command {
	var r replayFlags
	cmd := &cobra.Command{
		Use:   "replay {ID... | --all | --reason REASON}",
		Short: "Send the requests of dead letters again",
		Long:  replayHelp,
		Example: `  tebra deadletters replay --all --dry-run
  tebra deadletters replay --reason dead_lettered
  tebra deadletters replay 17954088290971234 17954088290971235
  tebra deadletters replay 17954088290971234 --force`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              a.runE(func(cmd *cobra.Command, args []string) error { return a.replayLetters(cmd, f, r, args) }),
	}
	flags := cmd.Flags()
	flags.BoolVar(&r.all, "all", false, "all dead letters")
	flags.StringVar(&r.reason, "reason", "", "all dead letters of this `reason`")
	flags.BoolVar(&r.dryRun, "dry-run", false, "say what would be done, and change nothing")
	flags.BoolVar(&r.force, "force", false, "also what may have been done already, is not at its end, or may be too large")
	completeFlag(cmd, "reason", reasonCompletions())
	return cmd
}

// filter returns which letters are meant, and refuses to guess.
func (r replayFlags) filter(ids []string) (deadletters.Filter, error) {
	given := 0
	for _, is := range []bool{len(ids) > 0, r.all, r.reason != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return deadletters.Filter{}, usagef("which dead letters? Give IDs, or --all, or --reason REASON, and only one of the three")
	}
	return deadletters.Filter{IDs: ids, Reason: r.reason}, checkReason(r.reason)
}

func (a *app) replayLetters(cmd *cobra.Command, f *letterFlags, r replayFlags, ids []string) error {
	filter, err := r.filter(ids)
	if err != nil {
		return err
	}
	d, err := f.open(cmd, a)
	if err != nil {
		return err
	}
	defer d.close()
	stop := a.looking()
	var progress *bar
	report, err := d.Replay(cmd.Context(), filter, deadletters.ReplayOptions{
		DryRun: r.dryRun, Force: r.force,
		Progress: func(done, total int) {
			if progress == nil {
				stop()
				progress = a.newBar(total)
			}
			progress.set(done, "")
		},
	})
	if progress != nil {
		progress.end()
	} else {
		stop()
	}
	p := a.newPrinter()
	a.printReport(p, report)
	if err == nil || len(report.Results) > 0 { // who was interrupted while looking knows nothing
		a.note("%s", summary(report, "No dead letter matches."))
	}
	if err == nil && report.More {
		a.note("There may be more: that is as many as can be held in one go. Run the command again.")
	}
	if err == nil {
		err = shortfall(report, r.dryRun)
	}
	return errors.Join(d.trouble(cmd.Context(), err, "what is not replayed is where it was; run the command again to go on"), p.err)
}

// shortfall is the error of a report in which not all was done.
func shortfall(report deadletters.Report, dryRun bool) error {
	missing, refused := report.Count(deadletters.Missing), report.Count(deadletters.Refused)
	if dryRun {
		refused = 0
	}
	if missing+refused == 0 {
		return nil
	}
	return fmt.Errorf("%d of %s left undone; the reasons are in the list", missing+refused, count(len(report.Results), "letter"))
}

// jsonResult is what became of a letter, for programs.
type jsonResult struct {
	ID        string `json:"id,omitempty"`
	Outcome   string `json:"outcome"`
	Action    string `json:"action,omitempty"`
	RequestID string `json:"requestId,omitempty"`
	EntryID   string `json:"entryId,omitempty"` // the new one
	Forced    bool   `json:"forced,omitempty"`
	Refusal   string `json:"refusal,omitempty"`
	Why       string `json:"why,omitempty"`
}

// resultJSON leaves out whose result it is.
func resultJSON(r deadletters.Result) jsonResult {
	return jsonResult{Outcome: string(r.Outcome), EntryID: r.EntryID, Forced: r.Forced, Refusal: string(r.Refusal), Why: r.Why}
}

func (a *app) printReport(p *printer, report deadletters.Report) {
	if p.asJSON() {
		for _, r := range report.Results {
			line := resultJSON(r)
			line.ID, line.Action, line.RequestID = r.Letter.ID, r.Letter.Envelope.Action, r.Letter.Envelope.RequestID
			p.object(line)
		}
		return
	}
	if len(report.Results) == 0 {
		return
	}
	t := table{header: []string{"ID", "ACTION", "REQUEST", "RESULT"}}
	for _, r := range report.Results {
		t.add(word(r.Letter.ID), word(orDash(r.Letter.Envelope.Action)), word(orDash(r.Letter.Envelope.RequestID)),
			painted(outcomePaint(r.Outcome), brief(r)))
	}
	p.table(t)
	explained := map[string]bool{}
	for _, r := range report.Results {
		why := r.Why
		if r.Outcome == deadletters.Refused {
			why = string(r.Refusal) + ": " + why
		}
		if r.Why != "" && !explained[why] {
			explained[why] = true
			a.note("%s.", why)
		}
	}
}

func outcomePaint(o deadletters.Outcome) paint {
	switch o {
	case deadletters.Refused, deadletters.Missing, deadletters.Undone, deadletters.Unsure:
		return bad
	default:
		return good
	}
}

// brief is [outcomeText] without what is said once for all letters.
func brief(r deadletters.Result) string {
	switch r.Outcome {
	case deadletters.Refused:
		return "refused: " + string(r.Refusal)
	case deadletters.Missing:
		return "not found"
	case deadletters.Unsure:
		return "unknown, it may be gone"
	default:
		return outcomeText(r)
	}
}

// outcomeText says for people what became of a letter, or would.
func outcomeText(r deadletters.Result) string {
	force := ""
	if r.Forced {
		force = ", by force"
	}
	switch r.Outcome {
	case deadletters.WouldReplay:
		return "would be put back on the stream" + force
	case deadletters.WouldAcknowledge:
		return "would only be taken off: it was replayed before, as entry " + r.EntryID
	case deadletters.Replayed:
		return "replayed as entry " + r.EntryID + force
	case deadletters.Acknowledged:
		return "taken off: it was replayed before, as entry " + r.EntryID
	case deadletters.Dropped:
		return "dropped"
	case deadletters.Refused:
		return fmt.Sprintf("refused (%s): %s", r.Refusal, r.Why)
	case deadletters.Missing, deadletters.Unsure:
		return r.Why
	default:
		return join(": ", "not done, it is where it was", r.Why)
	}
}

// summary counts a report's outcomes in words.
func summary(report deadletters.Report, none string) string {
	var parts []string
	for _, o := range []struct {
		outcome deadletters.Outcome
		words   string
	}{
		{deadletters.WouldReplay, "would be replayed"}, {deadletters.WouldAcknowledge, "would only be taken off"},
		{deadletters.Replayed, "replayed"}, {deadletters.Acknowledged, "taken off that were replayed before"},
		{deadletters.Dropped, "dropped"}, {deadletters.Refused, "refused"},
		{deadletters.Missing, "not found"}, {deadletters.Undone, "not done"},
		{deadletters.Unsure, "perhaps dropped"},
	} {
		if n := report.Count(o.outcome); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o.words))
		}
	}
	if len(parts) == 0 {
		return none
	}
	return strings.Join(parts, ", ") + "."
}

func (a *app) dropCommand(f *letterFlags) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "drop ID... --yes",
		Short: "Give dead letters up for good",
		Long: `Give dead letters up for good. Their requests are not sent again, and what the
letters hold is gone: whoever sent them has had an error as their answer. That is
put on record first. Without --yes nothing is done.`,
		Example: `  tebra deadletters show 17954088290971234
  tebra deadletters drop 17954088290971234 --yes`,
		Args:              someIDs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              a.runE(func(cmd *cobra.Command, args []string) error { return a.dropLetters(cmd, f, args, yes) }),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, for good")
	return cmd
}

func someIDs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("want IDs, as 'tebra deadletters list' shows them")
	}
	return nil
}

func (a *app) dropLetters(cmd *cobra.Command, f *letterFlags, ids []string, yes bool) error {
	if !yes {
		return usagef("nothing was dropped: %s would be gone for good; give --yes if that is meant", count(len(ids), "letter"))
	}
	d, err := f.open(cmd, a)
	if err != nil {
		return err
	}
	defer d.close()
	stop := a.looking()
	report, err := d.Drop(cmd.Context(), ids)
	stop()
	p := a.newPrinter()
	a.printReport(p, report)
	if err == nil {
		a.note("%s", summary(report, "Nothing was dropped."))
		err = shortfall(report, false)
	}
	return errors.Join(d.trouble(cmd.Context(), err, "what is listed neither as dropped nor as unknown is where it was"), p.err)
}
