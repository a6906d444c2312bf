package publish

import (
	"google.golang.org/protobuf/encoding/protowire"

	"tebraproxy/pkg/tebra"
)

// Field numbers of google.pubsub.v1 (pubsub.proto).
const (
	requestMessages   = 2 // PublishRequest.messages
	messageData       = 1 // PubsubMessage.data
	messageAttributes = 2 // PubsubMessage.attributes, a map
	entryKey          = 1
	entryValue        = 2
)

// Batch is messages in the form in which they go over the wire. Building
// protobuf's objects first, a map of attributes in each, costs more than all
// else that a bridge does with a request; this is a fifth of it. The zero value
// is empty and ready to use. It is not safe for concurrent use.
type Batch struct {
	wire    []byte // fields "messages" of a PublishRequest, one after another
	ends    []int  // where each ends in wire
	message []byte // the one being added
}

// Add appends a message: data, and the envelope's attributes.
func (b *Batch) Add(data []byte, envelope *tebra.Envelope) {
	m := protowire.AppendTag(b.message[:0], messageData, protowire.BytesType)
	m = protowire.AppendBytes(m, data)
	envelope.EachAttribute(func(name, value string) {
		m = protowire.AppendTag(m, messageAttributes, protowire.BytesType)
		m = protowire.AppendVarint(m, uint64(fieldSize(entryKey, name)+fieldSize(entryValue, value)))
		m = protowire.AppendTag(m, entryKey, protowire.BytesType)
		m = protowire.AppendString(m, name)
		m = protowire.AppendTag(m, entryValue, protowire.BytesType)
		m = protowire.AppendString(m, value)
	})
	b.message = m
	b.wire = protowire.AppendTag(b.wire, requestMessages, protowire.BytesType)
	b.wire = protowire.AppendBytes(b.wire, m)
	b.ends = append(b.ends, len(b.wire))
}

func fieldSize(number protowire.Number, s string) int {
	return protowire.SizeTag(number) + protowire.SizeBytes(len(s))
}

// Len returns the number of messages.
func (b *Batch) Len() int { return len(b.ends) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.wire, b.ends = b.wire[:0], b.ends[:0] }

// slice returns the wire form of the messages from start to end.
func (b *Batch) slice(start, end int) []byte { return b.wire[b.offset(start):b.offset(end)] }

func (b *Batch) offset(i int) int {
	if i == 0 {
		return 0
	}
	return b.ends[i-1]
}
