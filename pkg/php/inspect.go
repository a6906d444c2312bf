package php

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// inspection is what a body says about how the call went.
type inspection struct {
	object  bool // the body is one JSON object in valid UTF-8
	success success
	// failed: an object says success:false, or an ErrorResponse IsError.
	failed bool
	// depth of the first such object; the body itself is at depth 0.
	depth int
	// throttled: the text of a failure is Tebra's throttle text.
	throttled bool
	// denied: a SecurityResponse says not Authenticated or not Authorized.
	denied bool
	// text is the most specific failure's own words, a JSON string, or nil.
	text json.RawMessage
	// errorType is the body's own type, unchecked, or "".
	errorType string
	// data is the body's data member, or the whole body where it has none.
	data json.RawMessage
}

// success is what the envelope's success member is.
type success int

const (
	successAbsent success = iota
	successTrue
	successFalse
	successOther // there, but no boolean
)

// inspect reads body, once for its validity and once for what it says; it builds
// nothing of it, because most answers are long lists. With failing, the body counts as
// a failure whatever it says, as that of an HTTP error does.
//
// Depth is bounded by json.Valid, which refuses more than 10,000 levels.
func inspect(body []byte, failing bool) inspection {
	if !json.Valid(body) || !utf8.Valid(body) {
		return inspection{throttled: failing && saysThrottled(body)}
	}
	s := scanner{body: body}
	s.space()
	if s.body[s.at] != '{' {
		return inspection{throttled: failing && saysThrottled(body)}
	}
	s.found.object = true
	s.object(envelope, 0, failing)
	if s.found.data == nil {
		s.found.data = bytes.TrimSpace(body)
	}
	return s.found
}

// section tells the objects whose members mean something of their own.
type section int

const (
	plain section = iota
	envelope
	errorResponse
	securityResponse
)

// remark is what an object says about itself, until it is known whether it is a
// failure.
type remark struct {
	failed, throttled bool
	text              json.RawMessage
}

// scanner walks JSON that is known to be valid, so it checks no syntax.
type scanner struct {
	body  []byte
	at    int
	found inspection
}

// value walks the value at s.at and leaves s.at after it. The remark of an object
// is returned for the object around it.
func (s *scanner) value(in section, depth int) remark {
	switch s.body[s.at] {
	case '{':
		return s.object(in, depth, false)
	case '[':
		s.array(depth)
	case '"':
		s.text()
	default:
		s.literal()
	}
	return remark{}
}

func (s *scanner) array(depth int) {
	s.at++
	for s.space(); s.body[s.at] != ']'; s.space() {
		if s.body[s.at] == ',' {
			s.at++
			continue
		}
		s.value(plain, depth+1)
	}
	s.at++
}

func (s *scanner) object(in section, depth int, failing bool) remark {
	says := remark{failed: failing}
	s.at++
	for s.space(); s.body[s.at] != '}'; s.space() {
		if s.body[s.at] == ',' {
			s.at++
			continue
		}
		name := memberName(s.text())
		s.space()
		s.at++ // the colon
		s.space()
		start := s.at
		inner := s.value(sectionOf(name), depth+1)
		s.member(in, &says, name, s.body[start:s.at], inner)
	}
	s.at++
	s.conclude(says, depth)
	return says
}

// member weighs one member of an object.
func (s *scanner) member(in section, says *remark, name, value []byte, inner remark) {
	switch string(name) {
	case "success":
		says.failed = says.failed || string(value) == "false"
	case "IsError":
		says.failed = says.failed || in == errorResponse && string(value) == "true"
	case "Authenticated", "Authorized":
		s.found.denied = s.found.denied || in == securityResponse && string(value) == "false"
	case "error", "message", "errors", "fault_string", "errorMessage", "ErrorMessage":
		says.hear(value, inner)
	}
	if in != envelope {
		return
	}
	switch string(name) {
	case "success":
		s.found.success = successOf(value)
	case "type":
		_ = json.Unmarshal(value, &s.found.errorType) // no string: stays as it is
	case "data":
		s.found.data = value
	}
}

// hear takes a member that says why: a text, or an object with a text.
func (r *remark) hear(value []byte, inner remark) {
	text := inner.text
	if value[0] == '"' && len(value) > len(`""`) {
		text = value
	}
	if r.text == nil {
		r.text = text
	}
	r.throttled = r.throttled || inner.throttled || saysThrottled(text)
}

// conclude is called at the end of each object, so for the innermost failure first: its
// words are the most specific.
func (s *scanner) conclude(says remark, depth int) {
	if !says.failed {
		return
	}
	if !s.found.failed {
		s.found.depth = depth
	}
	s.found.failed = true
	s.found.throttled = s.found.throttled || says.throttled
	if s.found.text == nil {
		s.found.text = says.text
	}
}

func sectionOf(name []byte) section {
	switch string(name) {
	case "ErrorResponse":
		return errorResponse
	case "SecurityResponse":
		return securityResponse
	}
	return plain
}

func successOf(value []byte) success {
	switch string(value) {
	case "true":
		return successTrue
	case "false":
		return successFalse
	}
	return successOther
}

// space skips white space.
func (s *scanner) space() {
	for s.at < len(s.body) {
		switch s.body[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// text skips a string and returns it with its quotes.
func (s *scanner) text() []byte {
	start := s.at
	s.at++
	for s.body[s.at] != '"' {
		if s.body[s.at] == '\\' {
			s.at++ // and what it escapes
		}
		s.at++
	}
	s.at++
	return s.body[start:s.at]
}

// literal skips a number, true, false or null.
func (s *scanner) literal() {
	for s.at < len(s.body) {
		switch s.body[s.at] {
		case ',', ']', '}', ' ', '\t', '\n', '\r':
			return
		}
		s.at++
	}
}

// memberName takes the quotes off a member's name, and resolves escapes where
// there are any: "succes\u0073" is success.
func memberName(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var name string
	_ = json.Unmarshal(quoted, &name) // it is valid: the body was
	return []byte(name)
}

// throttleReach is how far apart the two parts of Tebra's throttle text may be.
const throttleReach = 256

// saysThrottled reports whether text holds Tebra's throttle text, "429: GetPatients
// endpoint requested more than allowed over time interval 1000 milliseconds":
// 429, and soon after it "more than allowed" (FACTS).
func saysThrottled(text []byte) bool {
	end := bytes.Index(text, []byte("more than allowed"))
	if end < 0 {
		return false
	}
	return bytes.Contains(text[max(0, end-throttleReach):end], []byte("429"))
}
