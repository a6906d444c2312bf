package stream

import (
	"errors"
	"reflect"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestRepliesOfBothProtocolVersionsAreRead(t *testing.T) {
	t.Parallel()
	want := []Entry{{ID: "1-0", Fields: []string{"a", "x", "a", "y"}}, {ID: "2-0"}}
	for name, raw := range map[string]string{
		"RESP2":            "*1\r\n*2\r\n$1\r\ns\r\n*2\r\n*2\r\n$3\r\n1-0\r\n*4\r\n$1\r\na\r\n$1\r\nx\r\n$1\r\na\r\n$1\r\ny\r\n*2\r\n$3\r\n2-0\r\n*-1\r\n",
		"RESP3":            "%1\r\n$1\r\ns\r\n*2\r\n*2\r\n$3\r\n1-0\r\n*4\r\n$1\r\na\r\n$1\r\nx\r\n$1\r\na\r\n$1\r\ny\r\n*2\r\n$3\r\n2-0\r\n_\r\n",
		"RESP2, bulk null": "*1\r\n*2\r\n$1\r\ns\r\n*2\r\n*2\r\n$3\r\n1-0\r\n*4\r\n$1\r\na\r\n$1\r\nx\r\n$1\r\na\r\n$1\r\ny\r\n*2\r\n$3\r\n2-0\r\n$-1\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseRead([]byte(raw))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("parseRead() = %v, %v, want %v", got, err, want)
			}
		})
	}
}

func TestNoEntriesAreNoError(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"*-1\r\n", "_\r\n", "$-1\r\n", "*1\r\n*2\r\n$1\r\ns\r\n*0\r\n", "%1\r\n$1\r\ns\r\n*0\r\n"} {
		if got, err := parseRead([]byte(raw)); err != nil || len(got) != 0 {
			t.Errorf("parseRead(%q) = %v, %v, want nothing", raw, got, err)
		}
	}
}

func TestAnErrorReplyIsARedisError(t *testing.T) {
	t.Parallel()
	_, err := parseRead([]byte("-NOGROUP No such key\r\n"))
	var reply redis.Error
	if !errors.As(err, &reply) || !NoGroup(err) {
		t.Errorf("parseRead() = %v, want a redis.Error that NoGroup knows", err)
	}
}

func TestARepliedClaimSaysWhereToGoOn(t *testing.T) {
	t.Parallel()
	const rest = "*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n*1\r\n$3\r\n2-0\r\n"
	for last, want := range map[string]string{"$0\r\n\r\n": "0-0", "$3\r\n2-0\r\n": "2-1"} {
		entries, gone, next, err := parseAutoClaim([]byte("*3\r\n" + last + rest))
		if err != nil || len(entries) != 1 || len(gone) != 1 || next != want {
			t.Errorf("parseAutoClaim(%q) = %v, %v, %q, %v, want one entry, one gone, %q", last, entries, gone, next, err, want)
		}
	}
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"))
	f.Add([]byte("%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"))
	f.Add([]byte("*2\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*0\r\n*1\r\n$3\r\n1-1\r\n"))
	f.Add([]byte("*3\r\n$3\r\n0-0\r\n*0\r\n*0\r\n"))
	f.Add([]byte("-ERR x\r\n"))
	f.Add([]byte("$99999999999999999999\r\n"))
	f.Add([]byte("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*1000000\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, parse := range []func([]byte) ([]Entry, error){
			parseRead,
			func(b []byte) ([]Entry, error) { e, _, err := parseFill(b); return e, err },
			func(b []byte) ([]Entry, error) { e, _, _, err := parseAutoClaim(b); return e, err },
		} {
			entries, err := parse(raw)
			if err != nil {
				continue
			}
			bytes := 0
			for _, e := range entries {
				bytes += len(e.ID)
				for _, f := range e.Fields {
					bytes += len(f)
				}
			}
			if bytes > len(raw) {
				t.Errorf("%d bytes of entries came out of %d bytes", bytes, len(raw))
			}
		}
	})
}
