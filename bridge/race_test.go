//go:build race

package bridge

// underRace says that everything is several times slower than it is.
const underRace = true
