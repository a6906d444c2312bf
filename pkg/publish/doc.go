// Package publish sends batches of messages to a Pub/Sub topic and says of each
// what became of it.
package publish
