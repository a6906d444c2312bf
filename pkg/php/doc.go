// Package php calls the PHP API and says what became of the call: answered,
// refused, to be tried again, or unknown. Its one reason is promise 2 of the
// design: a call that changes something is never made twice by us, and where it
// can't be known whether it was made, that is what is said.
//
// Two questions decide. Was a connection handed to the request (then it may have
// been sent), and what came back? Each way through is a finding, and one table
// (in outcome.go) says what a finding means for a read and for a write:
//
//	Call ─▶ params are no JSON ─────────────────────────────────▶ malformed
//	  │
//	  ▼   no token, DNS, dial, TLS, time is up ┌─ tries left: wait, once more
//	connect ───────────────────────────────────┴────────────────▶ neverSent
//	  │                                          caller left ───▶ abandonedUnsent
//	  ▼ from here on the request may have reached the API
//	send, await status, read body ── connection lost, time up ──▶ lost
//	  │                                          caller left ───▶ abandonedSent
//	  ├─ 3xx, 401, 403, 404, 405, 407, 421 ─────────────────────▶ misconfigured
//	  ├─ 429, throttle text in any failure ─────────────────────▶ throttled
//	  ├─ 425 ▶ tooEarly · 408 ▶ lost · other 4xx ▶ refused · 5xx ▶ failed
//	  ├─ 2xx: too long ─────────────────────────────────────────▶ tooLarge
//	  │       no JSON object ───────────────────────────────────▶ garbled
//	  │       SecurityResponse says no ─────────────────────────▶ misconfigured
//	  │       success:false at any depth, ErrorResponse.IsError ▶ refused
//	  │       a JSON object without success ────────────────────▶ bare
//	  │       else ─────────────────────────────────────────────▶ answered
//	  └─ anything else ─────────────────────────────────────────▶ garbled
//
// # One connection for each write
//
// A transport that reuses connections sends a request again by itself when a
// reused connection turns out dead, if the request has an Idempotency-Key and a
// body it can rewind: a write made twice. So each write has a connection of its
// own; its handshake costs little, since Tebra allows one or two of them a second
// (FACTS section "Tebra's limits"). Reads may be made again and share connections.
// HTTP/2 is off for both: there the transport multiplexes and retries under rules of
// its own.
//
// A server that writes past its Content-Length has the rest, which may be health
// data, logged by net/http when the connection is idle, to the standard library's
// log. A main program that uses this package sends that log nowhere
// (log.SetOutput(io.Discard)); this system's own logs go through log/slog.
//
// # What is safe to log
//
// The package logs nothing. [Result.Cause] is composed here and holds nothing
// that the API said but its status and its error type, where that is one of the known
// ones. [Result.UserText] may quote the API's refusal, which may hold health data: it
// belongs in the answer to the user who asked, and nowhere else. [Result.Data]
// is the payload.
package php
