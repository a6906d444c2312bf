package cli

import (
	"net/url"
	"strings"
)

// redisURL returns the URL that a --redis flag gives: itself, or what the file holds
// that it names. One with a password is refused: arguments are for everybody on the
// machine to see.
func redisURL(flag string) (string, error) {
	if !strings.HasPrefix(flag, "@") {
		if holdsPassword(flag) {
			return "", usagef("--redis holds a password, which everybody on this machine can see in the list of processes; put the URL into a file and give --redis @FILE")
		}
		return flag, nil
	}
	text, err := paramsText(flag, nil)
	if err != nil {
		return "", usagef("--redis: %w", err)
	}
	value := strings.TrimSpace(string(text))
	if value == "" {
		return "", usagef("--redis: there is nothing in %s; write a redis:// or rediss:// URL into it", flag[1:])
	}
	return value, nil
}

// holdsPassword reports whether a URL holds a password, or may.
func holdsPassword(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return strings.Contains(raw, "@")
	}
	_, set := u.User.Password()
	return set
}
