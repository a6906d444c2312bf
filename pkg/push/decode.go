package push

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"
)

// standard also refuses bits that are set after the last byte: two texts for one
// payload are one too many.
var standard = base64.StdEncoding.Strict()

// attributesHint is room for the attributes of a message of ours (DESIGN section 4).
const attributesHint = 12

// field is a bit for each field that may be given only once.
type field uint16

const (
	fieldMessage field = 1 << iota
	fieldSubscription
	fieldDeliveryAttempt
	fieldAttributes
	fieldData
	fieldOrderingKey
	fieldID
	fieldIDSnake
	fieldTime
	fieldTimeSnake
)

// Decode returns the message in body. Nothing of it refers to body afterwards.
//
// body must be one JSON object in UTF-8, with an object "message" that has a
// messageId (or message_id). Everything else is optional, null counts as absent,
// and unknown fields are ignored. Refused are: text that is not JSON, values
// nested more than 32 deep, known fields and attributes of a wrong type or given
// twice, data that is not standard padded base64, times that are not RFC 3339, a
// delivery attempt that is not an integer from 0 to 2³¹-1, and two spellings of a
// field that disagree.
//
// Every error is an [*Error] with status 400.
func Decode(body []byte) (Message, error) {
	if !utf8.Valid(body) {
		return Message{}, malformed("the body is not UTF-8")
	}
	d := decoder{parser: parser{text: body}}
	if err := d.object(d.envelopeField); err != nil {
		return Message{}, err
	}
	if err := d.end(); err != nil {
		return Message{}, err
	}
	if d.message.ID == "" {
		return Message{}, malformed("there is no message with a messageId")
	}
	return d.message, nil
}

func malformed(reason string) error {
	return &Error{Status: http.StatusBadRequest, Reason: reason}
}

// decoder fills a message from the text that its parser walks over.
type decoder struct {
	parser
	message Message
	seen    field
}

func (d *decoder) envelopeField(name []byte) error {
	switch string(name) {
	case "message":
		return d.once(fieldMessage, d.messageObject)
	case "subscription":
		return d.once(fieldSubscription, d.subscription)
	case "deliveryAttempt":
		return d.once(fieldDeliveryAttempt, d.deliveryAttempt)
	}
	return d.skip()
}

func (d *decoder) messageObject() error { return d.object(d.messageField) }

func (d *decoder) messageField(name []byte) error {
	switch string(name) {
	case "data":
		return d.once(fieldData, d.data)
	case "attributes":
		return d.once(fieldAttributes, d.attributes)
	case "messageId":
		return d.once(fieldID, d.id)
	case "message_id":
		return d.once(fieldIDSnake, d.id)
	case "publishTime":
		return d.once(fieldTime, d.publishTime)
	case "publish_time":
		return d.once(fieldTimeSnake, d.publishTime)
	case "orderingKey":
		return d.once(fieldOrderingKey, d.orderingKey)
	}
	return d.skip()
}

// once reads the value of a field, unless it is null, and refuses a second one.
func (d *decoder) once(f field, read func() error) error {
	if d.seen&f != 0 {
		return d.fail("a field given twice")
	}
	d.seen |= f
	if d.null() {
		return nil
	}
	return read()
}

func (d *decoder) subscription() error { return d.stringInto(&d.message.Subscription) }

func (d *decoder) orderingKey() error { return d.stringInto(&d.message.OrderingKey) }

func (d *decoder) stringInto(to *string) error {
	text, err := d.quoted()
	*to = string(text)
	return err
}

func (d *decoder) id() error {
	text, err := d.quoted()
	if err != nil {
		return err
	}
	if d.message.ID != "" && d.message.ID != string(text) {
		return d.fail("a second, different message ID")
	}
	d.message.ID = string(text)
	return nil
}

func (d *decoder) publishTime() error {
	text, err := d.quoted()
	if err != nil {
		return err
	}
	published, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return d.fail("a publish time that is not RFC 3339")
	}
	if !d.message.PublishTime.IsZero() && !d.message.PublishTime.Equal(published) {
		return d.fail("a second, different publish time")
	}
	d.message.PublishTime = published.UTC()
	return nil
}

func (d *decoder) deliveryAttempt() error {
	text, err := d.number()
	if err != nil {
		return err
	}
	attempt, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil {
		return d.fail("a delivery attempt that is not an integer from 0 to 2147483647")
	}
	d.message.DeliveryAttempt = int(attempt)
	return nil
}

// data decodes from the body straight into the message's own bytes: the one copy
// that there has to be, since the body's buffer is used again.
func (d *decoder) data() error {
	text, err := d.quoted()
	if err != nil || len(text) == 0 {
		return err
	}
	data := make([]byte, standard.DecodedLen(len(text)))
	n, err := standard.Decode(data, text)
	if err != nil || standard.EncodedLen(n) != len(text) { // Decode ignores line breaks
		return d.fail("data that is not standard padded base64")
	}
	d.message.Data = data[:n]
	return nil
}

func (d *decoder) attributes() error { return d.object(d.attribute) }

func (d *decoder) attribute(name []byte) error {
	value, err := d.quoted()
	if err != nil {
		return err
	}
	if d.message.Attributes == nil {
		d.message.Attributes = make(map[string]string, attributesHint)
	}
	if _, given := d.message.Attributes[string(name)]; given {
		return d.fail("an attribute given twice")
	}
	d.message.Attributes[string(name)] = string(value)
	return nil
}
