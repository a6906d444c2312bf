// Package capacity says what an installation of a given size takes: Redis, bridges,
// Pub/Sub, instances, calls of the API. It is tests only: one measures what a request
// takes in a real Redis, one computes the tables of bridge/CAPACITY.md from that and
// from published figures, and holds the document against them.
//
//	go test ./bridge/internal/capacity -v -run Memory
//	go test ./bridge/internal/capacity -run Document -update
package capacity
