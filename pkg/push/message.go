package push

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Message is one pushed message with what the envelope says about its delivery.
type Message struct {
	// ID is the one that Pub/Sub gave the message when it was published. It is
	// never empty. A redelivery has the same, a message published again has not.
	ID string
	// Data is the payload, or nil where it is empty.
	Data []byte
	// Attributes is nil where the message has none.
	Attributes map[string]string
	// PublishTime is zero where the envelope gives none.
	PublishTime time.Time
	// OrderingKey is empty unless the publisher set one.
	OrderingKey string
	// Subscription is the full name, projects/…/subscriptions/….
	Subscription string
	// DeliveryAttempt counts from 1, approximately: compare with ≥. It is 0 where
	// the envelope has none: real Pub/Sub sends it only for a subscription with a
	// dead-letter policy, and Google's emulator never does (FACTS, Pub/Sub).
	DeliveryAttempt int
}

// timeFormat is the one Google uses: UTC, to the millisecond.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// Append appends m's envelope to dst and returns the longer slice. Empty data,
// attributes, ordering key and delivery attempt are left out, as Google leaves
// them out. Attributes come sorted by name, so equal messages give equal bytes.
// Bytes that are not UTF-8 are replaced with U+FFFD.
func (m Message) Append(dst []byte) []byte {
	dst = slices.Grow(dst, base64.StdEncoding.EncodedLen(len(m.Data))+512)
	dst = append(dst, `{"message":{`...)
	dst = appendAttributes(dst, m.Attributes)
	if len(m.Data) > 0 {
		dst = append(dst, `"data":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, m.Data)
		dst = append(dst, `",`...)
	}
	dst = appendTwice(dst, "messageId", "message_id", m.ID)
	if m.OrderingKey != "" {
		dst = append(dst, `,"orderingKey":`...)
		dst = appendString(dst, m.OrderingKey)
	}
	if !m.PublishTime.IsZero() {
		dst = append(dst, ',')
		dst = appendTwice(dst, "publishTime", "publish_time", m.PublishTime.UTC().Format(timeFormat))
	}
	dst = append(dst, `},"subscription":`...)
	dst = appendString(dst, m.Subscription)
	if m.DeliveryAttempt > 0 {
		dst = append(dst, `,"deliveryAttempt":`...)
		dst = strconv.AppendInt(dst, int64(m.DeliveryAttempt), 10)
	}
	return append(dst, '}')
}

func appendAttributes(dst []byte, attributes map[string]string) []byte {
	if len(attributes) == 0 {
		return dst
	}
	dst = append(dst, `"attributes":`...)
	separator := byte('{')
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		dst = append(dst, separator)
		dst = appendString(dst, name)
		dst = append(dst, ':')
		dst = appendString(dst, attributes[name])
		separator = ','
	}
	return append(dst, `},`...)
}

// appendTwice writes value under both spellings of its name: Google sends both.
func appendTwice(dst []byte, camel, snake, value string) []byte {
	dst = appendString(dst, camel)
	dst = append(dst, ':')
	dst = appendString(dst, value)
	dst = append(dst, ',')
	dst = appendString(dst, snake)
	dst = append(dst, ':')
	return appendString(dst, value)
}

// appendString writes s as a JSON string.
func appendString(dst []byte, s string) []byte {
	if isPlain(s) {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	quoted, _ := json.Marshal(s) // a string always marshals
	return append(dst, quoted...)
}

// isPlain reports whether s stands in JSON as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
