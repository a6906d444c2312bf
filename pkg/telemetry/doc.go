// Package telemetry makes what operators and auditors see: logs, metrics, traces
// and audit records. None of them ever holds what a request or an answer says.
//
//   - Logs ([NewLogger]) are JSON as Cloud Logging reads it, text on a terminal.
//     [Thin] keeps an error that repeats from drowning everything else.
//   - Metrics are OpenTelemetry instruments with closed sets of labels. They are
//     always there as Prometheus text ([Telemetry.MetricsHandler]), and are sent
//     over OTLP where OTEL_EXPORTER_OTLP_ENDPOINT says where to.
//   - A trace follows one request from the entry of the requests stream to its
//     answer. Its ID is the client's, or else follows from the request and the entry
//     ([TraceOf]), so that whoever takes the request up again goes on with the same.
//   - Audit records ([Auditor]) are log lines with the label log=audit, which a sink
//     routes by.
//
// [Telemetry] belongs to a program's composition root, which makes and shuts it
// down. The bridge is given its [Bridge], the functions their [Functions]; both may
// be nil, and then observe nothing.
//
// Names of our own instruments are written as Prometheus has them, units and _total
// included, and nothing is added to them on the way, so that a query finds the same
// name wherever the metrics went. Where OpenTelemetry's semantic conventions have a
// name, that is used.
package telemetry
