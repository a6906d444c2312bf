package cli

import (
	"errors"
	"fmt"

	"tebraproxy/pkg/config"
	"tebraproxy/pkg/policy"
)

// The exit codes, as the root command's help lists them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNoAnswer    = 3
	exitInterrupted = 130 // as shells have it for SIGINT
)

// usageError is a command line that can't be understood; its help can.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func isUsage(err error) bool {
	var usage *usageError
	return errors.As(err, &usage)
}

// configError is a usable command line for which something around it is missing.
type configError struct{ error }

func (e *configError) Unwrap() error { return e.error }

func configf(format string, args ...any) error { return &configError{fmt.Errorf(format, args...)} }

// Why a command stopped waiting.
var (
	errNoAnswer    = errors.New("no answer in time")
	errInterrupted = errors.New("interrupted")
)

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var (
		misconfigured *configError
		environment   *config.Error
		rules         *policy.InvalidError
	)
	switch {
	case err == nil:
		return exitOK
	case isUsage(err), errors.As(err, &misconfigured), errors.As(err, &environment), errors.As(err, &rules):
		return exitUsage
	case errors.Is(err, errNoAnswer):
		return exitNoAnswer
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	default:
		return exitFailed
	}
}
