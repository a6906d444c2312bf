package tebra_test

import (
	"encoding/json"
	"fmt"
	"time"

	"tebraproxy/pkg/tebra"
)

func ExampleDecodeEntry() {
	r, err := tebra.DecodeEntry([]string{
		"action", "getAppointments",
		"params", `{"fromDate":"2025-11-01","toDate":"2025-11-30"}`,
		"userId", "u-1",
		"correlationId", "c-1",
	}, tebra.DefaultMaxRequestBytes)
	if err != nil {
		fmt.Println(err)
		return
	}
	r.Identify(func() string { return "an ID made of the entry's" })
	fmt.Printf("%s\n", r.AppendJSON(nil))
	// Output:
	// {"id":"an ID made of the entry's","action":"getAppointments","params":{"fromDate":"2025-11-01","toDate":"2025-11-30"},"userId":"u-1","timestamp":"","correlationId":"c-1"}
}

func ExampleDecodeEntry_refused() {
	r, err := tebra.DecodeEntry([]string{
		"action", "getAppointments",
		"params", "[object Object]",
		"userId", "u-1",
		"correlationId", "c-1",
	}, tebra.DefaultMaxRequestBytes)
	if e, ok := tebra.IsDecodeError(err); ok {
		fmt.Println(e.Code)
		fmt.Println(e)
		fmt.Println("to be told:", r.UserID, r.CorrelationID)
	}
	// Output:
	// malformed
	// field params: is "[object Object]": the client sent an object where it should have sent JSON.stringify(object)
	// to be told: u-1 c-1
}

func ExampleResponse_Fields() {
	fields := tebra.Response{
		ID: "a-1", RequestID: "r-1", CorrelationID: "c-1", Data: json.RawMessage(`{"providers":[]}`),
		Timestamp: time.Date(2025, 11, 23, 3, 45, 32, 0, time.UTC), Duration: 1500 * time.Millisecond,
		Attempts: 1, UserID: "u-1", Action: "getProviders",
	}.Fields()
	for i := 0; i < len(fields); i += 2 {
		fmt.Println(fields[i], fields[i+1])
	}
	// Output:
	// id a-1
	// requestId r-1
	// correlationId c-1
	// status success
	// data {"providers":[]}
	// timestamp 2025-11-23T03:45:32.000Z
	// duration 1500
	// attempts 1
	// userId u-1
	// action getProviders
}
