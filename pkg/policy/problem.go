package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxProblems bounds how many problems of a file are reported.
const maxProblems = 100

// Problem is one thing that is wrong with a policy.
type Problem struct {
	// Line and Column say where in the file, from 1. Both are 0 for what the
	// file takes over from the built-in catalogue.
	Line, Column int
	// Message says what is wrong and what to do.
	Message string
}

// String returns "line:column: message".
func (p Problem) String() string {
	if p.Line == 0 {
		return "built-in catalogue: " + p.Message
	}
	return fmt.Sprintf("%d:%d: %s", p.Line, p.Column, p.Message)
}

// InvalidError is a policy that can't be used, with all of its problems.
type InvalidError struct {
	// Problems has the first 100 problems, by place; there is at least one.
	Problems []Problem
	// Omitted is how many there are beyond those.
	Omitted int
}

// Error returns every problem on a line of its own.
func (e *InvalidError) Error() string {
	lines := make([]string, 0, len(e.Problems)+2)
	lines = append(lines, fmt.Sprintf("policy: %d to correct:", len(e.Problems)+e.Omitted))
	for _, p := range e.Problems {
		lines = append(lines, "  "+p.String())
	}
	if e.Omitted > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more", e.Omitted))
	}
	return strings.Join(lines, "\n")
}

// place is where in a file something stands; the zero place is the catalogue.
type place struct{ line, column int }

// problems collects what is wrong.
type problems struct{ list []Problem }

func (p *problems) add(at place, format string, args ...any) {
	p.list = append(p.list, Problem{Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...)})
}

// err returns what was collected, by place, or nil.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	shown := min(len(p.list), maxProblems)
	return &InvalidError{Problems: p.list[:shown], Omitted: len(p.list) - shown}
}
