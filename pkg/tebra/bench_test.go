package tebra_test

import (
	"testing"
	"time"

	"tebraproxy/pkg/tebra"
)

// typicalEntry is what most entries look like: a small read.
func typicalEntry() []string {
	return []string{
		"id", "5f0c1c1e-3f0e-4b42-9d57-2b6f7f3f9c11",
		"action", "getAppointments",
		"params", `{"fromDate":"2025-11-01","toDate":"2025-11-30","options":{"includeCancelled":false}}`,
		"userId", "kR3fUq0ZbJYyF1xW9mT2aVn8LdC3",
		"timestamp", "2025-11-23T03:45:32.000Z",
		"correlationId", "c-5f0c1c1e-3f0e-4b42-9d57-2b6f7f3f9c11",
	}
}

func BenchmarkDecodeEntry(b *testing.B) {
	fields := typicalEntry()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tebra.DecodeEntry(fields, tebra.DefaultMaxRequestBytes); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeEntryWhole(b *testing.B) {
	r, err := tebra.DecodeEntry(typicalEntry(), tebra.DefaultMaxRequestBytes)
	if err != nil {
		b.Fatal(err)
	}
	fields := []string{"message", string(r.AppendJSON(nil))}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tebra.DecodeEntry(fields, tebra.DefaultMaxRequestBytes); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeMessage(b *testing.B) {
	r, err := tebra.DecodeEntry(typicalEntry(), tebra.DefaultMaxRequestBytes)
	if err != nil {
		b.Fatal(err)
	}
	data := r.AppendJSON(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tebra.DecodeMessage(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	r, err := tebra.DecodeEntry(typicalEntry(), tebra.DefaultMaxRequestBytes)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = r.AppendJSON(buf[:0])
	}
}

func BenchmarkEachAttribute(b *testing.B) {
	e := typicalEnvelope()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		e.EachAttribute(func(_, value string) { n += len(value) })
	}
}

func BenchmarkLedgerHash(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		tebra.LedgerHash("kR3fUq0ZbJYyF1xW9mT2aVn8LdC3", "5f0c1c1e-3f0e-4b42-9d57-2b6f7f3f9c11")
	}
}

func typicalEnvelope() tebra.Envelope {
	const user, id = "kR3fUq0ZbJYyF1xW9mT2aVn8LdC3", "5f0c1c1e-3f0e-4b42-9d57-2b6f7f3f9c11"
	return tebra.Envelope{
		RequestID: id, CorrelationID: "c-" + id, Action: "getAppointments", UserID: user,
		EntryID: "1763869532000-0", Lane: "appointments", Ledger: tebra.LedgerHash(user, id), Epoch: "4bq2aL0v",
		AdmittedAt:  time.UnixMilli(1763869532017),
		Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
}
