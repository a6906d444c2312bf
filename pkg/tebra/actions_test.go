package tebra_test

import (
	"slices"
	"testing"

	"tebraproxy/pkg/tebra"
)

func TestParamsAreThoseOfTheAPI(t *testing.T) {
	t.Parallel()
	want := []tebra.Param{{Name: "fromDate"}, {Name: "toDate"}}
	got := tebra.Params("getAppointments")
	if !slices.Equal(got, want) {
		t.Errorf("Params() = %v, want %v", got, want)
	}
	got[0].Name = "changed"
	if again := tebra.Params("getAppointments"); !slices.Equal(again, want) {
		t.Errorf("Params() = %v after a caller changed its own, want %v", again, want)
	}
	if got := tebra.Params("health"); len(got) > 0 {
		t.Errorf("Params(health) = %v, want none", got)
	}
}
