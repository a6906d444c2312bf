package php

import (
	"net/http"
	"regexp"
	"strings"
)

// maxHeaderBytes bounds a header value made of something from outside. Servers
// commonly refuse a request when all its headers exceed 8 KiB.
const maxHeaderBytes = 1024

// headerText makes s, whatever it holds, a header value that can't break out of
// its line: every byte that is not visible ASCII, and % itself, is written as
// %XX. So two different IDs never become one, and an ordinary ID stays as it is.
// It returns "" where the result would exceed maxHeaderBytes; the header is then left out.
func headerText(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c > ' ' && c < 0x7f && c != '%':
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
		if b.Len() > maxHeaderBytes {
			return ""
		}
	}
	return b.String()
}

// traceparentPattern is the version-00 form of W3C Trace Context.
var traceparentPattern = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// setOutside sets the headers whose values came from outside: Idempotency-Key and
// X-Correlation-ID escaped by [headerText], traceparent only when well formed.
// What is empty or doesn't fit is left out; the request never fails for it.
func setOutside(h http.Header, r Request) {
	if v := headerText(r.RequestID); v != "" {
		h.Set("Idempotency-Key", v)
	}
	if v := headerText(r.CorrelationID); v != "" {
		h.Set("X-Correlation-ID", v)
	}
	if traceparentPattern.MatchString(r.Traceparent) {
		h.Set("traceparent", r.Traceparent)
	}
}

// fitsHeader reports whether s can be a header value as it is.
func fitsHeader(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}
