package tebra

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Names of the fields of an entry of the requests stream.
const (
	fieldID            = "id"
	fieldAction        = "action"
	fieldParams        = "params"
	fieldUserID        = "userId"
	fieldTimestamp     = "timestamp"
	fieldCorrelationID = "correlationId"
	fieldMetadata      = "_metadata"
	fieldTraceparent   = "traceparent"
	fieldReplayOf      = "replayOf"
)

// maxDepth bounds how deep params and metadata may nest. PHP's json_decode gives
// up at 512 levels and Go's encoding/json at 10,000: without a bound of our own, an
// entry that was admitted could no longer be read once it is inside a message.
const maxDepth = 500

// DecodeEntry reads one entry of the requests stream: fields holds names and
// values in turn, as Redis sends them, so that duplicates show. The names and
// values together may have at most maxBytes. The strings of the result share
// memory with fields.
//
// The entry is either flat, or, where it has no action, it holds the request as
// JSON in one field message, data or payload; flat fields beside that one count
// too. There, null stands for an absent member (but for params), numbers do for
// IDs and the timestamp, and params and _metadata may be objects or their text. An
// entry with an action is flat, whatever other fields it has.
//
// Beyond DESIGN section 4, IDs, action and user may not begin or end with white
// space nor hold control characters (they become HTTP headers, which lose the one and
// refuse the other), and neither params nor metadata may nest deeper than 500
// levels. A traceparent that is not well formed is dropped, as is a timestamp over
// [MaxNameBytes]: nothing is decided by them. JSON after a byte order mark is
// refused, as the API would.
//
// A failure is a [*DecodeError]. The request is then filled as far as it could be
// read, so that whoever sent it can be told: names over [MaxAttributeBytes] are
// cut, and params and metadata are nil unless they are JSON objects that could be
// carried.
func DecodeEntry(fields []string, maxBytes int) (Request, error) {
	size := 0
	for _, s := range fields {
		size += len(s)
	}
	var d draft
	if size > maxBytes {
		d.glean(fields)
		fault := malformed("", "the entry has %d bytes; at most %d are carried", size, maxBytes)
		fault.Code = TooLarge
		return d.request(fault)
	}
	return d.request(d.readEntry(fields))
}

