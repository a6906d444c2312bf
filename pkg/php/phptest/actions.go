package phptest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"
)

// object is a JSON object.
type object = map[string]any

// call is a request that was understood.
type call struct {
	action    string
	params    map[string]json.RawMessage
	requestID string
	now       time.Time
}

// invalid is the API's validation_error; its text is for the caller.
type invalid string

func (e invalid) Error() string { return string(e) }

// action is one thing that the API does.
type action struct {
	write bool
	run   func(call) (any, error)
}

// actions are those of FACTS. getPatients is not among them: the deployment
// that FACTS describes doesn't know it either.
var actions = map[string]action{
	"syncSchedule":      {run: syncSchedule},
	"getAppointments":   {run: getAppointments},
	"getPatient":        {run: getPatient},
	"searchPatients":    {run: searchPatients},
	"getProviders":      {run: getProviders},
	"testConnection":    {run: testConnection},
	"health":            {run: health},
	"getHealthStatus":   {run: health},
	"createAppointment": {write: true, run: createAppointment},
	"updateAppointment": {write: true, run: updateAppointment},
}

func syncSchedule(c call) (any, error) {
	date, err := c.date("date", c.now.UTC().Format(time.DateOnly))
	if err != nil {
		return nil, err
	}
	list := appointments(date, date)
	return object{
		"date":         date,
		"appointments": object{"success": true, "appointments": list, "count": len(list)},
	}, nil
}

func getAppointments(c call) (any, error) {
	from, err := c.date("fromDate", "")
	if err != nil {
		return nil, err
	}
	to, err := c.date("toDate", "")
	if err != nil {
		return nil, err
	}
	if from > to {
		return nil, invalid("fromDate must be before or equal to toDate")
	}
	list := appointments(from, to)
	return object{"success": true, "appointments": list, "count": len(list)}, nil
}

func getPatient(c call) (any, error) {
	id, err := c.text("patientId")
	if err != nil {
		return nil, err
	}
	return object{"success": true, "patient": patient(id, "Synthetic")}, nil
}

func searchPatients(c call) (any, error) {
	name, err := c.text("lastName")
	if err != nil {
		return nil, err
	}
	return tebraAnswer("Patients", []any{patient("90001", name), patient("90002", name)}), nil
}

func getProviders(call) (any, error) {
	return tebraAnswer("Providers", []any{
		object{"ID": "80001", "FullName": "Sample Provider, MD", "Active": true},
		object{"ID": "80002", "FullName": "Example Provider, NP", "Active": true},
	}), nil
}

func testConnection(call) (any, error) {
	return object{"success": true, "message": "Connection successful", "stand_in": true}, nil
}

func health(call) (any, error) {
	return object{"status": "healthy", "stand_in": true}, nil
}

func createAppointment(c call) (any, error) {
	data, err := c.object("appointmentData")
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("SYN-%08x", crc32.ChecksumIEEE([]byte(c.requestID)))
	return object{"success": true, "appointmentId": id, "appointment": data}, nil
}

func updateAppointment(c call) (any, error) {
	data, err := c.object("appointmentData")
	if err != nil {
		return nil, err
	}
	return object{"success": true, "updated": true, "appointment": data}, nil
}

// tebraAnswer is Tebra's own form, which the API passes through unread (FACTS).
func tebraAnswer(name string, list []any) object {
	return object{
		"ErrorResponse":    object{"ErrorMessage": nil, "IsError": false},
		"SecurityResponse": object{"Authenticated": true, "Authorized": true, "SecurityResult": "Success"},
		name:               list,
	}
}

func patient(id, lastName string) object {
	return object{
		"ID": id, "FirstName": "Testa", "LastName": lastName, "PatientFullName": "Testa " + lastName,
		"DateOfBirth": "1900-01-01", "PhoneNumber": "555-0100", "EmailAddress": "testa@example.invalid",
	}
}

// appointments returns three for the first day and, where it is another, three for the last.
func appointments(from, to string) []any {
	days := []string{from}
	if to != from {
		days = append(days, to)
	}
	list := []any{}
	for _, day := range days {
		for i, name := range []string{"Synthetic", "Example", "Placeholder"} {
			list = append(list, object{
				"ID":              fmt.Sprintf("SYN-%s-%d", day, i+1),
				"PatientFullName": "Testa " + name,
				"Status":          "Scheduled",
				"StartTime":       fmt.Sprintf("%sT%02d:00:00Z", day, 9+i),
				"EndTime":         fmt.Sprintf("%sT%02d:30:00Z", day, 9+i),
				"ProviderName":    "Sample Provider, MD",
			})
		}
	}
	return list
}

// date returns a param that is a day, or fallback where it is absent.
func (c call) date(name, fallback string) (string, error) {
	if _, ok := c.params[name]; !ok && fallback != "" {
		return fallback, nil
	}
	s, err := c.text(name)
	if err != nil {
		return "", err
	}
	if _, err := time.Parse(time.DateOnly, s); err != nil {
		return "", invalid(name + " must be a date in Y-m-d format")
	}
	return s, nil
}

// text returns a param that must be a string that is not empty, or a number as it is written.
func (c call) text(name string) (string, error) {
	raw := c.params[name]
	var s string
	if json.Unmarshal(raw, &s) == nil && s != "" {
		return s, nil
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil && n != "" {
		return n.String(), nil
	}
	return "", invalid(name + " is required")
}

// object returns a param that must be an object.
func (c call) object(name string) (json.RawMessage, error) {
	raw := bytes.TrimSpace(c.params[name])
	if len(raw) == 0 || raw[0] != '{' {
		return nil, invalid(name + " is required and must be an object")
	}
	return raw, nil
}
