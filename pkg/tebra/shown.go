package tebra

import (
	"crypto/sha256"
	"encoding/hex"
)

// OtherAction is what logs, spans, metrics and audit records call an action that the
// policy does not know: such a name may be anything, health data among it.
const OtherAction = "other"

// maxShown is the longest name that is shown as it is. Firebase's IDs of users, the
// longest of those that are common, have at most 128 bytes.
const maxShown = 128

// Shown returns a name from outside, such as an ID or a user, as logs, spans and audit
// records may show it: as it is, if it is made as IDs are, of 1 to 128 ASCII letters,
// digits and _.:@/|+=~#-, and else its [Digest], because text may say something about
// a patient. An empty name stays empty.
func Shown(name string) string {
	if len(name) > maxShown {
		return Digest(name)
	}
	for i := range len(name) {
		if !inID[name[i]] {
			return Digest(name)
		}
	}
	return name
}

// inID are the bytes that IDs are made of.
var inID = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:@/|+=~#-") {
		set[c] = true
	}
	return set
}()

// Digest returns "sha256:" and the SHA-256 of name in hex: the same name has the same,
// so that who knows the name finds it, and the name can't be read from it (though
// guesses can be tried).
func Digest(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "sha256:" + hex.EncodeToString(sum[:])
}
