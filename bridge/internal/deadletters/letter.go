package deadletters

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"tebraproxy/pkg/tebra"
)

// Reasons that are no error code: those that the bridge gives beside them, and
// what is said of a message that nobody here wrote.
const (
	// Trimmed: the entry was removed from the stream before it was served.
	Trimmed = "trimmed"
	// Unreadable: the message is neither a request of ours nor a rejected entry.
	Unreadable = "unreadable"
)

// meanings are for people, of what [tebra.ErrorCode.Meaning] does not know.
var meanings = map[string]string{
	Trimmed:    "the entry was removed from the stream by somebody else before it was served",
	Unreadable: "the message was not written by this system, or can't be read",
}

// Meaning returns a line for people on a reason, "" for one that is not known.
func Meaning(reason string) string {
	if meaning, ok := meanings[reason]; ok {
		return meaning
	}
	return tebra.ErrorCode(reason).Meaning()
}

// Reasons returns the reasons that letters are listed under, sorted.
func Reasons() []string {
	reasons := []string{
		Trimmed, Unreadable, string(tebra.Malformed), string(tebra.TooLarge), string(tebra.BadResponse),
		string(tebra.OutcomeUnknown), string(tebra.DeadLettered), string(tebra.NoAnswer),
	}
	slices.Sort(reasons)
	return reasons
}

// Kind says what a dead letter holds.
type Kind string

// The kinds.
const (
	// Request: a whole request, which can be replayed.
	Request Kind = "request"
	// Rejected: an entry that was no request, as the bridge describes it.
	Rejected Kind = "rejected"
	// Foreign: something else.
	Foreign Kind = "foreign"
)

// Letter is what may be shown of a dead letter to everybody who may list them:
// no params, no data.
type Letter struct {
	ID          string // of the Pub/Sub message
	PublishedAt time.Time
	Kind        Kind
	Reason      string // one of [Reasons], or whatever else its publisher said
	// Problem says precisely what was wrong with a rejected entry, naming fields
	// and sizes, never contents. It is empty for the other kinds.
	Problem string
	// Deliveries is how often Pub/Sub tried before it gave the request up, 0 where
	// it was not Pub/Sub that did.
	Deliveries int
	Bytes      int // of the request, or of the rejected entry
	Envelope   tebra.Envelope

	request tebra.Request // of kind Request, without contents unless they were kept
	payload Payload
}

// Payload is what a letter holds, health data included. It is for those only who
// asked for it, and whose asking is on record.
type Payload struct {
	Params   json.RawMessage // of a request
	Metadata json.RawMessage // of a request, or nil
	Fields   [][2]string     // of a rejected entry, unless it was too large
	Data     []byte          // of a foreign message
}

// The attributes that Pub/Sub adds to what it gives up on.
const (
	attributeDeliveries = "CloudPubSubDeadLetterSourceDeliveryCount"
)

// rejection is the body of a rejected entry's letter, as the bridge writes it.
type rejection struct {
	Entry  string      `json:"entry"`
	Reason string      `json:"reason"`
	Bytes  int         `json:"bytes"`
	Fields [][2]string `json:"fields"`
}

// read makes a letter of a message. It never fails: what can't be read is a letter
// of kind Foreign.
func read(m *pubsubpb.PubsubMessage) Letter {
	envelope, err := tebra.ParseEnvelope(m.GetAttributes())
	l := Letter{
		ID: m.GetMessageId(), PublishedAt: m.GetPublishTime().AsTime(),
		Reason: string(envelope.Reason), Bytes: len(m.GetData()), Envelope: envelope,
	}
	l.Deliveries, _ = strconv.Atoi(m.GetAttributes()[attributeDeliveries]) // absent from our own
	if err != nil || !l.readRequest(m.GetData()) && !l.readRejection(m.GetData()) {
		l.Kind = Foreign
		l.Reason = Unreadable
		l.payload.Data = m.GetData()
	}
	if l.Reason == "" {
		l.Reason = string(tebra.DeadLettered)
	}
	return l
}

func (l *Letter) readRequest(data []byte) bool {
	request, err := tebra.DecodeMessage(data)
	if err != nil || !belongs(request, l.Envelope) {
		return false
	}
	l.Kind, l.request = Request, request
	l.payload = Payload{Params: request.Params, Metadata: request.Metadata}
	return true
}

// belongs reports whether the request is the one that the envelope accounts for.
func belongs(r tebra.Request, e tebra.Envelope) bool {
	return r.ID == e.RequestID && r.UserID == e.UserID && r.Action == e.Action &&
		tebra.CheckLane(e.Lane) == nil && e.EntryID != ""
}

func (l *Letter) readRejection(data []byte) bool {
	var body rejection
	if err := json.Unmarshal(data, &body); err != nil || body.Entry == "" || body.Entry != l.Envelope.EntryID {
		return false
	}
	l.Kind, l.Problem, l.Bytes = Rejected, body.Reason, body.Bytes
	l.payload = Payload{Fields: body.Fields}
	return true
}

// bare returns the letter without what it holds.
func (l Letter) bare() Letter {
	l.request, l.payload = tebra.Request{}, Payload{}
	return l
}

// Filter says which letters are meant. Its zero value means all of them.
type Filter struct {
	IDs    []string  // any of these, unless empty
	Reason string    // unless empty
	Action string    // unless empty
	Since  time.Time // published then or later, unless zero
}

func (f Filter) matches(l Letter) bool {
	return (len(f.IDs) == 0 || slices.Contains(f.IDs, l.ID)) &&
		(f.Reason == "" || f.Reason == l.Reason) &&
		(f.Action == "" || f.Action == l.Envelope.Action) &&
		(f.Since.IsZero() || !l.PublishedAt.Before(f.Since))
}
