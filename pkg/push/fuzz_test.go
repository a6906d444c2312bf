package push

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"testing"
	"unicode/utf8"
)

// FuzzDecode holds Decode against the standard library's reader: what Decode
// accepts is JSON and says the same there, and comes back from Append unchanged;
// what it refuses, it refuses with a 400 that does not repeat the body.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(vendorBody))
	f.Add([]byte(emulatorBody))
	f.Add([]byte(`{"message":{"messageId":"1"},"x":[true,-1.5e3,{"y":null}],"z":1e999}`))
	for _, tt := range malformedBodies {
		if len(tt.body) < 1000 {
			f.Add([]byte(tt.body))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := Decode(body)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		checkAgainstStandardLibrary(t, body, got)
		again, err := Decode(got.Append(nil))
		if err != nil || again.ID != got.ID || string(again.Data) != string(got.Data) || len(again.Attributes) != len(got.Attributes) {
			t.Fatalf("Decode(Append(%+v)) = %+v, %v", got, again, err)
		}
	})
}

func checkRefusal(t *testing.T, err error) {
	t.Helper()
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusBadRequest || refusal.Err != nil {
		t.Fatalf("Decode() = %v, want an *Error with status 400 of our own text", err)
	}
	if !utf8.ValidString(err.Error()) {
		t.Fatalf("error %q is not text", err)
	}
}

func checkAgainstStandardLibrary(t *testing.T, body []byte, got Message) {
	t.Helper()
	var want map[string]any
	reader := json.NewDecoder(bytes.NewReader(body))
	reader.UseNumber() // JSON allows numbers beyond a float64
	if err := reader.Decode(&want); err != nil || !json.Valid(body) {
		t.Fatalf("Decode accepts what is no JSON object: %v", err)
	}
	message, _ := want["message"].(map[string]any)
	if id, _ := either(message["messageId"], message["message_id"]).(string); id != got.ID {
		t.Fatalf("ID = %q, want %q", got.ID, id)
	}
	if data, _ := message["data"].(string); data != base64.StdEncoding.EncodeToString(got.Data) {
		t.Fatalf("Data = %q, want what %q encodes", got.Data, data)
	}
	attributes, _ := message["attributes"].(map[string]any)
	if len(attributes) != len(got.Attributes) {
		t.Fatalf("Attributes = %v, want %v", got.Attributes, attributes)
	}
	for name, value := range attributes {
		if value != got.Attributes[name] {
			t.Fatalf("Attributes[%q] = %q, want %q", name, got.Attributes[name], value)
		}
	}
	if subscription, _ := want["subscription"].(string); subscription != got.Subscription {
		t.Fatalf("Subscription = %q, want %q", got.Subscription, subscription)
	}
	if attempt, given := want["deliveryAttempt"].(json.Number); given && string(attempt) != strconv.Itoa(got.DeliveryAttempt) {
		t.Fatalf("DeliveryAttempt = %d, want %v", got.DeliveryAttempt, attempt)
	}
}

// either is what a field with two spellings says: an empty text is as good as none.
func either(camel, snake any) any {
	if camel == nil || camel == "" {
		return snake
	}
	return camel
}
