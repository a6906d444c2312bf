package cli

import (
	"io"
	"os"
	"strings"
	"unicode"
)

// style marks text for people. Its zero value leaves text as it is.
type style struct{ colour bool }

// styleFor returns colours for a terminal whose user did not decline them
// (no-color.org, or a terminal that calls itself dumb).
func (a *app) styleFor(w io.Writer) style {
	return style{colour: a.env["NO_COLOR"] == "" && a.env["TERM"] != "dumb" && a.isTerminal(w)}
}

func (s style) good(text string) string   { return s.paint("32", text) }
func (s style) bad(text string) string    { return s.paint("31", text) }
func (s style) active(text string) string { return s.paint("36", text) }
func (s style) dim(text string) string    { return s.paint("2", text) }

// paint puts text between the ANSI codes that begin and end a style.
func (s style) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// isTerminal reports whether w is a character device. That is true of /dev/null
// as well, where nobody sees the difference.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	stat, err := f.Stat()
	return err == nil && stat.Mode()&os.ModeCharDevice != 0
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
