package tebra

import "slices"

// Param is a parameter that a known action of the PHP API takes.
type Param struct {
	Name   string
	Object bool // a JSON object; else text
}

// params are those of the actions that are known (FACTS, "The PHP API we call"). It
// is for offering them to people; nothing is decided by it.
var params = map[string][]Param{
	"syncSchedule":      {{Name: "date"}},
	"getAppointments":   {{Name: "fromDate"}, {Name: "toDate"}},
	"getPatient":        {{Name: "patientId"}},
	"searchPatients":    {{Name: "lastName"}},
	"createAppointment": {{Name: "appointmentData", Object: true}},
	"updateAppointment": {{Name: "appointmentData", Object: true}},
}

// Params returns the parameters of a known action, nil for others and for those
// that take none.
func Params(action string) []Param { return slices.Clone(params[action]) }
