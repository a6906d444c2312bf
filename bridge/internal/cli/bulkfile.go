package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"tebraproxy/pkg/tebra"
)

// bulkLine is a request in a file of many, one JSON object a line.
type bulkLine struct {
	Action        string          `json:"action"`
	Params        json.RawMessage `json:"params,omitempty"`
	UserID        string          `json:"userId,omitempty"`
	ID            string          `json:"id,omitempty"`
	CorrelationID string          `json:"correlationId,omitempty"`
	// Failed is why the line is in a file of failures. It is not read.
	Failed string `json:"failed,omitempty"`
}

// parseBulkLine reads a line. Its errors quote nothing of it.
func parseBulkLine(text []byte) (bulkLine, error) {
	var l bulkLine
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&l)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return l, errors.New(`it is not a JSON object; want {"action":"…","params":{…}}`)
	case errors.As(err, &kind):
		return l, fmt.Errorf("%s is a JSON %s, want %s", kind.Field, kind.Value, kind.Type)
	case err != nil:
		return l, fmt.Errorf("%w; known are action, params, userId, id and correlationId", err)
	case len(bytes.TrimSpace(text[dec.InputOffset():])) > 0:
		return l, errors.New("something follows its JSON object; want one a line")
	}
	if len(l.Params) == 0 {
		l.Params = json.RawMessage("{}")
	}
	return l, nil
}

// bulkSource reads requests from a file of many. It may be read more than once.
type bulkSource struct {
	r     io.ReadSeeker
	close func() error
}

// maxBulkStdin bounds what is read from stdin, which has to be kept, in bytes.
const maxBulkStdin = 64 << 20

// openBulk opens the file of that name, or what stdin holds for "-".
func openBulk(name string, stdin io.Reader) (*bulkSource, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usagef("--file: %w", err)
		}
		return &bulkSource{r: f, close: f.Close}, nil
	}
	text, err := io.ReadAll(io.LimitReader(stdin, maxBulkStdin+1))
	if err != nil {
		return nil, fmt.Errorf("reading stdin: %w", err)
	}
	if len(text) > maxBulkStdin {
		return nil, usagef("stdin has more than %d bytes; put it into a file, and give --file its name", maxBulkStdin)
	}
	return &bulkSource{r: bytes.NewReader(text), close: func() error { return nil }}, nil
}

// each calls do for every line that is not empty, until it returns an error.
func (s *bulkSource) each(do func(number int, text []byte) error) error {
	if _, err := s.r.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading the file of requests: %w", err)
	}
	lines := s.lines()
	for {
		number, text, err := lines.next()
		if err != nil || text == nil {
			return err
		}
		if err := do(number, text); err != nil {
			return err
		}
	}
}

// bulkLines goes through the lines of a source.
type bulkLines struct {
	scanner *bufio.Scanner
	number  int
}

func (s *bulkSource) lines() *bulkLines {
	scanner := bufio.NewScanner(s.r)
	scanner.Buffer(nil, maxParams+64<<10)
	return &bulkLines{scanner: scanner}
}

// next returns the next line that is not empty and its number, nil at the end. It is
// valid until the next call.
func (l *bulkLines) next() (int, []byte, error) {
	for l.scanner.Scan() {
		l.number++
		if text := bytes.TrimSpace(l.scanner.Bytes()); len(text) > 0 {
			return l.number, text, nil
		}
	}
	if err := l.scanner.Err(); err != nil {
		return 0, nil, fmt.Errorf("reading line %d of the file of requests: %w", l.number+1, err)
	}
	return 0, nil, nil
}

// failureFile takes the requests that failed. The file is made with the first one,
// for its owner only since params may be health data.
type failureFile struct {
	path string
	f    *os.File
	n    int
}

// newFailureFile returns the failures of the requests in source: at path, or beside
// the source. It refuses what is there already, which may not have been sent again.
func newFailureFile(path, source string) (*failureFile, error) {
	if path == "" {
		base := strings.TrimSuffix(source, ".jsonl")
		if source == "-" {
			base = "requests"
		}
		path = base + ".failed.jsonl"
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("failures would go to %s, which is there already; remove it, or name another file with --failures", path)
	}
	return &failureFile{path: path}, nil
}

func (f *failureFile) add(l bulkLine) error {
	if err := f.write(l); err != nil {
		return fmt.Errorf("noting a failure for later: %w", err)
	}
	f.n++
	return nil
}

func (f *failureFile) write(l bulkLine) (err error) {
	if f.f == nil {
		if f.f, err = os.OpenFile(f.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return err
		}
	}
	enc := json.NewEncoder(f.f)
	enc.SetEscapeHTML(false)
	return enc.Encode(l)
}

func (f *failureFile) close() error {
	if f.f == nil {
		return nil
	}
	if err := f.f.Close(); err != nil {
		return fmt.Errorf("noting the failures for later: %w", err)
	}
	return nil
}

// again returns the line with which a request that ended so is sent again. Where it
// had no effect, that is a new request. Where it may have had one, or still may, it
// keeps its ID, under which nothing is changed twice: what comes back is what
// became of it. A duplicate was made before under its ID, with whatever effect.
func again(r tebra.Request, named bulkLine, code tebra.ErrorCode) bulkLine {
	l := bulkLine{Action: r.Action, Params: r.Params, UserID: r.UserID, CorrelationID: named.CorrelationID, Failed: string(code)}
	switch code {
	case tebra.OutcomeUnknown, tebra.NoAnswer, tebra.DeadLettered, tebra.Duplicate, "":
		l.ID = r.ID
	}
	return l
}
