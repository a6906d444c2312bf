package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// maxParams bounds what is read from a file or stdin, in bytes: the largest
// request that a bridge can be told to take.
const maxParams = 8 << 20

// readParams returns a request's params as JSON text: what --params names, or an
// object of the arguments. text is --params, pairs are the arguments after the
// action. A failure is a [*usageError].
func readParams(text string, pairs []string, stdin io.Reader) (json.RawMessage, error) {
	if text == "" {
		return pairsObject(pairs)
	}
	if len(pairs) > 0 {
		return nil, usagef("the params are given twice, with --params and as %s; use one of the two", nameOf(pairs[0]))
	}
	params, err := paramsText(text, stdin)
	if err != nil {
		return nil, usagef("--params: %w", err)
	}
	params = bytes.TrimSpace(params)
	if len(params) == 0 {
		return nil, usagef("--params: there is nothing in it; give a JSON object, {} for none")
	}
	return params, nil
}

// paramsText returns the text itself, or what the file or stdin that it names holds.
func paramsText(text string, stdin io.Reader) ([]byte, error) {
	if text == "-" {
		return readBounded(stdin)
	}
	path, isFile := strings.CutPrefix(text, "@")
	if !isFile {
		return []byte(text), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

func readBounded(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxParams+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxParams {
		return nil, fmt.Errorf("it has more than %d bytes, which no bridge carries", maxParams)
	}
	return text, nil
}

// pairsObject makes a JSON object of key=value (a string) and key:=JSON, in the
// order in which they were given.
func pairsObject(pairs []string) (json.RawMessage, error) {
	object := []byte{'{'}
	seen := make(map[string]bool, len(pairs))
	for i, pair := range pairs {
		key, value, err := parsePair(pair)
		if err != nil {
			return nil, usagef("%s: %w", nameOf(pair), err)
		}
		if seen[key] {
			return nil, usagef("%s: %q is given twice", nameOf(pair), key)
		}
		seen[key] = true
		if i > 0 {
			object = append(object, ',')
		}
		object = append(append(append(object, jsonText(key)...), ':'), value...)
	}
	return append(object, '}'), nil
}

// parsePair reads one argument after the action.
func parsePair(pair string) (key string, value json.RawMessage, err error) {
	key, text, ok := strings.Cut(pair, "=")
	if !ok {
		return "", nil, errors.New("want key=value, or key:=JSON for a number, a boolean, a list or an object")
	}
	key, typed := strings.CutSuffix(key, ":")
	switch {
	case key == "":
		return "", nil, errors.New("the key is empty; want key=value")
	case !utf8.ValidString(pair):
		return "", nil, errors.New("it is not UTF-8")
	case !typed:
		return key, jsonText(text), nil
	case !json.Valid([]byte(text)):
		return "", nil, fmt.Errorf("what follows := is not JSON; for text use %s=", key)
	}
	return key, json.RawMessage(strings.TrimSpace(text)), nil
}

// nameOf returns an argument without its value, which may be health data and has
// no place in an error.
func nameOf(pair string) string {
	key, _, ok := strings.Cut(pair, "=")
	if !ok {
		return fmt.Sprintf("argument %q", pair)
	}
	return fmt.Sprintf("argument %q", key+"=…")
}

// jsonText returns s, which is UTF-8, as a JSON string.
func jsonText(s string) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string always encodes
		return json.RawMessage(`""`)
	}
	return bytes.TrimSpace(b.Bytes())
}
