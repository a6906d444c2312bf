package phptest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The words of behaviour; doc.go describes each.
const (
	wordOK          = "ok"
	wordHang        = "hang"
	wordDrop        = "drop"
	wordStatus      = "status" // stands for every NNN
	wordFail        = "fail"
	wordThrottle    = "throttle"
	wordThrottle503 = "throttle-503"
	wordIsError     = "iserror"
	wordDenied      = "denied"
	wordText        = "text"
	wordEmpty       = "empty"
	wordHalf        = "half"
	wordTrickle     = "trickle"
	wordHuge        = "huge"
)

const (
	maxFailDepth = 8
	maxHuge      = 1 << 30
	maxLatency   = 10 * time.Minute
)

// acts says which words let the call be executed first.
var acts = map[string]bool{
	wordOK: true, wordText: true, wordEmpty: true, wordHalf: true, wordTrickle: true, wordHuge: true,
	wordHang: false, wordDrop: false, wordStatus: false, wordFail: false,
	wordThrottle: false, wordThrottle503: false, wordIsError: false, wordDenied: false,
}

// behaviour is a parsed Rule.Do, or _behave.
type behaviour struct {
	word       string
	act        bool // execute the call before answering
	latency    time.Duration
	every      time.Duration // of trickle
	n          int           // status, depth or bytes
	retryAfter string
}

// parseBehaviour reads words joined by commas. At most one of them, latency and
// retry-after aside, may say how to answer.
func parseBehaviour(s string) (behaviour, error) {
	b := behaviour{word: wordOK, act: true}
	chosen := ""
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		name, arg, _ := strings.Cut(part, "=")
		switch name {
		case "latency":
			d, err := duration(part, arg)
			if err != nil {
				return b, err
			}
			b.latency = d
		case "retry-after":
			b.retryAfter = arg
		default:
			if chosen != "" {
				return b, fmt.Errorf("behaviour %q and %q can't both be had", chosen, part)
			}
			chosen = part
			if err := b.choose(part, name, arg); err != nil {
				return b, err
			}
		}
	}
	return b, nil
}

// choose sets how to answer.
func (b *behaviour) choose(part, name, arg string) (err error) {
	word, actFirst := strings.CutPrefix(name, "act-")
	if n, err := strconv.Atoi(word); err == nil {
		if n < 300 || n > 599 {
			return fmt.Errorf("behaviour %q: want a status of 300 to 599", part)
		}
		b.word, b.act, b.n = wordStatus, actFirst, n
		return nil
	}
	act, known := acts[word]
	if !known || word == wordStatus || actFirst && word != wordHang && word != wordDrop {
		return fmt.Errorf("behaviour %q is not known", part)
	}
	b.word, b.act = word, act || actFirst
	switch word {
	case wordFail:
		b.n, err = number(part, arg, maxFailDepth)
	case wordHuge:
		b.n, err = number(part, arg, maxHuge)
	case wordTrickle:
		b.every, err = duration(part, arg)
	}
	return err
}

func duration(part, arg string) (time.Duration, error) {
	d, err := time.ParseDuration(arg)
	if err != nil || d < 0 || d > maxLatency {
		return 0, fmt.Errorf("behaviour %q: want a duration from 0 to %v, such as 250ms", part, maxLatency)
	}
	return d, nil
}

func number(part, arg string, limit int) (int, error) {
	n, err := strconv.Atoi(arg)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("behaviour %q: want a number from 0 to %d", part, limit)
	}
	return n, nil
}
