//go:build unix && !linux

package config

func keepSecrets() error { return noCoreFile() }
