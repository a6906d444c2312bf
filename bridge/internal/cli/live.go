package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// live is the lowest lines of a terminal, which are drawn again and again. It is
// for one goroutine.
type live struct {
	w     io.Writer
	size  func(io.Writer) (columns, lines int)
	drawn int // lines that stand there
}

// newLive returns the lowest lines of w, or nil where w is no terminal that can
// draw anything again.
func (a *app) newLive(w io.Writer) *live {
	if !a.isTerminal(w) || a.env["TERM"] == "dumb" {
		return nil
	}
	return &live{w: w, size: a.terminalSize}
}

// room returns how many lines can be drawn again, one less than the terminal has.
func (l *live) room() int {
	_, lines := l.size(l.w)
	return max(1, lines-1)
}

// draw puts lines in the place of those that were drawn before, after above, which
// stays. What is too long or too much is cut: of a line that broke in two, nobody
// could tell how far up the first one is.
func (l *live) draw(above, lines []string) error {
	var b strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", l.drawn)
	}
	b.WriteString("\r\x1b[J") // from here to the end of the screen
	for _, line := range above {
		b.WriteString(line + "\n")
	}
	columns, _ := l.size(l.w)
	lines = lines[:min(len(lines), l.room())]
	for _, line := range lines {
		b.WriteString(cut(line, columns-1) + "\n")
	}
	l.drawn = len(lines)
	_, err := io.WriteString(l.w, b.String())
	return err
}

// cut returns the beginning of a line that takes at most so many columns. ANSI
// codes take none, and all of them stay, the one that ends a style among them.
func cut(line string, columns int) string {
	var b strings.Builder
	inCode := false
	for _, r := range line {
		switch {
		case r == '\x1b':
			inCode = true
			b.WriteRune(r)
		case inCode:
			b.WriteRune(r)
			inCode = r != 'm'
		case columns > 0:
			columns--
			b.WriteRune(r)
		}
	}
	return b.String()
}

// drawEvery is how often at most a bar is drawn again.
const drawEvery = 100 * time.Millisecond

// bar shows on a terminal how many of a known number are done. Elsewhere it shows
// nothing. It is for one goroutine.
type bar struct {
	live  *live // nil where nothing can be drawn
	style style
	total int
	now   func() time.Time
	last  time.Time // when it was drawn
	done  int
	moved time.Time // when more were done

	older, newer progress // what it looks back to: at least paceSpan ago, once there is that much
}

// progress is how many were done at a time.
type progress struct {
	at   time.Time
	done int
}

// paceSpan is over how long the pace is measured: what is quick comes first, and
// what waits for its lane's rate goes on at another pace.
const paceSpan = 5 * time.Second

// newBar returns a bar on stderr, so that stdout has the results only. Who made it
// must call [bar.end].
func (a *app) newBar(total int) *bar {
	start := progress{at: a.now()}
	return &bar{live: a.newLive(a.stderr), style: a.styleFor(a.stderr), total: total, now: a.now, moved: start.at, older: start, newer: start}
}

// set shows how many are done, and a note beside.
func (b *bar) set(done int, note string) {
	now := b.now()
	if done > b.done {
		b.done, b.moved = done, now
	}
	if b.live == nil || (now.Sub(b.last) < drawEvery && done < b.total) {
		return
	}
	b.last = now
	const width = 30
	full := width
	if b.total > 0 {
		full = width * done / b.total
	}
	text := fmt.Sprintf("%s%s %d of %d", b.style.good(strings.Repeat("█", full)), b.style.dim(strings.Repeat("░", width-full)), done, b.total)
	if rest := b.rest(done); rest > 0 {
		text += ", " + roundly(rest) + " left"
	}
	if note != "" {
		text += "  " + oneLine(note)
	}
	_ = b.live.draw(nil, []string{text}) // what is lost is only looked at
}

// rest is how much longer it takes if it goes on as it did lately, 0 if that can't
// be told: nobody knows it while nothing moves.
func (b *bar) rest(done int) time.Duration {
	now := b.now()
	if now.Sub(b.newer.at) >= paceSpan {
		b.older, b.newer = b.newer, progress{now, done}
	}
	passed, n := now.Sub(b.older.at), done-b.older.done
	if n <= 0 || passed < time.Second || now.Sub(b.moved) >= silence {
		return 0
	}
	return passed * time.Duration(b.total-done) / time.Duration(n)
}

// end takes the bar away.
func (b *bar) end() {
	if b.live != nil {
		_ = b.live.draw(nil, nil)
	}
}
