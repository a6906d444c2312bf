package push

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
)

// MaxBody is the size in bytes of the largest body that Pub/Sub can push, rounded
// up: 10,000,000 bytes of data (FACTS, Pub/Sub: 10 MB a message) are 13,333,336
// in base64; 100 attributes of 256 + 1,024 bytes are 768,000 where every byte is
// escaped to six; the rest of the envelope is below 20,000.
//
// It is the bound to use: the functions don't know the bridge's
// MAX_REQUEST_BYTES, and a message refused for its size alone would only come
// again until its attempts are spent. Memory is taken by what arrives, not by
// what may: a request of MAX_REQUEST_BYTES (1 MiB) is about 1.4 MiB here.
const MaxBody = 14 << 20

// keptBuffer is the size in bytes up to which a buffer is used again. Larger ones
// are rare, and would stay as large as the largest request ever seen.
const keptBuffer = 256 << 10

// trustedLength is the size in bytes up to which room is made for what
// Content-Length claims, before it has arrived. A request of MAX_REQUEST_BYTES fits.
const trustedLength = 2 << 20

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Error says why a request holds no message. Its text never has any part of the
// body in it.
type Error struct {
	// Status is the HTTP status to answer with: 405, 415, 413 or 400. With each of
	// them Pub/Sub delivers again and, with a dead-letter policy, gives up at last.
	Status int
	// Reason is what was wrong, for people.
	Reason string
	// Err is why the body could not be read to its end, or nil.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("push request refused with %d: %s: %v", e.Status, e.Reason, e.Err)
	}
	return fmt.Sprintf("push request refused with %d: %s", e.Status, e.Reason)
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// Read returns the message that r brings. The body may have at most maxBody
// bytes ([MaxBody] unless there is a reason). It is read to its end but not
// closed, which is the server's to do. Nothing of the message refers to the body.
//
// Every error is an [*Error]: 405 for a method other than POST, 415 for a content
// type other than application/json in UTF-8, 413 for a longer body, 400 for a
// body that breaks off or that [Decode] refuses. A request without a Content-Type
// claims nothing, so its body decides.
//
// How long reading may take is up to the server's ReadTimeout.
func Read(r *http.Request, maxBody int64) (Message, error) {
	if r.Method != http.MethodPost {
		return Message{}, &Error{Status: http.StatusMethodNotAllowed, Reason: "the method is not POST"}
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		return Message{}, &Error{Status: http.StatusUnsupportedMediaType, Reason: "the content type is not application/json in UTF-8"}
	}
	if r.ContentLength > maxBody {
		return Message{}, tooLarge(maxBody)
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer release(buf)
	if n := min(r.ContentLength, trustedLength); n > 0 {
		buf.Grow(int(n) + bytes.MinRead) // so that ReadFrom finds room for the end of the body, too
	}
	n, err := buf.ReadFrom(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return Message{}, unreadable(err, maxBody)
	}
	if n > maxBody {
		return Message{}, tooLarge(maxBody)
	}
	return Decode(buf.Bytes())
}

// unreadable is the error for a body that broke off; a server's own limit
// (http.MaxBytesReader) breaks it off, too.
func unreadable(err error, maxBody int64) error {
	if limit := (*http.MaxBytesError)(nil); errors.As(err, &limit) {
		return tooLarge(min(limit.Limit, maxBody))
	}
	return &Error{Status: http.StatusBadRequest, Reason: "the body could not be read to its end", Err: err}
}

func tooLarge(maxBody int64) error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Reason: fmt.Sprintf("the body has more than %d bytes", maxBody)}
}

func release(buf *bytes.Buffer) {
	if buf.Cap() > keptBuffer {
		return
	}
	buf.Reset()
	buffers.Put(buf)
}

// isJSON reports whether contentType is absent, or JSON in UTF-8.
func isJSON(contentType string) bool {
	if contentType == "" || contentType == "application/json" {
		return true
	}
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil || mediaType != "application/json" {
		return false
	}
	charset, given := params["charset"]
	return !given || strings.EqualFold(charset, "utf-8")
}
