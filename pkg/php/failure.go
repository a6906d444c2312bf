package php

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// connectFailure says why no connection came about. Nothing was exchanged yet
// but addresses and certificates, so the error's own text is safe for logs.
func connectFailure(err error) string {
	if why := knownFailure(err); why != "" {
		return why
	}
	return clip(err.Error(), 256)
}

// sentFailure says why an answer did not come, or not whole. The texts of
// net/http quote what the server sent ("malformed HTTP response …"), so they are
// not used.
func sentFailure(err error) string {
	if why := knownFailure(err); why != "" {
		return why
	}
	return "what came is not HTTP, or the connection broke"
}

// knownFailure returns words for the failures that can be told by type, or "".
func knownFailure(err error) string {
	var (
		timeout net.Error
		dns     *net.DNSError
		errno   syscall.Errno
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the host name is not known to DNS"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "time was up"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	}
	return ""
}

// clip makes s fit for one line of at most limit bytes: valid UTF-8, control
// characters as spaces, cut between characters.
func clip(s string, limit int) string {
	const more = "…"
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD")))
	if len(s) <= limit {
		return s
	}
	end := limit - len(more)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + more
}
