package config

// KeepSecrets keeps what this process holds, its environment above all, out of
// files and of others' sight: it leaves no core file when it crashes, not even where
// GOTRACEBACK asks for one, and on Linux nobody but root can trace it or read its
// memory and environment under /proc. Every main program calls it first. Where it
// returns an error, the process may go on, and leave a core file.
func KeepSecrets() error { return keepSecrets() }
