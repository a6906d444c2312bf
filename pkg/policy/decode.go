package policy

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxFileBytes bounds a policy file.
	maxFileBytes = 256 << 10
	// maxNesting bounds brackets within brackets: the YAML parser's time grows
	// with their square. The format itself needs five.
	maxNesting = 16
)

// value is something read from the file, with its place. Where the file has it
// in the wrong form, and that was reported, it has a place and is not set.
type value[T any] struct {
	v   T
	at  place
	set bool
}

// missing reports whether the file does not have the value in any form.
func (v value[T]) missing() bool { return v.at == place{} }

// or returns the value, or otherwise where it is not set.
func (v value[T]) or(otherwise T) T {
	if !v.set {
		return otherwise
	}
	return v.v
}

// document is a policy file as it is written: every value has the right kind,
// and nothing is said yet about what it means.
type document struct {
	version value[int]
	lanes   []laneEntry
	actions []actionEntry
	users   value[usersEntry]
	probe   value[string]
}

type laneEntry struct {
	name     value[string]
	interval value[time.Duration]
	burst    value[int]
}

type actionEntry struct {
	name    value[string]
	effect  value[string]
	roles   value[[]value[string]]
	timeout value[time.Duration]
	ttl     value[time.Duration]
	lane    value[string]
}

type usersEntry struct {
	source   value[string]
	claim    value[string]
	cache    value[time.Duration]
	accounts value[[]accountEntry]
	anyone   value[accountEntry]
}

type accountEntry struct {
	id       value[string]
	roles    value[[]value[string]]
	disabled value[bool]
}

// decoder turns a syntax tree into a document. The library's own decoder stops
// at the first mistake; this one goes on and collects them all.
type decoder struct{ problems }

// decode reads data, and reports whether there is a document at all. What is not
// YAML is the only problem that hides others.
func (d *decoder) decode(data []byte) (document, bool) {
	var doc document
	root, ok := d.parse(data)
	if !ok {
		return doc, false
	}
	isMapping := d.fields(root, "the policy", map[string]func(ast.Node){
		"version": func(n ast.Node) { doc.version = d.integer(n) },
		"lanes": func(n ast.Node) {
			d.entries(n, "lanes", func(name value[string], n ast.Node) {
				doc.lanes = append(doc.lanes, d.lane(name, n))
			})
		},
		"actions": func(n ast.Node) {
			d.entries(n, "actions", func(name value[string], n ast.Node) {
				if e, ok := d.action(name, n); ok {
					doc.actions = append(doc.actions, e)
				}
			})
		},
		"users": func(n ast.Node) { doc.users = d.users(n) },
		"probe": func(n ast.Node) { doc.probe = d.text(n) },
	})
	return doc, isMapping
}

func (d *decoder) lane(name value[string], n ast.Node) laneEntry {
	e := laneEntry{name: name}
	d.fields(n, "a lane", map[string]func(ast.Node){
		"interval": func(n ast.Node) { e.interval = d.duration(n) },
		"burst":    func(n ast.Node) { e.burst = d.integer(n) },
	})
	return e
}

func (d *decoder) action(name value[string], n ast.Node) (actionEntry, bool) {
	e := actionEntry{name: name}
	ok := d.fields(n, "an action", map[string]func(ast.Node){
		"effect":  func(n ast.Node) { e.effect = d.text(n) },
		"roles":   func(n ast.Node) { e.roles = d.texts(n) },
		"timeout": func(n ast.Node) { e.timeout = d.duration(n) },
		"ttl":     func(n ast.Node) { e.ttl = d.duration(n) },
		"lane":    func(n ast.Node) { e.lane = d.text(n) },
	})
	return e, ok
}

func (d *decoder) users(n ast.Node) value[usersEntry] {
	var e usersEntry
	ok := d.fields(n, "users", map[string]func(ast.Node){
		"source":   func(n ast.Node) { e.source = d.text(n) },
		"claim":    func(n ast.Node) { e.claim = d.text(n) },
		"cache":    func(n ast.Node) { e.cache = d.duration(n) },
		"accounts": func(n ast.Node) { e.accounts = d.accounts(n) },
		"anyone":   func(n ast.Node) { e.anyone = d.anyone(n) },
	})
	return value[usersEntry]{v: e, at: placeOf(n), set: ok}
}

