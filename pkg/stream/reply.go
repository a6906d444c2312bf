package stream

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Entry is one entry of a stream.
type Entry struct {
	ID string
	// Fields holds names and values in turn, in the order in which they were
	// added, duplicates included. It is nil when the entry was deleted.
	Fields []string
}

// replyError is an error that the Redis server answered with; go-redis knows it
// by its method.
type replyError string

func (e replyError) Error() string { return string(e) }
func (replyError) RedisError()     {}

// errReply is returned for a reply that is no valid RESP or not of the shape
// that the command's documentation promises.
var errReply = errors.New("unexpected reply from Redis")

// reply walks a RESP2 or RESP3 reply. go-redis would decode entries into maps,
// which loses duplicate fields and allocates several times per field; here all
// strings of a batch share one copy of the reply.
type reply struct {
	text string
	pos  int
}

// head reads the next value's first line: its type, and its length or content.
func (r *reply) head() (kind byte, line string, err error) {
	end := strings.Index(r.text[r.pos:], "\r\n")
	if end < 1 {
		return 0, "", fmt.Errorf("%w: it ends within a line", errReply)
	}
	kind, line = r.text[r.pos], r.text[r.pos+1:r.pos+end]
	r.pos += end + 2
	if kind == '-' {
		return 0, "", replyError(line)
	}
	return kind, line, nil
}

// array reads the head of an array and returns its length, -1 for a null. The
// length of a map is that of the array of its names and values.
func (r *reply) array() (int, error) {
	kind, line, err := r.head()
	if err != nil {
		return 0, err
	}
	if kind == '_' {
		return -1, nil
	}
	n, err := strconv.Atoi(line)
	if err != nil || n < -1 || n > len(r.text) {
		return 0, fmt.Errorf("%w: a length is no number", errReply)
	}
	switch kind {
	case '*', '~':
		return n, nil
	case '%':
		return 2 * n, nil
	case '$':
		if n == -1 {
			return -1, nil
		}
	}
	return 0, fmt.Errorf("%w: an array was expected", errReply)
}

// str reads a bulk or simple string.
func (r *reply) str() (string, error) {
	kind, line, err := r.head()
	if err != nil {
		return "", err
	}
	if kind == '+' || kind == ':' {
		return line, nil
	}
	if kind != '$' {
		return "", fmt.Errorf("%w: a string was expected", errReply)
	}
	n, err := strconv.Atoi(line)
	if err != nil || n < 0 || n > len(r.text)-r.pos-2 {
		return "", fmt.Errorf("%w: a string is longer than the reply", errReply)
	}
	s := r.text[r.pos : r.pos+n]
	r.pos += n + 2
	return s, nil
}

// strs reads an array of strings; a null is an empty one.
func (r *reply) strs(slab []string) ([]string, error) {
	n, err := r.array()
	if err != nil {
		return nil, err
	}
	for range n {
		s, err := r.str()
		if err != nil {
			return nil, err
		}
		slab = append(slab, s)
	}
	return slab, nil
}

// entries reads an array of entries, each an ID and an array of fields, or a
// null in its place.
func (r *reply) entries() ([]Entry, error) {
	n, err := r.array()
	if err != nil || n <= 0 {
		return nil, err
	}
	const usualFields = 14
	list := make([]Entry, 0, min(n, 4096))
	slab := make([]string, 0, min(n, 4096)*usualFields)
	for range n {
		e, err := r.entry(&slab)
		if err != nil {
			return nil, err
		}
		if e.ID != "" {
			list = append(list, e)
		}
	}
	return list, nil
}

// entry reads one entry, whose fields it appends to slab.
func (r *reply) entry(slab *[]string) (Entry, error) {
	n, err := r.array()
	if err != nil || n == -1 {
		return Entry{}, err
	}
	if n != 2 {
		return Entry{}, fmt.Errorf("%w: an entry that is not an ID and fields", errReply)
	}
	id, err := r.str()
	if err != nil {
		return Entry{}, err
	}
	start := len(*slab)
	all, err := r.strs(*slab)
	if err != nil {
		return Entry{}, err
	}
	*slab = all
	if len(all) == start {
		return Entry{ID: id}, nil
	}
	return Entry{ID: id, Fields: all[start:len(all):len(all)]}, nil
}

// parseRead reads the reply to an XREADGROUP of one stream.
func parseRead(raw []byte) ([]Entry, error) {
	r := reply{text: string(raw)}
	n, err := r.array()
	if err != nil || n <= 0 {
		return nil, err
	}
	if r.text[0] == '*' { // RESP2 wraps the pair of stream and entries once more
		if n, err = r.array(); err != nil {
			return nil, err
		}
	}
	if n != 2 {
		return nil, fmt.Errorf("%w: not one stream and its entries", errReply)
	}
	if _, err := r.str(); err != nil {
		return nil, err
	}
	return r.entries()
}

// parseFill reads the reply to the fill script: entries, and IDs of the gone.
func parseFill(raw []byte) (filled []Entry, gone []string, err error) {
	r := reply{text: string(raw)}
	n, err := r.array()
	if err != nil {
		return nil, nil, err
	}
	if n != 2 {
		return nil, nil, fmt.Errorf("%w: not entries and IDs", errReply)
	}
	if filled, err = r.entries(); err != nil {
		return nil, nil, err
	}
	gone, err = r.strs(nil)
	return filled, gone, err
}
