// Package inspect looks at an installation through its Redis, for people: how all
// of it stands ([Inspector.Status]), what became of one request
// ([Inspector.Trace]), what was asked and how it ended ([Inspector.History]), and
// what happens now ([Inspector.Watch]). It prints nothing and changes nothing, and
// reads streams without a group, so that it takes nothing from anyone.
//
// Where the answers come from:
//
//	requests   what was asked; its entries hold health data
//	status     every change of a request's state, its last one too, without any
//	           health data: so that is what is read through
//	responses  read only at the places that the ledger or a status points to
//	ledger     one record per request, found by user and request ID only
//
// Streams are read in pages, of which one is in memory at a time; its entries are
// fewer the larger they are. Results are bounded. Times are those of the Redis
// clock, as entries' IDs tell them; an ID that its client chose lies.
//
// Payloads (params, data, and error texts, which may be the API's) leave Redis with
// the entries that hold them, but are in no result that did not ask for them.
package inspect
