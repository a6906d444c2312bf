// Package console is a page for operators, served on loopback: send a request, watch
// requests go through, see rates and latencies, how everything stands, and handle
// dead letters. It stands on packages inspect and deadletters, and does nothing that
// the command line could not.
//
//	GET  /                     the page and its files; they hold nothing of anybody's
//	GET  /api/about            what is looked at, and the actions that are known
//	GET  /api/events           server-sent events: a snapshot, then what changes
//	POST /api/trace            what became of a request
//	GET  /api/letters          dead letters, without what they hold
//	POST /api/letters/show, /replay, /drop
//	POST /v1/requests, GET /v1/events, /v1/tebra.js
//
// The last are a gateway's (package gateway), for its client, tebra.js, by which the
// form sends requests and follows them. Of answers it tells that they are there, not
// what they hold.
//
// # Who gets in
//
// Whoever runs the console is told an address whose fragment holds a random token,
// which a browser sends to nobody; the page sends it as a header with each call of
// /api, and to /v1 with the user who the form says asks, so that neither other users of
// the machine nor pages of other sites can call them. Beside that, the host that a browser asks for must be a loopback
// address, which a name that somebody points at this machine is not, and an Origin
// must be the console's own.
//
// # Health data
//
// Params, data and error texts are not sent to the page until somebody asks for
// those of one request; that is put on record first (the audit stream), as replays
// and drops are, and where that fails nothing is shown.
//
// # Bounds
//
// One reader follows the streams for all pages, and the gateway's another one, which
// reads answers, once a page has sent a request. It keeps the last 200 requests and
// a quarter of an hour of samples. A page that is slow loses its stream, comes back
// and begins with a snapshot.
package console
