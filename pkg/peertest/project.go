package peertest

import (
	"crypto/rand"
	"strings"
)

// newProjectID returns a project ID that no other test has. The prefix "demo-"
// makes Google's tools treat it as one that exists nowhere else.
func newProjectID() string { return "demo-" + strings.ToLower(rand.Text()[:16]) }
