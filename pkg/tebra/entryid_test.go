package tebra_test

import (
	"math"
	"testing"
	"time"

	"tebraproxy/pkg/tebra"
)

func TestParseEntryID(t *testing.T) {
	t.Parallel()
	const most = math.MaxUint64
	for s, want := range map[string]tebra.EntryID{
		"1763869532000-7": {Millis: 1763869532000, Seq: 7},
		"1763869532000":   {Millis: 1763869532000},
		"0-0":             {},
		"18446744073709551615-18446744073709551615": {Millis: most, Seq: most},
	} {
		if got, err := tebra.ParseEntryID(s); err != nil || got != want {
			t.Errorf("ParseEntryID(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "-", "1-", "-1", "1-2-3", "+1-0", "1-+0", " 1-0", "1-0 ", "1_0-0", "0x1-0", "*", "$", "1-*", "18446744073709551616-0", "0-18446744073709551616"} {
		if got, err := tebra.ParseEntryID(s); err == nil || got != (tebra.EntryID{}) {
			t.Errorf("ParseEntryID(%q) = %v, %v, want an error", s, got, err)
		}
	}
}

func TestEntryIDsCompareAsNumbers(t *testing.T) {
	t.Parallel()
	inOrder := []string{"0-0", "0-1", "9-0", "10-0", "10-9", "10-10", "18446744073709551615-0"}
	for i, a := range inOrder {
		for j, b := range inOrder {
			x, errX := tebra.ParseEntryID(a)
			y, errY := tebra.ParseEntryID(b)
			if errX != nil || errY != nil {
				t.Fatal(errX, errY)
			}
			want := 0
			if i < j {
				want = -1
			}
			if i > j {
				want = 1
			}
			if got := x.Compare(y); got != want {
				t.Errorf("%s.Compare(%s) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestArrivalIsNeverAfterAdmission(t *testing.T) {
	t.Parallel()
	admitted := time.UnixMilli(1763869532017)
	tests := []struct {
		name     string
		millis   uint64
		admitted time.Time
		want     time.Time
	}{
		{"entry before admission", 1763869532000, admitted, time.UnixMilli(1763869532000)},
		{"entry at admission", 1763869532017, admitted, admitted},
		{"entry in the future", 1763869532018, admitted, admitted},
		{"entry beyond any time", math.MaxUint64, admitted, admitted},
		{"admission before 1970", 1, time.UnixMilli(-1), time.UnixMilli(-1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := (tebra.EntryID{Millis: tt.millis}).Arrival(tt.admitted); !got.Equal(tt.want) {
				t.Errorf("Arrival() = %v, want %v", got, tt.want)
			}
		})
	}
}