// DecodeMessage reads the data of a Pub/Sub message back into a request. The
// same rules hold as for an entry, and a failure is a [*DecodeError]. The
// request must have been given its IDs. The result shares no memory with data.
func DecodeMessage(data []byte) (Request, error) {
	var d draft
	text, fault := string(data), (*DecodeError)(nil)
	if !utf8.ValidString(text) {
		fault = malformed("data", "is not UTF-8")
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	fault = cmp.Or(fault, d.readObject("data", text))
	if d.id == "" || d.correlationID == "" {
		fault = cmp.Or(fault, malformed("data", "has no id or no correlationId: it was not written by a bridge"))
	}
	return d.request(fault)
}

// draft is a request on its way in: its fields as text, not yet checked. An
// empty field is an absent one.
type draft struct {
	id, action, params, userID, timestamp, correlationID, metadata, traceparent, replayOf string
}

// slot returns where the field of that name goes, nil when it is not one of ours.
func (d *draft) slot(name string) *string {
	switch name {
	case fieldID:
		return &d.id
	case fieldAction:
		return &d.action
	case fieldParams:
		return &d.params
	case fieldUserID:
		return &d.userID
	case fieldTimestamp:
		return &d.timestamp
	case fieldCorrelationID:
		return &d.correlationID
	case fieldMetadata:
		return &d.metadata
	case fieldTraceparent:
		return &d.traceparent
	case fieldReplayOf:
		return &d.replayOf
	}
	return nil
}

// readEntry reads an entry of either form and returns its first fault. It goes on
// after that, to learn as much as it can about who sent the entry.
func (d *draft) readEntry(fields []string) *DecodeError {
	var fault *DecodeError
	if len(fields)%2 != 0 {
		fault = malformed("", "the entry has a field without a value")
		fields = fields[:len(fields)-1]
	}
	var names nameSet
	for i := 0; i < len(fields); i += 2 {
		fault = cmp.Or(fault, d.readField(i/2+1, fields[i], fields[i+1], &names))
	}
	if d.action != "" {
		return fault
	}
	whole, text, wholeFault := wholeField(fields)
	return cmp.Or(fault, wholeFault, d.readObject(whole, text))
}

// readField takes field number n of an entry.
func (d *draft) readField(n int, name, value string, names *nameSet) *DecodeError {
	if !utf8.ValidString(name) {
		return malformed("", "the name of field %d is not UTF-8", n)
	}
	if !names.add(name) {
		return malformed(printable(name), "is there twice")
	}
	var fault *DecodeError
	if !utf8.ValidString(value) {
		fault = malformed(printable(name), "is not UTF-8")
		value = strings.ToValidUTF8(value, "\uFFFD")
	}
	if slot := d.slot(name); slot != nil {
		*slot = value
	}
	return fault
}

// isWhole reports whether a field of that name may hold a whole request.
func isWhole(name string) bool { return name == "message" || name == "data" || name == "payload" }

// wholeField finds the field that holds a whole request as JSON. It returns two
// empty strings when there is none.
func wholeField(fields []string) (name, text string, fault *DecodeError) {
	for i := 0; i < len(fields); i += 2 {
		if !isWhole(fields[i]) {
			continue
		}
		if name != "" {
			return name, text, malformed(fields[i], "the entry holds a whole request twice, in %s and in %s", name, fields[i])
		}
		name, text = fields[i], strings.ToValidUTF8(fields[i+1], "\uFFFD")
	}
	return name, text, nil
}

// readObject reads the members of the JSON object in text, which came in the field
// of that name. Of text that is not JSON it reads what comes before the fault.
func (d *draft) readObject(field, text string) *DecodeError {
	_, fault := object(field, text, maxDepth+1)
	var names nameSet
	for name, raw := range members(text) {
		fault = cmp.Or(fault, d.readMember(field, name, raw, &names))
	}
	return fault
}

// readMember takes one member of a request in JSON form.
func (d *draft) readMember(field, name, raw string, names *nameSet) *DecodeError {
	if !names.add(name) {
		return malformed(field+"."+printable(name), "is there twice")
	}
	slot := d.slot(name)
	if slot == nil {
		return nil
	}
	value, reason := memberText(name, raw)
	if reason != "" {
		return malformed(field+"."+name, "%s", reason)
	}
	if value == "" || value == *slot {
		return nil
	}
	// The publish endpoint may have written the flat field and the browser this
	// one: where they disagree on what decides something, neither is believed.
	if *slot != "" && name != fieldTimestamp && name != fieldTraceparent {
		return malformed(field+"."+name, "differs from the entry's field %s", name)
	}
	*slot = value
	return nil
}

// memberText returns a member's value as the text that it would be in a flat
// entry, or the reason why it can't be.
func memberText(name, raw string) (text, reason string) {
	if raw[0] == '"' {
		return unquote(raw), ""
	}
	switch name {
	case fieldParams: // not even null may stand for {}: DESIGN section 4
		return raw, ""
	case fieldMetadata:
		if raw == "null" {
			return "", ""
		}
		return raw, ""
	}
	if raw == "null" {
		return "", ""
	}
	switch name {
	case fieldID, fieldCorrelationID, fieldTimestamp:
		if isNumber(raw) {
			return raw, ""
		}
		return "", "is " + kind(raw[0]) + ", neither text nor a number"
	}
	return "", "is " + kind(raw[0]) + ", not text"
}

// glean takes from an entry that is refused for its size what is needed to answer
// it. It neither copies nor checks the rest, as there may be hundreds of megabytes.
func (d *draft) glean(fields []string) {
	fields = fields[:len(fields)&^1]
	for i := 0; i < len(fields); i += 2 {
		d.take(fields[i], fields[i+1])
	}
	if d.action != "" {
		return
	}
	for i := 0; i < len(fields); i += 2 {
		if !isWhole(fields[i]) {
			continue
		}
		for name, raw := range members(fields[i+1]) {
			if !isName(name) {
				continue
			}
			if text, reason := memberText(name, raw); reason == "" {
				d.take(name, text)
			}
		}
	}
}

// take fills in a field that [isName] and has no value yet.
func (d *draft) take(name, value string) {
	if !isName(name) {
		return
	}
	if slot := d.slot(name); *slot == "" {
		*slot = attribute(value)
	}
}

// isName reports whether a field of that name says whose and which request it is.
func isName(name string) bool {
	switch name {
	case fieldID, fieldCorrelationID, fieldAction, fieldUserID, fieldReplayOf:
		return true
	}
	return false
}

// request holds the draft, which was read with that first fault or none, against
// the rules of DESIGN section 4.
func (d *draft) request(fault *DecodeError) (Request, error) {
	params, paramsFault := object(fieldParams, d.params, maxDepth)
	metadata, metadataFault := object(fieldMetadata, d.metadata, maxDepth)
	r := Request{
		ID: d.id, Action: d.action, UserID: d.userID, CorrelationID: d.correlationID, ReplayOf: d.replayOf,
	}
	if len(d.timestamp) <= MaxNameBytes {
		r.Timestamp = d.timestamp
	}
	if wellFormedTraceparent(d.traceparent) {
		r.Traceparent = d.traceparent
	}
	if params != "" {
		r.Params = json.RawMessage(params)
	}
	if metadata != "" {
		r.Metadata = json.RawMessage(metadata)
	}
	if fault = cmp.Or(fault, d.checkNames(), paramsFault, metadataFault); fault != nil {
		r.cutNames()
		return r, fault
	}
	if r.Params == nil {
		r.Params = json.RawMessage(`{}`)
	}
	return r, nil
}

// cutNames makes a request that is refused fit to be answered, however long its
// names are.
func (r *Request) cutNames() {
	for _, name := range [...]*string{&r.ID, &r.Action, &r.UserID, &r.CorrelationID, &r.ReplayOf} {
		*name = attribute(*name)
	}
}

// checkNames holds the IDs, the action and the user against the rules.
func (d *draft) checkNames() *DecodeError {
	if d.action == "" {
		return malformed(fieldAction, "is missing or empty")
	}
	if d.userID == "" {
		return malformed(fieldUserID, "is missing or empty")
	}
	return cmp.Or(
		checkName(fieldID, d.id),
		checkName(fieldCorrelationID, d.correlationID),
		checkName(fieldAction, d.action),
		checkName(fieldUserID, d.userID),
		checkName(fieldReplayOf, d.replayOf),
	)
}

func checkName(field, value string) *DecodeError {
	if len(value) > MaxNameBytes {
		return malformed(field, "has %d bytes; at most %d are allowed", len(value), MaxNameBytes)
	}
	if strings.TrimSpace(value) != value {
		return malformed(field, "begins or ends with white space")
	}
	if hasControl(value) {
		return malformed(field, "holds a control character")
	}
	return nil
}

// hasControl is strings.ContainsFunc(s, unicode.IsControl), faster for plain ASCII,
// which nearly all names are.
func hasControl(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20 || c == 0x7f:
			return true
		case c >= utf8.RuneSelf:
			return strings.ContainsFunc(s[i:], unicode.IsControl)
		}
	}
	return false
}

// wellFormedTraceparent reports whether s has the form of version 00 of the W3C
// Trace Context recommendation, with neither ID all zero.
func wellFormedTraceparent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	trace, span, flags := s[3:35], s[36:52], s[53:]
	return lowerHex(trace) && lowerHex(span) && lowerHex(flags) &&
		strings.Trim(trace, "0") != "" && strings.Trim(span, "0") != ""
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// nameSet remembers names. An honest entry has a handful, for which a scan is
// fastest and needs no memory; the map keeps a hostile one with a hundred thousand
// from taking minutes.
type nameSet struct {
	few  [16]string
	n    int
	many map[string]struct{}
}

// add reports whether name is new.
func (s *nameSet) add(name string) bool {
	if slices.Contains(s.few[:s.n], name) {
		return false
	}
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return true
	}
	if _, ok := s.many[name]; ok {
		return false
	}
	if s.many == nil {
		s.many = make(map[string]struct{})
	}
	s.many[name] = struct{}{}
	return true
}
