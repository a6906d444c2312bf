package php

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// classify turns a status and a body read to its end into a sighting.
func (c *Client) classify(status int, header http.Header, body []byte) sighting {
	in := inspect(body, status >= 400)
	s := sighting{finding: findingOf(status, in), status: status, cause: cause(status, len(body), in)}
	switch s.finding {
	case answered, bare:
		s.data = in.data
	case refused:
		s.text = c.quote(in.text)
	case throttled, tooEarly, failed:
		s.retryAfter = retryAfter(header.Get("Retry-After"), c.now())
	}
	return s
}

// findingOf weighs the status first; what the body says counts for a success, and
// where it says that Tebra throttled.
func findingOf(status int, in inspection) finding {
	switch {
	case status >= 200 && status <= 299:
		return in.finding()
	case status >= 400 && in.throttled:
		return throttled
	case status == http.StatusSeeOther:
		// It says that the request was dealt with and its result is elsewhere.
		return garbled
	case status >= 300 && status <= 399:
		return misconfigured
	case status >= 400 && status <= 499:
		return findingOf4xx(status)
	case status >= 500 && status <= 599:
		return failed
	}
	return garbled
}

func findingOf4xx(status int) finding {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusProxyAuthRequired, http.StatusMisdirectedRequest:
		return misconfigured
	case http.StatusRequestTimeout:
		return lost
	case http.StatusTooEarly:
		return tooEarly
	case http.StatusTooManyRequests:
		return throttled
	}
	return refused
}

// finding says what a body that came with a 2xx means. A failure anywhere in it
// outweighs the success around it.
func (in inspection) finding() finding {
	switch {
	case !in.object:
		return garbled
	case in.throttled:
		return throttled
	case in.denied:
		return misconfigured
	case in.failed:
		return refused
	case in.success == successTrue:
		return answered
	case in.success == successAbsent:
		return bare
	}
	return garbled
}

// apiErrorTypes are the values of type in the API's errors (FACTS). Only these
// are repeated in a cause: any other text of the API could be anything.
var apiErrorTypes = []string{
	"json_error", "validation_error", "authentication_error", "method_error",
	"soap_fault", "configuration_error", "internal_error",
}

// cause describes an answer for logs, in our words.
func cause(status, size int, in inspection) string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP %d, %d bytes", status, size)
	if i := slices.Index(apiErrorTypes, in.errorType); i >= 0 {
		b.WriteString(", type " + apiErrorTypes[i])
	}
	switch {
	case in.throttled:
		b.WriteString(", says that Tebra throttled")
	case in.denied:
		b.WriteString(", SecurityResponse says that the API's Tebra account is not authenticated or not authorized")
	case status >= 300 && status <= 399:
		b.WriteString(", a redirect, which is never followed")
	case in.failed && status < 300:
		fmt.Fprintf(&b, ", hides a failure at depth %d", in.depth)
	case !in.object && status < 300:
		b.WriteString(", is not a JSON object")
	case in.success != successTrue && status < 300:
		b.WriteString(", has no boolean success")
	}
	return b.String()
}

// quote returns the text that a JSON string holds, fit for a user's answer: one line,
// bounded, and without our key, should the API have repeated it.
func (c *Client) quote(raw json.RawMessage) string {
	var text string
	if len(raw) == 0 || json.Unmarshal(raw, &text) != nil {
		return ""
	}
	return clip(strings.ReplaceAll(text, c.apiKey, "[key]"), MaxUserTextBytes)
}

// retryAfter reads a Retry-After header, seconds or a date, into 0 to
// MaxRetryAfter. What can't be read is 0.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(MaxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter)
}
