package cli

import (
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// paint is an ANSI code that marks text for people. The zero value leaves text as
// it is.
type paint string

// The paints.
const (
	plain   paint = ""
	strong  paint = "1"
	dimmed  paint = "2"
	bad     paint = "31"
	good    paint = "32"
	caution paint = "33"
	active  paint = "36"
)

// style marks text for people. Its zero value leaves text as it is.
type style struct{ colour bool }

// styleFor returns colours for a terminal whose user did not decline them
// (no-color.org, or a terminal that calls itself dumb).
func (a *app) styleFor(w io.Writer) style {
	return style{colour: a.env["NO_COLOR"] == "" && a.env["TERM"] != "dumb" && a.isTerminal(w)}
}

func (s style) good(text string) string   { return s.paint(good, text) }
func (s style) bad(text string) string    { return s.paint(bad, text) }
func (s style) active(text string) string { return s.paint(active, text) }
func (s style) dim(text string) string    { return s.paint(dimmed, text) }

// paint puts text between the ANSI codes that begin and end a style.
func (s style) paint(p paint, text string) string {
	if !s.colour || p == plain {
		return text
	}
	return "\x1b[" + string(p) + "m" + text + "\x1b[0m"
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalSize returns how many columns and lines w has, or 80 and 24 where it
// can't be told.
func terminalSize(w io.Writer) (columns, lines int) {
	if f, ok := w.(*os.File); ok {
		if columns, lines, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 && lines > 0 {
			return columns, lines
		}
	}
	return 80, 24
}

// printable takes out of text from elsewhere what would steer a terminal: control
// characters but line breaks and tabs, and what is no UTF-8.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || !unicode.IsControl(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// oneLine is [printable] for text that must stay on its line.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r):
			return unicode.ReplacementChar
		default:
			return r
		}
	}, text)
}
