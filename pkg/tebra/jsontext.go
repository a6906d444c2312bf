package tebra

import (
	"encoding/json"
	"iter"
	"strings"
)

// jsonSpace is what JSON calls white space (RFC 8259 section 2); Unicode has more.
const jsonSpace = " \t\r\n"

// object returns text without the space around it, "" when there is nothing or
// it is at fault: not a JSON object, or one of more than the given levels.
func object(field, text string, levels int) (string, *DecodeError) {
	text = strings.Trim(text, jsonSpace)
	switch {
	case text == "":
		return "", nil
	case strings.HasPrefix(text, "\uFEFF"):
		return "", malformed(field, "begins with a byte order mark: send the JSON without it")
	case strings.HasPrefix(text, "[object "):
		return "", malformed(field, `is "[object Object]": the client sent an object where it should have sent JSON.stringify(object)`)
	case nestsDeeper(text, levels):
		return "", malformed(field, "is nested more than %d levels deep", levels)
	case !json.Valid([]byte(text)):
		return "", malformed(field, "is not JSON")
	case text[0] != '{':
		return "", malformed(field, "is %s, not a JSON object", kind(text[0]))
	}
	return text, nil
}

// kind names the JSON value that begins with c.
func kind(c byte) string {
	switch c {
	case '{':
		return "a JSON object"
	case '[':
		return "a JSON array"
	case '"':
		return "a JSON string"
	case 't', 'f':
		return "a JSON boolean"
	case 'n':
		return "JSON null"
	default:
		return "a JSON number"
	}
}

// isNumber reports whether raw, a JSON value, is a number.
func isNumber(raw string) bool {
	return (raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9') && strings.Trim(raw, "+-.0123456789Ee") == ""
}

// nestsDeeper reports whether JSON text opens more objects and arrays within each
// other than levels. What it says of other text has no meaning.
func nestsDeeper(text string, levels int) bool {
	if strings.Count(text, "{")+strings.Count(text, "[") <= levels {
		return false
	}
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i += stringEnd(text[i:]) - 1
		case '{', '[':
			if depth++; depth > levels {
				return true
			}
		case '}', ']':
			depth--
		}
	}
	return false
}

// members yields the names and the raw values of the JSON object in text, in
// order, duplicates too: encoding/json would let the last one win silently. Of text
// that is no such object it yields what comes before the fault. Values are not
// empty and share memory with text.
func members(text string) iter.Seq2[string, string] {
	return func(yield func(name, raw string) bool) {
		rest, ok := strings.CutPrefix(strings.TrimLeft(text, jsonSpace), "{")
		for ok {
			var name, raw string
			if name, raw, rest, ok = cutMember(rest); !ok || !yield(name, raw) {
				return
			}
			rest, ok = strings.CutPrefix(rest, ",")
		}
	}
}

// cutMember cuts a name and its value off the inside of a JSON object.
func cutMember(s string) (name, raw, rest string, ok bool) {
	s = strings.TrimLeft(s, jsonSpace)
	if s == "" || s[0] != '"' {
		return "", "", "", false
	}
	end := stringEnd(s)
	name = unquote(s[:end])
	s, ok = strings.CutPrefix(strings.TrimLeft(s[end:], jsonSpace), ":")
	if !ok {
		return "", "", "", false
	}
	end = valueEnd(s)
	raw = strings.Trim(s[:end], jsonSpace)
	return name, raw, s[end:], raw != "" && end < len(s)
}

// valueEnd returns where the member's value that s begins with ends: before the
// next comma or brace of the object around it, or at the end of s.
func valueEnd(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			i += stringEnd(s[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(s)
}

// stringEnd returns the length of the JSON string that s begins with, all of s
// where that is cut short.
func stringEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}

// unquote returns the text of a JSON string, "" when raw is none. Half a surrogate
// pair becomes U+FFFD.
func unquote(raw string) string {
	if len(raw) >= 2 && stringEnd(raw) == len(raw) && raw[len(raw)-1] == '"' && !strings.Contains(raw, `\`) {
		return raw[1 : len(raw)-1]
	}
	var s string
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		return ""
	}
	return s
}
