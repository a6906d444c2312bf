package load

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// benchmarks holds the results that BENCHMARKS.md shows, and the plots of them.
const benchmarks = "../../benchmarks"

// A chart is panels side by side, with one legend, readable on white and on black.
type chart struct {
	title  string
	legend []string // by the class of lines
	panels []panel
}

type panel struct {
	title string
	x, y  axis
	lines []line
}

type axis struct {
	label  string
	lo, hi float64
	log    bool
	ticks  []tick
}

type tick struct {
	at   float64
	text string
}

type line struct {
	class  int
	points [][2]float64
}

// The measures of a chart, in pixels.
const (
	panelWidth, panelHeight = 250, 220
	left, right             = 62, 24
	top, bottom             = 84, 52
)

const style = `
    svg { background: #ffffff; font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
    text { fill: #1f2328; } .quiet { fill: #59636e; }
    .title { font-size: 15px; font-weight: 600; } .head { font-weight: 600; }
    .grid { stroke: #d8dee4; stroke-width: 1; } .frame { stroke: #8c959f; stroke-width: 1; fill: none; }
    .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
    .c0 { stroke: #59636e; stroke-dasharray: 2 3; } .c1 { stroke: #bc4c00; stroke-dasharray: 7 3; } .c2 { stroke: #0969da; }
    .c3 { stroke: #1a7f37; stroke-dasharray: 9 3 2 3; } .c4 { stroke: #8250df; stroke-dasharray: 4 2; }
    @media (prefers-color-scheme: dark) {
      svg { background: #0d1117; } text { fill: #e6edf3; } .quiet { fill: #9198a1; }
      .grid { stroke: #30363d; } .frame { stroke: #6e7681; }
      .c0 { stroke: #9198a1; } .c1 { stroke: #f0883e; } .c2 { stroke: #58a6ff; } .c3 { stroke: #3fb950; } .c4 { stroke: #bc8cff; }
    }`

// svg draws the chart.
func (c chart) svg() string {
	var out strings.Builder
	width, height := len(c.panels)*(left+panelWidth+right), top+panelHeight+bottom
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">
  <style>%s
  </style>
  <text class="title" x="%d" y="24">%s</text>
`, width, height, width, height, html.EscapeString(c.title), style, left, html.EscapeString(c.title))
	x := left
	for class, name := range c.legend {
		fmt.Fprintf(&out, `  <path class="line c%d" d="M%d 44h28"/><text x="%d" y="48">%s</text>`+"\n", class, x, x+34, html.EscapeString(name))
		x += 34 + 7*len(name) + 24
	}
	for i, p := range c.panels {
		fmt.Fprintf(&out, `  <g transform="translate(%d %d)">`+"\n", i*(left+panelWidth+right)+left, top)
		p.draw(&out)
		out.WriteString("  </g>\n")
	}
	out.WriteString("</svg>\n")
	return out.String()
}

func (p panel) draw(out *strings.Builder) {
	fmt.Fprintf(out, `    <text class="head" x="0" y="-10">%s</text>`+"\n", html.EscapeString(p.title))
	for _, t := range p.y.ticks {
		y := panelHeight - p.y.scale(t.at, panelHeight)
		fmt.Fprintf(out, `    <path class="grid" d="M0 %.1fh%d"/><text class="quiet" x="-7" y="%.1f" text-anchor="end">%s</text>`+"\n", y, panelWidth, y+4, t.text)
	}
	for _, t := range p.x.ticks {
		x := p.x.scale(t.at, panelWidth)
		fmt.Fprintf(out, `    <path class="grid" d="M%.1f 0v%d"/><text class="quiet" x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x, panelHeight, x, panelHeight+17, t.text)
	}
	fmt.Fprintf(out, `    <rect class="frame" width="%d" height="%d"/>`+"\n", panelWidth, panelHeight)
	fmt.Fprintf(out, `    <text class="quiet" x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", panelWidth/2, panelHeight+38, html.EscapeString(p.x.label))
	fmt.Fprintf(out, `    <text class="quiet" transform="translate(-46 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", panelHeight/2, html.EscapeString(p.y.label))
	for _, l := range p.lines {
		var path strings.Builder
		for i, point := range l.points {
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], p.x.scale(point[0], panelWidth), panelHeight-p.y.scale(point[1], panelHeight))
		}
		fmt.Fprintf(out, `    <path class="line c%d" d="%s"/>`+"\n", l.class, path.String())
	}
}

// scale returns where v is on an axis of a length. What is outside is at its end.
func (a axis) scale(v, length float64) float64 {
	lo, hi := a.lo, a.hi
	if a.log {
		v, lo, hi = math.Log10(max(v, lo)), math.Log10(lo), math.Log10(hi)
	}
	return min(max((v-lo)/(hi-lo), 0), 1) * length
}

// evenly returns ticks from 0, and the axis's end: few of them, at round numbers.
func evenly(most float64) (ticks []tick, end float64) {
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, part := range []float64{0.2, 0.5, 1, 2} {
		if most/(step*part) <= 5 {
			step *= part
			break
		}
	}
	for i := 0; end < most; i++ {
		end = float64(i) * step
		ticks = append(ticks, tick{end, strconv.FormatFloat(end, 'g', 10, 64)})
	}
	return ticks, end
}

