package push

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// maxDepth is how deep values may nest. The envelope needs 3; the rest is for
// fields that Google may add.
const maxDepth = 32

// parser walks once over a JSON text (RFC 8259) that is known to be UTF-8. Its
// errors give a position, never a part of the text.
type parser struct {
	text  []byte
	pos   int
	depth int
}

func (p *parser) fail(what string) error {
	return malformed(fmt.Sprintf("%s, at byte %d", what, p.pos))
}

// next returns the first byte after white space, without taking it, or 0 at the
// end. A 0 in the text itself fits nowhere in the grammar either.
func (p *parser) next() byte {
	for ; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// take takes c if it comes next.
func (p *parser) take(c byte) bool {
	if p.next() != c {
		return false
	}
	p.pos++
	return true
}

// literal takes word if it comes next.
func (p *parser) literal(word string) bool {
	p.next()
	if !bytes.HasPrefix(p.text[p.pos:], []byte(word)) {
		return false
	}
	p.pos += len(word)
	return true
}

// null takes a null if it comes next.
func (p *parser) null() bool { return p.literal("null") }

// end refuses anything but white space.
func (p *parser) end() error {
	if p.next(); p.pos < len(p.text) {
		return p.fail("text after the end of the JSON")
	}
	return nil
}

// object takes an object. member is called with each name, and takes the value.
func (p *parser) object(member func(name []byte) error) error {
	if !p.take('{') {
		return p.fail("no object where one was expected")
	}
	return p.list('}', func() error {
		name, err := p.quoted()
		if err != nil {
			return err
		}
		if !p.take(':') {
			return p.fail("no colon after a name")
		}
		return member(name)
	})
}

// list takes what element takes, any number of times with commas between, up to
// and with the closing byte.
func (p *parser) list(closing byte, element func() error) error {
	if p.depth == maxDepth {
		return p.fail("values nested too deep")
	}
	p.depth++
	defer func() { p.depth-- }()
	if p.take(closing) {
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if p.take(closing) {
			return nil
		}
		if !p.take(',') {
			return p.fail("neither a comma nor the end after a value")
		}
	}
}

// quoted takes a string and returns what it says. The result may be part of the
// text.
func (p *parser) quoted() ([]byte, error) {
	if p.next() != '"' {
		return nil, p.fail("no string where one was expected")
	}
	inside := p.text[p.pos+1:]
	length := bytes.IndexByte(inside, '"')
	if length < 0 {
		return nil, p.fail("a string without its end")
	}
	inside = inside[:length]
	if bytes.IndexByte(inside, '\\') >= 0 {
		return p.escaped()
	}
	if hasControl(inside) {
		return nil, p.fail("a control character in a string")
	}
	p.pos += 1 + length + 1
	return inside, nil
}

// escaped takes a string that has escapes, which the standard library knows best.
// They are rare with Google; its emulator escapes every slash.
func (p *parser) escaped() ([]byte, error) {
	end := p.pos + 1
	for end < len(p.text) && p.text[end] != '"' {
		if p.text[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(p.text) {
		return nil, p.fail("a string without its end")
	}
	var s string
	if json.Unmarshal(p.text[p.pos:end+1], &s) != nil {
		return nil, p.fail("a control character or a wrong escape in a string")
	}
	p.pos = end + 1
	return []byte(s), nil
}

func hasControl(text []byte) bool {
	for _, c := range text {
		if c < ' ' {
			return true
		}
	}
	return false
}

// number takes a number and returns its text.
func (p *parser) number() ([]byte, error) {
	c := p.next()
	start := p.pos
	if c == '-' {
		p.pos++
	}
	if !p.integer() {
		return nil, p.fail("no value where one was expected")
	}
	if p.at('.') {
		p.pos++
		if !p.digits() {
			return nil, p.fail("a number without digits after its point")
		}
	}
	if p.at('e') || p.at('E') {
		p.pos++
		if p.at('+') || p.at('-') {
			p.pos++
		}
		if !p.digits() {
			return nil, p.fail("a number without digits in its exponent")
		}
	}
	return p.text[start:p.pos], nil
}

// integer takes digits that don't begin with a zero, or one zero.
func (p *parser) integer() bool {
	if p.at('0') {
		p.pos++
		return true
	}
	return p.digits()
}

// digits takes digits and reports whether there were any.
func (p *parser) digits() bool {
	start := p.pos
	for p.pos < len(p.text) && '0' <= p.text[p.pos] && p.text[p.pos] <= '9' {
		p.pos++
	}
	return p.pos > start
}

// at reports whether the very next byte is c.
func (p *parser) at(c byte) bool { return p.pos < len(p.text) && p.text[p.pos] == c }

// skip takes any value.
func (p *parser) skip() error {
	switch p.next() {
	case '{':
		return p.object(func([]byte) error { return p.skip() })
	case '[':
		p.pos++
		return p.list(']', p.skip)
	case '"':
		_, err := p.quoted()
		return err
	}
	if p.literal("true") || p.literal("false") || p.null() {
		return nil
	}
	_, err := p.number()
	return err
}
