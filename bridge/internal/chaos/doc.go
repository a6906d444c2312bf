// Package chaos holds the chaos run: a whole installation of separate processes
// ([tebraproxy/bridge/internal/fleet]) carries requests of all kinds while a seeded
// random schedule kills, stops, pauses and restarts its parts and the API
// misbehaves. Afterwards the streams, the API's journal and the dead letters are
// held against what the system promises (DESIGN section 1):
//
//   - every entry has exactly one terminal answer, or, where nobody can be told, a
//     dead letter;
//   - every change was executed at most once; where it was executed and the answer
//     is not success, the answer is outcome_unknown or the API's own error;
//   - nothing is pending, parked, open or being retried;
//   - every dead letter has a reason, ours or Pub/Sub's, and belongs to an entry that
//     has its answer, and no other than the letter says; every answer that says "a
//     person must look" has a dead letter;
//   - no contents of requests are in Redis keys, Pub/Sub attributes or logs.
//
// .ci/run makes a short run of 2,000 requests, alone, with one fixed seed and a random
// one, and so does the first of these; the second is the long run, with a given seed:
//
//	go test ./bridge/internal/chaos -v -chaos.requests 2000
//	go test ./bridge/internal/chaos -timeout 2h -v -chaos.requests 100000 -chaos.rate 250 -chaos.seed 7
//
// Pub/Sub is the local one, in a process of its own. With -chaos.pubsub emulator it
// is Google's, which itself does not keep what is asked of it: of 20 messages that
// an endpoint without any fault refused six times each, it delivered none a fourth time
// within 100 s, whatever the backoff. So a run on it may show entries
// that are still waiting at the end, which no part of ours has to answer for.
//
// A failure names the seed, the entries with their history, what is left of them in
// Redis, and where the logs of all processes are. The seed fixes which requests are sent and which faults come
// in which order; when they meet is up to the machine.
package chaos
