package functions

import (
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// account tells the metrics and the audit log how an attempt ended; err is why it
// could not be brought to that end.
func (r *run) account(end ending, err error) {
	final := err == nil && (end.step == complete || end.step == letComplete)
	r.seen.Ended(telemetry.Ended{
		Step: end.step.String(), Code: end.code, Answered: final, DeadLetter: final && end.step == letComplete,
	})
	r.audit.Operation(telemetry.Operation{
		Envelope: &r.env, Decision: r.grounds(end), Called: r.called, Outcome: end.code, Final: final, Attempt: r.claim.Attempt,
	})
}

// grounds is why an attempt ended as it did, for the audit log.
func (r *run) grounds(end ending) tebra.Decision {
	switch {
	case r.called:
		return tebra.Allowed
	case end.code == tebra.Unauthorized || end.code == tebra.UnknownAction:
		return telemetry.Denied
	case end.code == tebra.Expired:
		return telemetry.Expired
	case end.step == letComplete:
		return telemetry.GivenUp
	default:
		return telemetry.Deferred
	}
}

// auditVerdict notes what the ledger answered by itself. Of a redelivery there is
// nothing to say.
func auditVerdict(audit *telemetry.Auditor, env *tebra.Envelope, v ledger.Verdict) {
	o := telemetry.Operation{Envelope: env, Final: true}
	switch v {
	case ledger.Repeated:
		o.Decision = telemetry.Repeated
	case ledger.Conflict:
		o.Decision, o.Outcome = telemetry.Conflict, tebra.Duplicate
	default:
		return
	}
	audit.Operation(o)
}
