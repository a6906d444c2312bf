package load

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// unit says how a measure is shown, and how much of growth is noise.
type unit struct {
	name  string
	part  float64 // of what it was
	slack float64 // and so much more
	// floor is the quantile that tells growth: the median, or where bursts open what
	// lies idle afterwards, the low that a leak would raise.
	floor float64
	show  func(float64) string
}

var (
	bytesUnit   = &unit{"bytes", 0.10, 4 << 20, 0.5, func(v float64) string { return fmt.Sprintf("%.1f MiB", v/(1<<20)) }}
	countUnit   = &unit{"count", 0.05, 5, 0.1, func(v float64) string { return fmt.Sprintf("%.0f", v) }}
	entriesUnit = &unit{"entries", 0.05, 500, 0.5, func(v float64) string { return fmt.Sprintf("%.0f", v) }}
)

// measured is one measure in a sample.
type measured struct {
	name  string
	unit  *unit
	value float64
}

// trace is samples over time, all with the same measures.
type trace struct {
	columns []measured // as the first sample has them
	at      []time.Duration
	rows    [][]float64
}

func newTrace(first []measured) *trace { return &trace{columns: first} }

func (tr *trace) add(at time.Duration, sample []measured) error {
	if len(sample) != len(tr.columns) {
		return fmt.Errorf("a sample has %d measures, the first had %d: was a process started again?", len(sample), len(tr.columns))
	}
	row := make([]float64, len(sample))
	for i, m := range sample {
		row[i] = m.value
	}
	tr.at, tr.rows = append(tr.at, at), append(tr.rows, row)
	return nil
}

// csv has a row for each sample.
func (tr *trace) csv() string {
	var out strings.Builder
	out.WriteString("seconds")
	for _, c := range tr.columns {
		out.WriteString("," + strings.ReplaceAll(c.name, " ", "_"))
		if c.unit == bytesUnit {
			out.WriteString("_bytes")
		}
	}
	for i, row := range tr.rows {
		out.WriteString("\n" + strconv.FormatFloat(tr.at[i].Seconds(), 'f', 1, 64))
		for _, v := range row {
			out.WriteString("," + strconv.FormatFloat(v, 'f', 0, 64))
		}
	}
	return out.String() + "\n"
}

// judge compares the first third of what comes after a time with the last. It goes by
// medians, as streams grow for a minute and are trimmed, and memory is collected;
// and for connections, and what serves them, by what is open when little is.
func (tr *trace) judge(after time.Duration) (table string, flat bool) {
	from, _ := slices.BinarySearch(tr.at, after)
	plateau := tr.rows[from:]
	third := len(plateau) / 3
	if third == 0 {
		return "no samples of the plateau\n", false
	}
	var out strings.Builder
	fmt.Fprintf(&out, "| measure | first third | last third | most | growth | allowed | |\n|---|---|---|---|---|---|---|\n")
	flat = true
	for i, c := range tr.columns {
		first, last := column(plateau[:third], i), column(plateau[len(plateau)-third:], i)
		was, is := low(first, c.unit.floor), low(last, c.unit.floor)
		growth, allowed := is-was, was*c.unit.part+c.unit.slack
		word := "flat"
		if growth > allowed {
			word, flat = "GROWS", false
		}
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %s | %s |\n", c.name, c.unit.show(was), c.unit.show(is),
			c.unit.show(slices.Max(column(plateau, i))), c.unit.show(growth), c.unit.show(allowed), word)
	}
	return out.String(), flat
}

func column(rows [][]float64, i int) []float64 {
	values := make([]float64, len(rows))
	for n, row := range rows {
		values[n] = row[i]
	}
	return values
}

// low is a quantile of values in any order.
func low[T cmp.Ordered](values []T, q float64) T {
	return quantile(slices.Sorted(slices.Values(values)), q)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func TestWhatGrowsIsTold(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, tt := range map[string]struct {
		unit  *unit
		value func(i int) float64
		flat  bool
	}{
		"nothing":             {countUnit, func(int) float64 { return 20 }, true},
		"a saw":               {entriesUnit, func(i int) float64 { return 48_000 + 2000*float64(i%6) }, true},
		"before the plateau":  {bytesUnit, func(i int) float64 { return float64(min(i, 36)) * mib }, true},
		"memory by a leak":    {bytesUnit, func(i int) float64 { return 30*mib + float64(i)*mib/10 }, false},
		"files, one a minute": {countUnit, func(i int) float64 { return 20 + float64(i/6) }, false},
		"a burst at the end":  {countUnit, func(i int) float64 { return 20 + float64(i/250*(i%6)*20) }, true},
		"one outlier":         {bytesUnit, func(i int) float64 { return 30*mib + float64(i/359)*100*mib }, true},
		"what shrinks":        {bytesUnit, func(i int) float64 { return float64(400-i) * mib }, true},
	} {
		tr := newTrace([]measured{{"m", tt.unit, 0}})
		for i := range 360 { // an hour
			if err := tr.add(time.Duration(i)*soakSampleEvery, []measured{{"m", tt.unit, tt.value(i)}}); err != nil {
				t.Fatal(err)
			}
		}
		if table, flat := tr.judge(plateauAfter); flat != tt.flat {
			t.Errorf("%s: flat = %v, want %v:\n%s", name, flat, tt.flat, table)
		}
	}
	if _, flat := newTrace([]measured{{"m", countUnit, 0}}).judge(0); flat {
		t.Error("a trace without samples is flat, want that it says nothing")
	}
}
