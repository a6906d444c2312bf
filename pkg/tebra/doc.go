// Package tebra is the vocabulary of this system: the messages on Redis streams
// and in Pub/Sub, how they are written and read, the names of Redis keys, and
// the closed set of error codes. Everything else imports it; it imports only
// the standard library.
//
// A request changes its form twice on its way (DESIGN section 4):
//
//	tebra:requests                 topic tebra-requests             tebra:responses, tebra:status
//	flat fields, or one    ──▶     data: one JSON object     ──▶    flat fields
//	field holding JSON             attributes: Envelope             Response, StatusUpdate
//	      DecodeEntry              AppendJSON, Attributes            Fields
//	                               DecodeMessage, ParseEnvelope      ParseResponse, ParseStatus
//
// Params, data and metadata are carried as the bytes that came in, less the space
// around them, never re-encoded, so that what was asked for is what is called.
package tebra
