package gateway

import (
	"errors"
	"strings"

	"tebraproxy/pkg/tebra"
)

// The two streams that are followed, as indexes of a [position].
const (
	ofStatus = iota
	ofResponses
	streams
)

// streamNames are the two in a position's text.
var streamNames = [streams]string{"status", "responses"}

// position says how far a client has read: the last entry of each stream that it
// knows of.
type position [streams]tebra.EntryID

// String returns the text that goes into an event's id.
func (p position) String() string {
	return "status:" + p[ofStatus].String() + ",responses:" + p[ofResponses].String()
}

// later returns the later of two positions, stream by stream.
func (p position) later(other position) position {
	for i := range p {
		if p[i].Compare(other[i]) < 0 {
			p[i] = other[i]
		}
	}
	return p
}

// maxPositionBytes is more than the largest position takes.
const maxPositionBytes = 128

var errNoPosition = errors.New("want an id that an event of this gateway had, such as status:1732332332000-0,responses:1732332332001-0")

// parsePosition reads what [position.String] wrote. The error quotes nothing of s.
func parsePosition(s string) (position, error) {
	var p position
	if len(s) > maxPositionBytes {
		return p, errNoPosition
	}
	rest := s
	for i, name := range streamNames {
		part, after, more := strings.Cut(rest, ",")
		if more != (i+1 < streams) {
			return position{}, errNoPosition
		}
		text, ok := strings.CutPrefix(part, name+":")
		id, err := tebra.ParseEntryID(text)
		if !ok || err != nil || id.String() != text {
			return position{}, errNoPosition
		}
		p[i], rest = id, after
	}
	return p, nil
}