func (d *decoder) accounts(n ast.Node) value[[]accountEntry] {
	var list []accountEntry
	d.entries(n, "accounts", func(id value[string], n ast.Node) {
		e := accountEntry{id: id}
		d.fields(n, "an account", map[string]func(ast.Node){
			"roles":    func(n ast.Node) { e.roles = d.texts(n) },
			"disabled": func(n ast.Node) { e.disabled = d.boolean(n) },
		})
		list = append(list, e)
	})
	return value[[]accountEntry]{v: list, at: placeOf(n), set: true}
}

func (d *decoder) anyone(n ast.Node) value[accountEntry] {
	var e accountEntry
	d.fields(n, "anyone", map[string]func(ast.Node){
		"roles": func(n ast.Node) { e.roles = d.texts(n) },
	})
	return value[accountEntry]{v: e, at: placeOf(n), set: true}
}

// parse returns the one document that data holds.
func (d *decoder) parse(data []byte) (ast.Node, bool) {
	top := place{1, 1}
	if len(data) > maxFileBytes {
		d.add(top, "the file has %d bytes: at most %d are read; keep a long list of users in Firebase", len(data), maxFileBytes)
		return nil, false
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if at, bad := invalidUTF8(data); bad {
		d.add(at, "this byte is not UTF-8: save the file as UTF-8")
		return nil, false
	}
	tokens := lexer.Tokenize(string(data))
	if at, bad := tooDeep(tokens); bad {
		d.add(at, "more than %d brackets within each other: a policy needs five", maxNesting)
		return nil, false
	}
	// Keys that appear twice are reported by entries, all of them.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.syntax(err)
		return nil, false
	}
	return d.body(file)
}

func (d *decoder) body(file *ast.File) (ast.Node, bool) {
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 0:
		d.add(place{1, 1}, "the file is empty: begin with version: 1")
		return nil, false
	case 1:
		return bodies[0], true
	default:
		d.add(placeOf(bodies[1]), "a second document begins here: a policy is one document without directives")
		return nil, false
	}
}

func (d *decoder) syntax(err error) {
	var located yaml.Error
	if !errors.As(err, &located) {
		d.add(place{1, 1}, "this is neither YAML nor JSON: %v", err)
		return
	}
	d.add(placeOfToken(located.GetToken()), "this is neither YAML nor JSON: %s", located.GetMessage())
}

// fields reads a mapping with the known keys and no others, and reports whether
// n is a mapping at all.
func (d *decoder) fields(n ast.Node, what string, known map[string]func(ast.Node)) bool {
	return d.entries(n, what, func(key value[string], n ast.Node) {
		read, ok := known[key.v]
		if !ok {
			names := slices.Sorted(maps.Keys(known))
			d.add(key.at, "%s has no key %s: want %s", what, quote(key.v), strings.Join(names, ", "))
			return
		}
		read(n)
	})
}

// entries reads a mapping with any keys, each of them once, and reports whether
// n is a mapping at all.
func (d *decoder) entries(n ast.Node, what string, each func(key value[string], n ast.Node)) bool {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.add(placeOf(n), "%s: want keys with values, found %s", what, kind(n))
		return false
	}
	first := make(map[string]place, len(m.Values))
	for _, entry := range m.Values {
		key, ok := d.key(entry.Key)
		if !ok {
			continue
		}
		if at, twice := first[key.v]; twice {
			d.add(key.at, "%s is here twice, first at %d:%d: remove one", quote(key.v), at.line, at.column)
			continue
		}
		first[key.v] = key.at
		each(key, entry.Value)
	}
	return true
}