// rank is where a quantile is on an axis on which each nine takes the same room.
func rank(q float64) float64 { return -math.Log10(1 - q) }

// latencyChart shows how long answers take, quantile by quantile, a panel a rate.
func latencyChart(r latencyResult) chart {
	c := chart{
		title:  fmt.Sprintf("From request to answer, of an API that takes %v ms", r.APIMS),
		legend: []string{wayAlone, wayBare, wayOurs},
	}
	x := axis{label: "of all requests, as fast or faster", hi: 3, ticks: []tick{{0, "0"}, {rank(0.5), "50%"}, {1, "90%"}, {2, "99%"}, {3, "99.9%"}}}
	y := axis{label: "ms", lo: 10, hi: 10, log: true}
	for _, d := range r.Distributions {
		for y.hi < r.at(d, 0.999) {
			y.hi *= 10
		}
	}
	for v := y.lo; v <= y.hi; v *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if v*m <= y.hi {
				y.ticks = append(y.ticks, tick{v * m, strconv.FormatFloat(v*m, 'f', -1, 64)})
			}
		}
	}
	for _, d := range r.Distributions {
		class := -1
		for i, way := range c.legend {
			if d.Way == way {
				class = i
			}
		}
		if class < 0 {
			continue
		}
		title := fmt.Sprintf("%v requests/s", d.Rate)
		if len(c.panels) == 0 || c.panels[len(c.panels)-1].title != title {
			c.panels = append(c.panels, panel{title: title, x: x, y: y})
		}
		l := line{class: class}
		for i, q := range r.Quantiles {
			if (1-q)*float64(d.Requests) >= 1 { // else it is the longest
				l.points = append(l.points, [2]float64{rank(q), d.MS[i]})
			}
		}
		p := &c.panels[len(c.panels)-1]
		p.lines = append(p.lines, l)
	}
	return c
}

// soakChart shows what a soak's processes and Redis held over time.
func soakChart(rows [][]string) (chart, error) {
	table, err := numbers(rows)
	if err != nil {
		return chart{}, err
	}
	minutes := table["seconds"][len(table["seconds"])-1] / 60
	x := axis{label: "minutes"}
	x.ticks, x.hi = evenly(minutes)
	c := chart{title: "A soak at a steady rate: what is held", legend: []string{"Redis", "bridges", "functions"}}
	groups := []struct {
		title, label, suffix string
		unit                 float64
	}{{"memory", "MiB", "_RSS_bytes", 1 << 20}, {"files and connections", "open", "_files", 1}, {"goroutines", "running", "_goroutines", 1}}
	for _, g := range groups {
		p := panel{title: g.title, x: x, y: axis{label: g.label}}
		most := 0.0
		for _, name := range rows[0] {
			if !strings.HasSuffix(name, g.suffix) {
				continue
			}
			l := line{class: classOf(name)}
			for i, v := range table[name] {
				most = max(most, v/g.unit)
				l.points = append(l.points, [2]float64{table["seconds"][i] / 60, v / g.unit})
			}
			p.lines = append(p.lines, l)
		}
		p.y.ticks, p.y.hi = evenly(most * 1.1)
		c.panels = append(c.panels, p)
	}
	return c, nil
}

// classOf is the class of a process's lines in [soakChart].
func classOf(column string) int {
	switch {
	case strings.HasPrefix(column, "redis"):
		return 0
	case strings.Contains(column, "bridge"):
		return 1
	default:
		return 2
	}
}

// numbers returns columns by their names.
func numbers(rows [][]string) (map[string][]float64, error) {
	table := map[string][]float64{}
	if len(rows) < 2 {
		return nil, fmt.Errorf("%d rows: want a header and samples", len(rows))
	}
	for _, row := range rows[1:] {
		for i, text := range row {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, err
			}
			table[rows[0][i]] = append(table[rows[0][i]], v)
		}
	}
	return table, nil
}

// TestPlotsShowTheResultsBesideThem draws the plots from the results; with
// -load.update it writes them.
func TestPlotsShowTheResultsBesideThem(t *testing.T) {
	t.Parallel()
	for name, draw := range map[string]func(t *testing.T) chart{"latency.svg": readLatency, "soak.svg": readSoak} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, path := draw(t).svg(), filepath.Join(benchmarks, name)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			have, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(have) != got {
				t.Errorf("%s does not show the results beside it: run go test ./bridge/internal/load -run Plots -load.update", path)
			}
		})
	}
}

func readLatency(t *testing.T) chart {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(benchmarks, "latency.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r latencyResult
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return latencyChart(r)
}

func readSoak(t *testing.T) chart {
	t.Helper()
	file, err := os.Open(filepath.Join(benchmarks, "soak.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	c, err := soakChart(rows)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTicksAreFewAndRound(t *testing.T) {
	t.Parallel()
	for most, want := range map[float64]string{60: "0 20 40 60", 55: "0 20 40 60", 9: "0 2 4 6 8 10", 130: "0 50 100 150", 1: "0 0.2 0.4 0.6 0.8 1"} {
		ticks, end := evenly(most)
		var texts []string
		for _, tick := range ticks {
			texts = append(texts, tick.text)
		}
		if got := strings.Join(texts, " "); got != want || end < most {
			t.Errorf("evenly(%v) = %s to %v, want %s", most, got, end, want)
		}
	}
}
