// Package cli is the command line of the bridge's operators and developers, as
// one function: [Run] takes what a process gets from its system and returns the
// exit code, so that tests run whole commands.
//
// What goes where, on every command:
//
//	stdout   what was asked for, and nothing else: for a person on a terminal,
//	         compact in a pipe, one JSON object a line with --output json
//	stderr   progress, and errors as "tebra: what happened; what to do"
//
// Which pipeline a command talks to, the first of these that is there:
//
//	--redis  ──▶  REDIS_URL  ──▶  the local run that noted itself  ──▶  exit code 2
//
// The choice is one of whole pipelines: STREAM_PREFIX and REDIS_CA_CERT count
// with --redis and REDIS_URL, and not for a local run, which says itself what it
// uses.
package cli
