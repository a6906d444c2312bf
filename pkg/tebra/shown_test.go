package tebra

import (
	"strings"
	"testing"
)

func TestOnlyWhatIsMadeAsIDsAreIsShown(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", "u1", "c-1", "de17645b-0e4c-4f0c-9a53-5f7c0f6a1c1e", "ada@example.com", "auth0|5f7c", "req_1/2:3+4=5~6#7", strings.Repeat("x", 128),
	} {
		if got := Shown(name); got != name {
			t.Errorf("Shown(%q) = %q, want it as it is", name, got)
		}
	}
	for _, name := range []string{
		"Jane Doe", "Doe,Jane", "{patient}", `"`, "<b>", "a\n", "J\u00e4ne", "\xff", "(555)", strings.Repeat("x", 129),
	} {
		if got := Shown(name); got != Digest(name) || strings.Contains(got, "Jane") {
			t.Errorf("Shown(%q) = %q, want its digest", name, got)
		}
	}
}

func TestADigestIsWhatSha256sumPrints(t *testing.T) {
	t.Parallel()
	const want = "sha256:01332c876518a793b7c1b8dfaf6d4b404ff5db09b21c6627ca59710cc24f696a" // printf %s 'Jane Doe' | sha256sum
	if got := Digest("Jane Doe"); got != want {
		t.Errorf("Digest() = %s, want %s", got, want)
	}
}
