// Package phptest is a stand-in for the PHP API: the same envelopes, checks and
// traps as the real one (FACTS section "The PHP API we call"), made-up data, and
// failures to order. It serves tests and the local run; it calls nobody.
//
// # Failures to order
//
// A failure is asked for by a word: in a [Rule], or in the request itself, as the
// params member "_behave", which goes before all rules and also works across
// processes. Several are joined by commas: "latency=250ms,act-503".
//
//	word          executed  what the caller sees
//	ok            yes       the ordinary answer
//	latency=D     –         all of it D later; goes with any other word
//	hang          no        nothing, until it leaves (at most 10 minutes)
//	act-hang      yes       the same
//	drop          no        the connection closes without an answer
//	act-drop      yes       the same
//	NNN           no        that HTTP status, 300 to 599, with the API's error envelope
//	act-NNN       yes       the same
//	retry-after=S –         header Retry-After: S, beside an HTTP status
//	fail=N        no        200 with success:false at depth N, 0 to 8
//	throttle      no        200 that hides Tebra's throttle text
//	throttle-503  no        503 soap_fault with Tebra's throttle text
//	iserror       no        200 with ErrorResponse.IsError inside data
//	denied        no        200 with SecurityResponse not authorized inside data
//	text          yes       200 with HTML
//	empty         yes       200 without a body
//	half          yes       the first half of the ordinary answer, then the connection closes
//	trickle=D     yes       the ordinary answer, a byte every D
//	huge=N        yes       200 with a valid answer of N bytes, at most 1 GiB
//
// D is a Go duration. 500 is internal_error, 503 soap_fault, 401 and 403
// authentication_error, 404 a web server's HTML page, 405 method_error, 429, 502 and 504 a
// proxy's plain text; a 3xx points to /elsewhere.
//
// # Proof
//
// The journal holds every authenticated call in the order of arrival and whether it was executed, so
// that a test can show that no write was executed twice, and that calls kept their distance.
package phptest
