package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// printer prints a command's results to stdout, in the form that --output asks for.
// After a first failure it prints nothing more; err holds it, for the command to
// return.
type printer struct {
	w      io.Writer
	format format
	style  style
	err    error
}

func (a *app) newPrinter() *printer {
	return &printer{w: a.stdout, format: a.output, style: a.styleFor(a.stdout)}
}

// asJSON reports whether results are for programs: [printer.object] then, and
// nothing else.
func (p *printer) asJSON() bool { return p.format == formatJSON }

// object prints v as a line of JSON.
func (p *printer) object(v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		p.fail(err)
		return
	}
	p.write(b.String())
}

// line prints cells one after the other, as one line for people.
func (p *printer) line(cells ...cell) { p.write(joined(p.style, cells) + "\n") }

// table prints a table for people.
func (p *printer) table(t table) {
	for _, line := range t.lines(p.style) {
		p.write(line + "\n")
	}
}

func (p *printer) write(text string) {
	if p.err != nil {
		return
	}
	_, err := io.WriteString(p.w, text)
	p.fail(err)
}

func (p *printer) fail(err error) {
	if p.err == nil && err != nil {
		p.err = fmt.Errorf("printing to stdout: %w", err)
	}
}

// cell is a piece of a line, in one colour. What it holds can't steer a terminal:
// control characters are taken out when it is printed.
type cell struct {
	text  string
	paint paint
}

// word is a cell without colour; values are formatted as by fmt.Sprint.
func word(values ...any) cell { return cell{text: fmt.Sprint(values...)} }

// painted is a cell in a colour.
func painted(p paint, values ...any) cell { return cell{text: fmt.Sprint(values...), paint: p} }

func joined(s style, cells []cell) string {
	var b strings.Builder
	for _, c := range cells {
		b.WriteString(s.paint(c.paint, oneLine(c.text)))
	}
	return b.String()
}

// table is rows under a header, aligned. The last column may be ragged.
type table struct {
	header []string // a name that begins with > is of a column of numbers, aligned to the right
	indent string
	rows   [][]cell
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// lines returns the table as lines, with the header first.
func (t table) lines(s style) []string {
	header := make([]cell, len(t.header))
	right := make([]bool, len(t.header))
	for i, name := range t.header {
		name, right[i] = strings.CutPrefix(name, ">")
		header[i] = painted(dimmed, name)
	}
	all := append([][]cell{header}, t.rows...)
	widths := columnWidths(all)
	lines := make([]string, 0, len(all))
	for _, row := range all {
		lines = append(lines, t.indent+alignedRow(s, row, widths, right))
	}
	return lines
}

func columnWidths(rows [][]cell) []int {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	return widths
}

// columnGap is what stands between two columns.
const columnGap = "  "

func alignedRow(s style, row []cell, widths []int, right []bool) string {
	var b strings.Builder
	for i, c := range row {
		if i > 0 {
			b.WriteString(columnGap)
		}
		space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
		text := s.paint(c.paint, oneLine(c.text))
		switch {
		case i < len(right) && right[i]:
			b.WriteString(space + text)
		case i == len(row)-1:
			b.WriteString(text)
		default:
			b.WriteString(text + space)
		}
	}
	return strings.TrimRight(b.String(), " ")
}
