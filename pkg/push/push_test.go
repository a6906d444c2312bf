package push

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

// vendorBody is the example of the vendor's page "Push subscriptions".
const vendorBody = `{
    "message": {
        "attributes": {
            "key": "value"
        },
        "data": "SGVsbG8gQ2xvdWQgUHViL1N1YiEgSGVyZSBpcyBteSBtZXNzYWdlIQ==",
        "messageId": "2070443601311540",
        "message_id": "2070443601311540",
        "orderingKey": "key",
        "publishTime": "2021-02-26T19:13:55.749Z",
        "publish_time": "2021-02-26T19:13:55.749Z"
    },
    "subscription": "projects/myproject/subscriptions/mysubscription",
    "deliveryAttempt": 5
}`

var vendorMessage = Message{
	ID:              "2070443601311540",
	Data:            []byte("Hello Cloud Pub/Sub! Here is my message!"),
	Attributes:      map[string]string{"key": "value"},
	PublishTime:     time.Date(2021, 2, 26, 19, 13, 55, 749_000_000, time.UTC),
	OrderingKey:     "key",
	Subscription:    "projects/myproject/subscriptions/mysubscription",
	DeliveryAttempt: 5,
}

// emulatorBody is what Google's emulator 0.8.20 sends: slashes escaped, no
// delivery attempt, attributes in UTF-8.
const emulatorBody = `{"subscription":"projects\/probe-p\/subscriptions\/good","message":{"publishTime":"2026-11-23T03:57:20.038Z","data":"aGVsbG8\/Pz4+","publish_time":"2026-11-23T03:57:20.038Z","messageId":"1","attributes":{"b":"2","k":"v=<\"é"},"message_id":"1"}}`

