package tebra

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds on what a request may hold (DESIGN section 4).
const (
	// MaxNameBytes bounds each ID, the action and the user, so that they always
	// fit into a Pub/Sub attribute.
	MaxNameBytes = 256
	// DefaultMaxRequestBytes bounds a whole entry, names and values together.
	DefaultMaxRequestBytes = 1 << 20
)

// Request is what an application asks for. A Request that [DecodeEntry] returned
// without error has an action, a user and params; its ID and correlation ID are
// empty where the entry named none, until [Request.Identify] fills them in.
type Request struct {
	ID            string
	Action        string
	Params        json.RawMessage // always a JSON object
	UserID        string
	Timestamp     string // as the client wrote it; never used to decide anything
	CorrelationID string
	Metadata      json.RawMessage // a JSON object, or nil
	Traceparent   string          // a well-formed W3C traceparent, or ""
	ReplayOf      string          // the entry that an operator replays with this one, or ""
}

// DecodeError says why an entry is not a request. Its text names fields and
// sizes, never contents, so that it may be logged.
type DecodeError struct {
	Code   ErrorCode // Malformed or TooLarge
	Field  string    // the field at fault, cut to something fit for a log line, or ""
	Reason string    // for people
}

func (e *DecodeError) Error() string {
	if e.Field == "" {
		return e.Reason
	}
	return "field " + e.Field + ": " + e.Reason
}

func malformed(field, format string, args ...any) *DecodeError {
	return &DecodeError{Code: Malformed, Field: field, Reason: fmt.Sprintf(format, args...)}
}

// IsDecodeError returns the [*DecodeError] in err's chain, if there is one.
func IsDecodeError(err error) (*DecodeError, bool) {
	var e *DecodeError
	ok := errors.As(err, &e)
	return e, ok
}

// printable cuts a field's name from outside to something fit for a log line.
func printable(name string) string {
	const most = 40
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	q := fmt.Sprintf("%q", name)
	return q[1 : len(q)-1]
}

// Identify fills in what the client left out: the ID by derive, which is only
// called when needed, and the correlation ID by the ID.
func (r *Request) Identify(derive func() string) {
	if r.ID == "" {
		r.ID = derive()
	}
	if r.CorrelationID == "" {
		r.CorrelationID = r.ID
	}
}

// PublishedBy returns the verified user that a publish endpoint noted in
// _metadata, or "" when it noted none. It returns a [*DecodeError] when there is
// a publishedBy that is not text, is empty, or is there twice: who published
// then can't be known.
func (r Request) PublishedBy() (string, error) {
	user := ""
	for name, raw := range members(string(r.Metadata)) {
		if name != "publishedBy" {
			continue
		}
		if user != "" {
			return "", malformed(fieldMetadata, "publishedBy is there twice")
		}
		if raw[0] != '"' {
			return "", malformed(fieldMetadata, "publishedBy is %s, not text", kind(raw[0]))
		}
		if user = unquote(raw); user == "" {
			return "", malformed(fieldMetadata, "publishedBy is empty")
		}
	}
	return user, nil
}

// AppendJSON appends the request as one JSON object, the data of a Pub/Sub
// message, to dst. [DecodeMessage] reads it back.
func (r Request) AppendJSON(dst []byte) []byte {
	dst = appendMember(append(dst, '{'), fieldID, r.ID)
	dst = appendMember(append(dst, ','), fieldAction, r.Action)
	dst = append(dst, `,"params":`...)
	if len(r.Params) == 0 {
		dst = append(dst, `{}`...)
	}
	dst = append(dst, r.Params...)
	dst = appendMember(append(dst, ','), fieldUserID, r.UserID)
	dst = appendMember(append(dst, ','), fieldTimestamp, r.Timestamp)
	dst = appendMember(append(dst, ','), fieldCorrelationID, r.CorrelationID)
	if len(r.Metadata) > 0 {
		dst = append(dst, `,"_metadata":`...)
		dst = append(dst, r.Metadata...)
	}
	if r.Traceparent != "" {
		dst = appendMember(append(dst, ','), fieldTraceparent, r.Traceparent)
	}
	if r.ReplayOf != "" {
		dst = appendMember(append(dst, ','), fieldReplayOf, r.ReplayOf)
	}
	return append(dst, '}')
}

func appendMember(dst []byte, name, value string) []byte {
	dst = append(dst, '"')
	dst = append(dst, name...)
	dst = append(dst, `":`...)
	return appendString(dst, value)
}

// appendString appends s as a JSON string. Nearly all our strings are plain
// ASCII, which needs no second look.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return appendEscaped(dst, s)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// appendEscaped is appendString for any s. What is not UTF-8 becomes U+FFFD.
func appendEscaped(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', byte(c))
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		default:
			dst = utf8.AppendRune(dst, c)
		}
	}
	return append(dst, '"')
}
