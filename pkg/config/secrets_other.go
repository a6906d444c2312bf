//go:build !unix

package config

func keepSecrets() error { return nil } // there are no core files