func (d *decoder) key(n ast.MapKeyNode) (value[string], bool) {
	s, ok := n.(*ast.StringNode)
	if !ok {
		d.add(placeOf(n), "a key has to be text: put it in quotes, and write out what it stands for")
		return value[string]{}, false
	}
	return value[string]{v: s.Value, at: placeOf(n), set: true}, true
}

func (d *decoder) text(n ast.Node) value[string] {
	s, ok := n.(*ast.StringNode)
	if !ok {
		d.add(placeOf(n), "want text, found %s", kind(n))
		return value[string]{at: placeOf(n)}
	}
	return value[string]{v: s.Value, at: placeOf(n), set: true}
}

func (d *decoder) texts(n ast.Node) value[[]value[string]] {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.add(placeOf(n), "want a list such as [one, another], found %s", kind(n))
		return value[[]value[string]]{at: placeOf(n)}
	}
	list := make([]value[string], 0, len(s.Values))
	for _, item := range s.Values {
		if t := d.text(item); t.set {
			list = append(list, t)
		}
	}
	return value[[]value[string]]{v: list, at: placeOf(n), set: true}
}

func (d *decoder) integer(n ast.Node) value[int] {
	i, ok := n.(*ast.IntegerNode)
	if !ok {
		d.add(placeOf(n), "want a whole number, found %s", kind(n))
		return value[int]{at: placeOf(n)}
	}
	v, err := strconv.Atoi(i.Token.Value)
	if err != nil {
		d.add(placeOf(n), "want a decimal whole number, found %s", quote(i.Token.Value))
		return value[int]{at: placeOf(n)}
	}
	return value[int]{v: v, at: placeOf(n), set: true}
}

func (d *decoder) boolean(n ast.Node) value[bool] {
	b, ok := n.(*ast.BoolNode)
	if !ok {
		d.add(placeOf(n), "want true or false, found %s", kind(n))
		return value[bool]{at: placeOf(n)}
	}
	return value[bool]{v: b.Value, at: placeOf(n), set: true}
}

func (d *decoder) duration(n ast.Node) value[time.Duration] {
	s, ok := n.(*ast.StringNode)
	if !ok {
		d.add(placeOf(n), "want a duration with its unit, such as 30s, 1250ms or 4h, found %s", kind(n))
		return value[time.Duration]{at: placeOf(n)}
	}
	v, err := time.ParseDuration(s.Value)
	if err != nil {
		d.add(placeOf(n), "%s is no duration: want a number with its unit, such as 30s, 1250ms or 4h", quote(s.Value))
		return value[time.Duration]{at: placeOf(n)}
	}
	return value[time.Duration]{v: v, at: placeOf(n), set: true}
}

// kind says for people what n is.
func kind(n ast.Node) string {
	switch n := n.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.MappingNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return "the text " + quote(n.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false (put it in quotes if it is a name)"
	case *ast.AnchorNode, *ast.AliasNode:
		return "an anchor or alias (write the value out)"
	case *ast.TagNode:
		return "a tag (leave it out)"
	default:
		return "something a policy never has"
	}
}

// quote quotes s for a message, shortened.
func quote(s string) string {
	const longest = 80
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}

// placeOf returns where n begins. A block mapping's own token is the colon after
// its first key, so that key is asked instead.
func placeOf(n ast.Node) place {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return placeOfToken(m.Values[0].Key.GetToken())
	}
	return placeOfToken(n.GetToken())
}

func placeOfToken(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}

// tooDeep returns where brackets are first nested deeper than maxNesting.
func tooDeep(tokens token.Tokens) (place, bool) {
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		}
		if depth > maxNesting {
			return placeOfToken(t), true
		}
	}
	return place{}, false
}

// invalidUTF8 returns where the first byte stands that is not UTF-8.
func invalidUTF8(data []byte) (place, bool) {
	if utf8.Valid(data) {
		return place{}, false
	}
	at := place{1, 1}
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		if r == utf8.RuneError && size == 1 {
			return at, true
		}
		at.column++
		if r == '\n' {
			at = place{at.line + 1, 1}
		}
		data = data[size:]
	}
	return at, true
}