func TestDecodeReadsWhatIsPushed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		body string
		want Message
	}{
		{"the vendor's example", vendorBody, vendorMessage},
		{"the emulator's", emulatorBody, Message{
			ID: "1", Data: []byte("hello??>>"), Attributes: map[string]string{"b": "2", "k": `v=<"é`},
			PublishTime:  time.Date(2026, 11, 23, 3, 57, 20, 38_000_000, time.UTC),
			Subscription: "projects/probe-p/subscriptions/good",
		}},
		{"only an ID", `{"message":{"messageId":"1"}}`, Message{ID: "1"}},
		{"only the other spelling", `{"message":{"message_id":"1","publish_time":"2026-01-02T03:04:05+01:00"}}`,
			Message{ID: "1", PublishTime: time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)}},
		{"nulls are absent", `{"message":{"messageId":"1","data":null,"attributes":null,"orderingKey":null,"publishTime":null},"subscription":null,"deliveryAttempt":null}`, Message{ID: "1"}},
		{"empty values", `{"message":{"messageId":"1","data":"","attributes":{}},"subscription":""}`, Message{ID: "1"}},
		{"unknown fields of every kind", `{"new":[1,-0.5e+3,{"a":[]},true,false,null,"\n"],"message":{"messageId":"1","more":{"x":[[]]}},"new":0}`, Message{ID: "1"}},
		{"escaped names", `{"mess\u0061ge":{"message\u0049d":"1"}}`, Message{ID: "1"}},
		{"escaped data", `{"message":{"messageId":"1","data":"YQ\u003d\u003d"}}`, Message{ID: "1", Data: []byte("a")}},
		{"white space", " \t\r\n{ \"message\" : { \"messageId\" : \"1\" } } \n", Message{ID: "1"}},
		{"the largest attempt", `{"message":{"messageId":"1"},"deliveryAttempt":2147483647}`, Message{ID: "1", DeliveryAttempt: 2147483647}},
		{"the deepest value", `{"message":{"messageId":"1"},"x":` + nested(maxDepth-1) + `}`, Message{ID: "1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode([]byte(tt.body))
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Decode() = %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

// malformedBodies has a body of every kind that is refused, and a part of the
// reason that it is refused with.
var malformedBodies = []struct{ name, body, reason string }{
	{"nothing", "", "no object"},
	{"white space", " \n", "no object"},
	{"no JSON", "secret", "no object"},
	{"not an object", `["secret"]`, "no object"},
	{"null", `null`, "no object"},
	{"an object without a message", `{"secret":1}`, "no message"},
	{"a null message", `{"message":null}`, "no message"},
	{"a message that is text", `{"message":"secret"}`, "no object"},
	{"a message without an ID", `{"message":{"data":"c2VjcmV0"}}`, "no message with a messageId"},
	{"an empty ID", `{"message":{"messageId":""}}`, "no message with a messageId"},
	{"a numeric ID", `{"message":{"messageId":1}}`, "no string"},
	{"two IDs", `{"message":{"messageId":"1","message_id":"2"}}`, "different message ID"},
	{"an ID twice", `{"message":{"messageId":"1","messageId":"1"}}`, "given twice"},
	{"two messages", `{"message":{"messageId":"1"},"message":{"messageId":"1"}}`, "given twice"},
	{"a null and a message", `{"message":null,"message":{"messageId":"1"}}`, "given twice"},
	{"data twice", `{"message":{"messageId":"1","data":"c2Vj","data":"c2Vj"}}`, "given twice"},
	{"data that is an object", `{"message":{"messageId":"1","data":{"secret":1}}}`, "no string"},
	{"data that is no base64", `{"message":{"messageId":"1","data":"secret!!"}}`, "base64"},
	{"unpadded data", `{"message":{"messageId":"1","data":"c2VjcmV0cw"}}`, "base64"},
	{"URL-safe data", `{"message":{"messageId":"1","data":"_-8="}}`, "base64"},
	{"non-canonical data", `{"message":{"messageId":"1","data":"YR=="}}`, "base64"},
	{"data with line breaks", `{"message":{"messageId":"1","data":"c2Vj\ncmV0"}}`, "base64"},
	{"data that is line breaks", `{"message":{"messageId":"1","data":"\n\n\n\n"}}`, "base64"},
	{"text after the padding", `{"message":{"messageId":"1","data":"YQ==YQ=="}}`, "base64"},
	{"attributes that are a list", `{"message":{"messageId":"1","attributes":["secret"]}}`, "no object"},
	{"a numeric attribute", `{"message":{"messageId":"1","attributes":{"secret":1}}}`, "no string"},
	{"a null attribute", `{"message":{"messageId":"1","attributes":{"secret":null}}}`, "no string"},
	{"an attribute twice", `{"message":{"messageId":"1","attributes":{"secret":"1","secret":"1"}}}`, "attribute given twice"},
	{"a time that is none", `{"message":{"messageId":"1","publishTime":"secret"}}`, "RFC 3339"},
	{"a numeric time", `{"message":{"messageId":"1","publishTime":1}}`, "no string"},
	{"two times", `{"message":{"messageId":"1","publishTime":"2026-01-02T03:04:05Z","publish_time":"2026-01-02T03:04:06Z"}}`, "different publish time"},
	{"a subscription that is no text", `{"message":{"messageId":"1"},"subscription":{}}`, "no string"},
	{"an attempt that is text", `{"message":{"messageId":"1"},"deliveryAttempt":"5"}`, "no value"},
	{"a negative attempt", `{"message":{"messageId":"1"},"deliveryAttempt":-1}`, "not an integer"},
	{"half an attempt", `{"message":{"messageId":"1"},"deliveryAttempt":1.5}`, "not an integer"},
	{"too many attempts", `{"message":{"messageId":"1"},"deliveryAttempt":2147483648}`, "not an integer"},
	{"not UTF-8", "{\"message\":{\"messageId\":\"1\",\"orderingKey\":\"secret\xff\"}}", "UTF-8"},
	{"two JSON texts", `{"message":{"messageId":"1"}}{"secret":1}`, "after the end"},
	{"too deep a list", `{"message":{"messageId":"1"},"x":` + nested(maxDepth) + `}`, "too deep"},
	{"too deep an object", strings.Repeat(`{"x":`, 100_000), "too deep"},
	{"no name", `{1:2}`, "no string"},
	{"no colon", `{"secret" 1}`, "no colon"},
	{"no value", `{"secret":}`, "no value"},
	{"no comma", `{"a":1 "secret":2}`, "comma"},
	{"a comma too many", `{"a":1,}`, "no string"},
	{"a comma too many in a list", `{"a":[1,]}`, "no value"},
	{"broken off in an object", `{"a":1`, "comma"},
	{"broken off in a list", `{"a":[1`, "comma"},
	{"broken off in a string", `{"secret`, "without its end"},
	{"broken off in an escape", `{"secret\`, "without its end"},
	{"broken off after an escape", `{"secret\n`, "without its end"},
	{"broken off behind an escaped quote", `{"secret\"`, "without its end"},
	{"a wrong escape", `{"secret\x":1}`, "escape"},
	{"a control character", "{\"sec\nret\":1}", "control character"},
	{"a control character beside an escape", "{\"\\n sec\nret\":1}", "control character"},
	{"a zero byte", "{\x00}", "no string"},
	{"a number with a leading zero", `{"a":01}`, "comma"},
	{"a number without an end", `{"a":1.}`, "after its point"},
	{"a number without an exponent", `{"a":1e}`, "exponent"},
	{"only a sign", `{"a":-}`, "no value"},
	{"half a word", `{"a":tru}`, "no value"},
}

func TestDecodeRefusesWhatIsMalformedWithoutRepeatingIt(t *testing.T) {
	t.Parallel()
	for _, tt := range malformedBodies {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode([]byte(tt.body))
			if !reflect.DeepEqual(got, Message{}) {
				t.Errorf("Decode() = %+v, want no message", got)
			}
			refusal := wantStatus(t, err, http.StatusBadRequest)
			if !strings.Contains(refusal.Reason, tt.reason) {
				t.Errorf("reason = %q, want it to contain %q", refusal.Reason, tt.reason)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "c2Vj") {
				t.Errorf("error %q repeats the body", err)
			}
		})
	}
}

func wantStatus(t *testing.T, err error, status int) *Error {
	t.Helper()
	var refusal *Error
	if !errors.As(err, &refusal) {
		t.Fatalf("error = %v, want an *Error", err)
	}
	if refusal.Status != status {
		t.Fatalf("status = %d, want %d", refusal.Status, status)
	}
	return refusal
}

func TestReadTellsByStatusWhatIsWrongWithARequest(t *testing.T) {
	t.Parallel()
	const limit = int64(len(vendorBody))
	errBroken := errors.New("connection reset")
	tests := []struct {
		name        string
		method      string
		contentType string
		body        io.Reader
		status      int
	}{
		{"as Google sends it", "POST", "application/json", strings.NewReader(vendorBody), 200},
		{"with a charset", "POST", "application/json; charset=UTF-8", strings.NewReader(vendorBody), 200},
		{"in capitals", "POST", "Application/JSON", strings.NewReader(vendorBody), 200},
		{"without a content type", "POST", "", strings.NewReader(vendorBody), 200},
		{"of unknown length", "POST", "application/json", iotest.OneByteReader(strings.NewReader(vendorBody)), 200},
		{"GET", "GET", "application/json", strings.NewReader(vendorBody), 405},
		{"no method", "", "application/json", strings.NewReader(vendorBody), 405},
		{"a form", "POST", "application/x-www-form-urlencoded", strings.NewReader(vendorBody), 415},
		{"a CloudEvent", "POST", "application/cloudevents+json", strings.NewReader(vendorBody), 415},
		{"another charset", "POST", "application/json; charset=iso-8859-1", strings.NewReader(vendorBody), 415},
		{"a content type that is none", "POST", ";", strings.NewReader(vendorBody), 415},
		{"a byte too long", "POST", "application/json", strings.NewReader(vendorBody + " "), 413},
		{"a byte too long, of unknown length", "POST", "application/json", io.MultiReader(strings.NewReader(vendorBody + " ")), 413},
		{"over the server's limit", "POST", "application/json", http.MaxBytesReader(nil, io.NopCloser(strings.NewReader(vendorBody)), 10), 413},
		{"broken off", "POST", "application/json", iotest.ErrReader(errBroken), 400},
		{"malformed", "POST", "application/json", strings.NewReader("{}"), 400},
		{"empty", "POST", "application/json", http.NoBody, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("POST", "/", tt.body)
			r.Method = tt.method
			r.Header.Set("Content-Type", tt.contentType)
			got, err := Read(r, limit)
			if tt.status != 200 {
				wantStatus(t, err, tt.status)
				return
			}
			if err != nil || !reflect.DeepEqual(got, vendorMessage) {
				t.Errorf("Read() = %+v, %v, want %+v", got, err, vendorMessage)
			}
		})
	}
	if _, err := Read(httptest.NewRequest("POST", "/", iotest.ErrReader(errBroken)), limit); !errors.Is(err, errBroken) {
		t.Errorf("Read() = %v, want it to wrap %v", err, errBroken)
	}
}

func TestReadKeepsNoPartOfABufferThatIsUsedAgain(t *testing.T) {
	t.Parallel()
	first := readString(t, vendorBody)
	for range 100 {
		readString(t, strings.ReplaceAll(vendorBody, "V", "W"))
	}
	if !reflect.DeepEqual(first, vendorMessage) {
		t.Errorf("after later reads the message is %+v, want %+v", first, vendorMessage)
	}
}

func readString(t *testing.T, body string) Message {
	t.Helper()
	m, err := Read(httptest.NewRequest("POST", "/", strings.NewReader(body)), MaxBody)
	if err != nil {
		t.Fatalf("Read() = %v", err)
	}
	return m
}

func TestMaxBodyIsEnoughForTheLargestMessageOfPubSub(t *testing.T) {
	t.Parallel()
	m := Message{
		ID: strings.Repeat("1", 64), Data: make([]byte, 10_000_000), Attributes: map[string]string{},
		PublishTime: time.Now(), OrderingKey: strings.Repeat("\x01", 1024),
		Subscription: "projects/" + strings.Repeat("p", 30) + "/subscriptions/" + strings.Repeat("s", 255), DeliveryAttempt: 100,
	}
	for i := range 100 {
		m.Attributes[fmt.Sprintf("%03d", i)+strings.Repeat("\x01", 253)] = strings.Repeat("\x01", 1024)
	}
	body := m.Append(nil)
	got, err := Read(httptest.NewRequest("POST", "/", bytes.NewReader(body)), MaxBody)
	if err != nil || !bytes.Equal(got.Data, m.Data) || !maps.Equal(got.Attributes, m.Attributes) {
		t.Errorf("Read() of %d bytes = %v, want the message back", len(body), err)
	}
}

func TestAppendWritesGooglesFields(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		m    Message
		want string
	}{
		{"all", vendorMessage, strings.Join(strings.Fields(vendorBody), "")},
		{"few", Message{ID: "1", Subscription: "s"}, `{"message":{"messageId":"1","message_id":"1"},"subscription":"s"}`},
		{"sorted and escaped attributes", Message{ID: "1", Attributes: map[string]string{"b": "\"\\\n", "a": "é"}},
			`{"message":{"attributes":{"a":"é","b":"\"\\\n"},"messageId":"1","message_id":"1"},"subscription":""}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := string(tt.m.Append([]byte("before"))); got != "before"+tt.want {
				t.Errorf("Append() = %s, want it to end with %s", got, tt.want)
			}
		})
	}
}

func TestDecodeReturnsWhatAppendWrote(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := Message{
			ID:              rapid.StringN(1, 40, -1).Draw(t, "id"),
			Data:            rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data"),
			Attributes:      rapid.MapOfN(rapid.String(), rapid.String(), 1, 12).Draw(t, "attributes"),
			PublishTime:     time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "time")).UTC(),
			OrderingKey:     rapid.String().Draw(t, "key"),
			Subscription:    rapid.String().Draw(t, "subscription"),
			DeliveryAttempt: rapid.IntRange(0, 100).Draw(t, "attempt"),
		}
		if len(want.Data) == 0 {
			want.Data = nil
		}
		body := want.Append(nil)
		got, err := Decode(body)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("Decode(%q) = %+v, %v, want %+v", body, got, err, want)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{200, 4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("data=%d", size), func(b *testing.B) {
			body := typicalMessage(size).Append(nil)
			r := httptest.NewRequest("POST", "/", nil)
			r.Header.Set("Content-Type", "application/json")
			reader := bytes.NewReader(body)
			r.Body, r.ContentLength = io.NopCloser(reader), int64(len(body))
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(body)
				if _, err := Read(r, MaxBody); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	m := typicalMessage(4 << 10)
	buf := m.Append(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = m.Append(buf[:0])
	}
}

// typicalMessage has the attributes of a message of ours (DESIGN section 4).
func typicalMessage(size int) Message {
	id := base64.RawURLEncoding.EncodeToString(make([]byte, 16))
	return Message{
		ID: "2070443601311540", Data: bytes.Repeat([]byte("x"), size), PublishTime: vendorMessage.PublishTime,
		Attributes: map[string]string{
			"requestId": id, "correlationId": id, "action": "getAppointments", "userId": id, "entryId": "1764000000000-0",
			"lane": "default", "ledger": id + id, "epoch": id, "admittedAt": "1764000000000",
			"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		},
		Subscription: vendorMessage.Subscription, DeliveryAttempt: 1,
	}
}
