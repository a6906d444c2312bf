// Package gateway is the browser's side (DESIGN section 12): a function that takes
// requests over HTTP, puts them on the requests stream in the verified user's name,
// and streams back what the other two streams say of that user's requests.
//
//	POST /v1/requests   puts one request on the stream: 202 with its IDs
//	GET  /v1/events     server-sent events: the caller's statuses and answers
//	GET  /v1/tebra.js   the client, as an ES module
//	GET  /healthz       200 while the reader of the streams is at work
//
// One reader per instance follows both streams and hands each event to the streams
// of its user:
//
//	tebra:status ────┐                       ┌─ bounded queue ─▶ a user's event stream
//	                 ├─▶ reader ─▶ by user ──┤
//	tebra:responses ─┘                       └─ bounded queue ─▶ another
//
// Every event's id names the position in both streams, so that a client which
// comes back with Last-Event-ID gets what it missed, from any instance: first from
// Redis, in bounded pages up to where the reader was when it joined, and from there
// on from the reader. A queue that is full ends its stream, and the client resumes.
// A Redis that is away ends nothing: the reader goes on where it was.
package gateway
