package compare

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestJSONFindsEachPlaceThatDiffers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, first, second string
		ignore              []string
		want                []string
	}{
		{"equal", `{"a":[1,{"b":null}]}`, `{"a":[1,{"b":null}]}`, nil, nil},
		{"order and space", `{"a":1,"b":2}`, " { \"b\" : 2,\n\"a\":1 } ", nil, nil},
		{"escapes", `"é"`, `"\u00e9"`, nil, nil},
		{"a value", `{"a":{"b":[1,2]}}`, `{"a":{"b":[1,3]}}`, nil, []string{"value $.a.b[1] 2 3"}},
		{"a type", `{"a":"1"}`, `{"a":1}`, nil, []string{`type $.a "1" 1`}},
		{"null is a type", `{"a":null}`, `{"a":[]}`, nil, []string{`type $.a null []`}},
		{"a member", `{"a":1}`, `{"b":1}`, nil, []string{"only_first $.a 1 ", "only_second $.b  1"}},
		{"a longer list", `[1]`, `[1,{"x":2}]`, nil, []string{`only_second $[1]  {"x":2}`}},
		{"a list's order", `[1,2]`, `[2,1]`, nil, []string{"value $[0] 1 2", "value $[1] 2 1"}},
		{"how a number is written", `1.0`, `1`, nil, []string{"value $ 1.0 1"}},
		{"large numbers", `9007199254740993`, `9007199254740992`, nil, []string{"value $ 9007199254740993 9007199254740992"}},
		{"a name that is not plain", `{"a b":1}`, `{"a b":2}`, nil, []string{`value $["a b"] 1 2`}},
		{"ignored", `{"t":1,"a":2}`, `{"t":3,"a":2}`, []string{"$.t"}, nil},
		{"ignored with all below", `{"t":{"x":1}}`, `{}`, []string{"$.t"}, nil},
		{"ignored in every place", `[{"t":1},{"t":2}]`, `[{"t":0},{"u":2}]`, []string{"$[*].t"}, []string{"only_second $[1].u  2"}},
		{"ignored in one place", `[1,2]`, `[0,0]`, []string{"$[1]"}, []string{"value $[0] 1 0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := JSON([]byte(test.first), []byte(test.second), Options{Ignore: test.ignore, Most: 10})
			var lines []string
			for _, d := range got.Differences {
				lines = append(lines, strings.Join([]string{string(d.Kind), d.Path, string(d.First), string(d.Second)}, " "))
			}
			if err != nil || !slices.Equal(lines, test.want) || got.Same() != (len(test.want) == 0) {
				t.Errorf("JSON() = %q, %v, want %q", lines, err, test.want)
			}
		})
	}
}

func TestManyDifferencesAreCounted(t *testing.T) {
	t.Parallel()
	got, err := JSON([]byte(`[1,2,3,4]`), []byte(`[]`), Options{Most: 3})
	if err != nil || len(got.Differences) != 3 || got.More != 1 {
		t.Errorf("JSON() = %d differences and %d more, %v, want 3 and 1", len(got.Differences), got.More, err)
	}
}

func TestWhatIsNoJSONIsToldWithoutQuotingIt(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "secret", `{"secret"`, `1 2`} {
		_, first := JSON([]byte(text), []byte(`1`), Options{})
		_, second := JSON([]byte(`1`), []byte(text), Options{})
		if first == nil || second == nil || strings.Contains(first.Error()+second.Error(), "secret") {
			t.Errorf("JSON(%q) = %v and %v, want errors that quote nothing", text, first, second)
		}
	}
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,"x",null]}`), []byte(`{"a":[1.0,"y"],"b":{}}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		one, err := JSON(first, second, Options{Most: 1000})
		if err != nil {
			return
		}
		if same, err := JSON(first, first, Options{Most: 1}); err != nil || !same.Same() {
			t.Errorf("an answer differs from itself: %+v, %v", same, err)
		}
		other, err := JSON(second, first, Options{Most: 1000})
		if err != nil || len(other.Differences)+other.More != len(one.Differences)+one.More {
			t.Errorf("%d differences one way, %d the other, %v", len(one.Differences), len(other.Differences), err)
		}
		for _, d := range one.Differences {
			if (len(d.First) > 0 && !json.Valid(d.First)) || (len(d.Second) > 0 && !json.Valid(d.Second)) || !strings.HasPrefix(d.Path, "$") {
				t.Errorf("difference %+v, want JSON at a path", d)
			}
		}
	})
}

func TestAShapeHoldsNoNameThatMayBeContents(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Start": "$.m.Start", "a_1": "$.m.a_1", strings.Repeat("a", 40): "$.m." + strings.Repeat("a", 40),
		"Jane Doe": "$.m{…}", "1961": "$.m{…}", "_x": "$.m{…}", "": "$.m{…}", "é": "$.m{…}", strings.Repeat("a", 41): "$.m{…}",
	} {
		first, err := json.Marshal(map[string]any{"m": map[string]any{name: []int{1}}})
		if err != nil {
			t.Fatal(err)
		}
		for second, want := range map[string]string{`{"m":{}}`: want, strings.Replace(string(first), "[1]", "[2]", 1): want + "[0]"} {
			got, err := JSON(first, []byte(second), Options{Most: 10})
			if err != nil || len(got.Differences) != 1 || got.Differences[0].Shape != want {
				t.Errorf("JSON(%s, %s) = %+v, %v, want one of shape %s", first, second, got.Differences, err, want)
			}
		}
	}
}
