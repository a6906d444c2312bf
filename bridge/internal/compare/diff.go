// Package compare tells how two JSON answers differ, structurally: the order of an
// object's members and the space between parts don't count, the order of a list
// does, and 1.0 and 1 are different numbers as they were written. It prints
// nothing.
package compare

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kind is in what way a place differs.
type Kind string

// The kinds.
const (
	OnlyFirst  Kind = "only_first"  // the second has nothing there
	OnlySecond Kind = "only_second" // the first has nothing there
	Type       Kind = "type"        // such as text here and a number there
	Value      Kind = "value"
)

// Difference is one place in which two answers differ.
type Difference struct {
	Path string // such as $.appointments[3].Start, which may hold health data
	// Shape is Path with [Placeholder] for names that may be contents, such as those
	// of a map by patient.
	Shape string
	Kind  Kind
	// First and Second are what stands there, which may be health data; empty
	// where nothing does.
	First, Second json.RawMessage
}

// Options change what counts.
type Options struct {
	// Ignore are paths that don't count, with all below them; [*] stands for
	// every place of a list.
	Ignore []string
	// Most bounds how many differences are returned; the rest is counted.
	Most int
}

// Result is how two answers differ.
type Result struct {
	Differences []Difference
	More        int // beyond Options.Most
}

// Same reports whether they don't.
func (r Result) Same() bool { return len(r.Differences) == 0 }

// JSON compares two JSON texts. The error says which of the two is none, and quotes
// nothing.
func JSON(first, second []byte, o Options) (Result, error) {
	a, err := decode(first)
	if err != nil {
		return Result{}, fmt.Errorf("the first is not JSON: %w", err)
	}
	b, err := decode(second)
	if err != nil {
		return Result{}, fmt.Errorf("the second is not JSON: %w", err)
	}
	w := &walk{options: o}
	w.compare(at{"$", "$"}, a, b)
	return w.result, nil
}

func decode(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, errors.New("it can't be read")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows it")
	}
	return v, nil
}

type walk struct {
	options Options
	result  Result
}

// at is a place in both answers, as [Difference] has it.
type at struct{ path, shape string }

func (w *walk) compare(path at, a, b any) {
	if w.ignored(path) {
		return
	}
	switch a := a.(type) {
	case map[string]any:
		if b, ok := b.(map[string]any); ok {
			w.objects(path, a, b)
			return
		}
	case []any:
		if b, ok := b.([]any); ok {
			w.lists(path, a, b)
			return
		}
	default:
		if a == b {
			return
		}
	}
	kind := Value
	if typeOf(a) != typeOf(b) {
		kind = Type
	}
	w.add(path, kind, a, b)
}

func (w *walk) objects(path at, a, b map[string]any) {
	names := slices.Collect(maps.Keys(a))
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		va, inA := a[name]
		vb, inB := b[name]
		w.member(path.member(name), va, vb, inA, inB)
	}
}

func (w *walk) lists(path at, a, b []any) {
	for i := range max(len(a), len(b)) {
		var va, vb any
		if i < len(a) {
			va = a[i]
		}
		if i < len(b) {
			vb = b[i]
		}
		w.member(path.item(i), va, vb, i < len(a), i < len(b))
	}
}

func (w *walk) member(path at, a, b any, inA, inB bool) {
	switch {
	case inA && inB:
		w.compare(path, a, b)
	case w.ignored(path):
	case inA:
		w.add(path, OnlyFirst, a, nil)
	default:
		w.add(path, OnlySecond, nil, b)
	}
}

func (w *walk) add(path at, kind Kind, a, b any) {
	if len(w.result.Differences) >= w.options.Most {
		w.result.More++
		return
	}
	d := Difference{Path: path.path, Shape: path.shape, Kind: kind}
	if kind != OnlySecond {
		d.First = encode(a)
	}
	if kind != OnlyFirst {
		d.Second = encode(b)
	}
	w.result.Differences = append(w.result.Differences, d)
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// step is the way to a member: .name, or ["name"] where the name is not plain.
func step(name string) string {
	if plainName.MatchString(name) {
		return "." + name
	}
	return "[" + strconv.Quote(name) + "]"
}

// Placeholder stands in a shape for a name that may be contents.
const Placeholder = "{…}"

// fieldName is what the names of fields look like, as opposed to the keys of a map.
var fieldName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,39}$`)

func (p at) member(name string) at {
	shape := p.shape + Placeholder
	if fieldName.MatchString(name) {
		shape = p.shape + "." + name
	}
	return at{p.path + step(name), shape}
}

func (p at) item(i int) at {
	step := "[" + strconv.Itoa(i) + "]"
	return at{p.path + step, p.shape + step}
}

var place = regexp.MustCompile(`\[\d+\]`)

func (w *walk) ignored(at at) bool {
	path := at.path
	general := place.ReplaceAllLiteralString(path, "[*]")
	return slices.ContainsFunc(w.options.Ignore, func(p string) bool { return p == path || p == general })
}

func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "text"
	case json.Number:
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "list"
	default:
		return "object"
	}
}

func encode(v any) json.RawMessage {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // what was decoded always encodes
		return nil
	}
	return json.RawMessage(strings.TrimSuffix(b.String(), "\n"))
}
