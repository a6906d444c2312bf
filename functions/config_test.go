package functions

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tebraproxy/pkg/config"
)

// rightEnvironment is the least that is needed.
var rightEnvironment = map[string]string{
	"REDIS_URL": "redis://localhost", "GOOGLE_CLOUD_PROJECT": "demo", "FUNCTION_TARGET": ProcessRequest,
	"TEBRA_PHP_API_URL": "https://api.example/api", "TEBRA_INTERNAL_API_KEY": "key",
}

func environment(changes map[string]string) []string {
	all := map[string]string{}
	for _, m := range []map[string]string{rightEnvironment, changes} {
		for name, value := range m {
			all[name] = value
		}
	}
	var pairs []string
	for name, value := range all {
		pairs = append(pairs, name+"="+value)
	}
	return pairs
}

// problemsOf returns what is wrong with the environment after changes.
func problemsOf(t *testing.T, changes map[string]string) []string {
	t.Helper()
	_, err := config.Load[Config](environment(changes))
	if err == nil {
		return nil
	}
	bad, ok := err.(*config.Error)
	if !ok {
		t.Fatalf("Load() = %T, want a *config.Error", err)
	}
	return bad.Problems
}

func TestTheDefaultsAreRight(t *testing.T) {
	t.Parallel()
	if got := problemsOf(t, nil); got != nil {
		t.Errorf("problems = %q, want none", got)
	}
}

// TestEveryRuleHasItsBoundary: one step beyond it is refused, naming the variables,
// and the boundary itself is admitted.
func TestEveryRuleHasItsBoundary(t *testing.T) {
	t.Parallel()
	type vars = map[string]string
	for name, test := range map[string]struct {
		refused, admitted vars
		says              []string
	}{
		"the call in the handler": {
			vars{"RATE_WAIT": "45s", "PHP_TIMEOUT": "30s", "HANDLER_TIMEOUT": "80s"},
			vars{"RATE_WAIT": "45s", "PHP_TIMEOUT": "30s", "HANDLER_TIMEOUT": "80s1ms"},
			[]string{"RATE_WAIT", "PHP_TIMEOUT", "HANDLER_TIMEOUT", "1m20s"},
		},
		"the handler in the ack deadline": {
			vars{"HANDLER_TIMEOUT": "120s"}, vars{"HANDLER_TIMEOUT": "119s999ms"}, []string{"HANDLER_TIMEOUT", "ACK_DEADLINE"},
		},
		"the ack deadline in the lease": {
			vars{"ACK_DEADLINE": "150s"}, vars{"ACK_DEADLINE": "149s999ms"}, []string{"ACK_DEADLINE", "LEDGER_LEASE"},
		},
		"the handler and its answer in the lease": {
			vars{"HANDLER_TIMEOUT": "119s", "LEDGER_LEASE": "124s"},
			vars{"HANDLER_TIMEOUT": "119s", "LEDGER_LEASE": "124s1ms"},
			[]string{"HANDLER_TIMEOUT", "LEDGER_LEASE"},
		},
		"the lease in the backoff": {
			vars{"LEDGER_LEASE": "40m30s"}, vars{"LEDGER_LEASE": "40m29s"}, []string{"LEDGER_LEASE", "40m30s"},
		},
		"the retention in the record's life": {
			vars{"LEDGER_TTL": "24h"}, vars{"LEDGER_TTL": "24h1ms"}, []string{"LEDGER_TTL", "24h"},
		},
		"the ack deadline at most": {
			vars{"ACK_DEADLINE": "600s1ms", "LEDGER_LEASE": "11m"}, vars{"ACK_DEADLINE": "600s", "LEDGER_LEASE": "11m"},
			[]string{"ACK_DEADLINE", "10s to 10m0s"},
		},
		"the ack deadline at least": {
			vars{"ACK_DEADLINE": "9s999ms", "HANDLER_TIMEOUT": "8s", "RATE_WAIT": "1s", "PHP_TIMEOUT": "1s"},
			vars{"ACK_DEADLINE": "10s", "HANDLER_TIMEOUT": "8s", "RATE_WAIT": "1s", "PHP_TIMEOUT": "1s"},
			[]string{"ACK_DEADLINE", "10s to 10m0s"},
		},
		"the call takes time":    {vars{"PHP_TIMEOUT": "0s"}, vars{"PHP_TIMEOUT": "1ms"}, []string{"PHP_TIMEOUT"}},
		"so does waiting":        {vars{"RATE_WAIT": "-1s"}, vars{"RATE_WAIT": "1ms"}, []string{"RATE_WAIT"}},
		"replicas at least":      {vars{"LEDGER_REPLICAS": "-1"}, vars{"LEDGER_REPLICAS": "0"}, []string{"LEDGER_REPLICAS"}},
		"replicas at most":       {vars{"LEDGER_REPLICAS": "11"}, vars{"LEDGER_REPLICAS": "10"}, []string{"LEDGER_REPLICAS"}},
		"ports at least":         {vars{"PORT": "-1"}, vars{"PORT": "0"}, []string{"PORT"}},
		"ports at most":          {vars{"PORT": "65536"}, vars{"PORT": "65535"}, []string{"PORT"}},
		"a known function":       {vars{"FUNCTION_TARGET": "Gateways"}, vars{"FUNCTION_TARGET": RecordDeadLetter}, []string{"FUNCTION_TARGET"}},
		"a prefix that fits":     {vars{"STREAM_PREFIX": "a b"}, vars{"STREAM_PREFIX": "{tebra:0}"}, []string{"STREAM_PREFIX"}},
		"an API over HTTP":       {vars{"TEBRA_PHP_API_URL": "ftp://x"}, vars{"TEBRA_PHP_API_URL": "http://x"}, []string{"TEBRA_PHP_API_URL"}},
		"no password in a URL":   {vars{"TEBRA_PHP_API_URL": "http://u:p@x"}, vars{"TEBRA_PHP_API_URL": "http://x"}, []string{"TEBRA_PHP_API_URL"}},
		"a key for a header":     {vars{"TEBRA_INTERNAL_API_KEY": "secret\n"}, vars{"TEBRA_INTERNAL_API_KEY": "secret"}, []string{"TEBRA_INTERNAL_API_KEY"}},
		"a duration":             {vars{"PHP_TIMEOUT": "30"}, vars{"PHP_TIMEOUT": "29s"}, []string{"PHP_TIMEOUT"}},
		"what is required":       {vars{"TEBRA_INTERNAL_API_KEY": ""}, nil, []string{"TEBRA_INTERNAL_API_KEY"}},
		"an API at some address": {vars{"TEBRA_PHP_API_URL": "https://"}, nil, []string{"TEBRA_PHP_API_URL"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused := problemsOf(t, test.refused)
			if len(refused) != 1 {
				t.Fatalf("problems of %v = %q, want one", test.refused, refused)
			}
			for _, word := range test.says {
				if !strings.Contains(refused[0], word) {
					t.Errorf("problem = %q, want %q in it", refused[0], word)
				}
			}
			if strings.Contains(refused[0], "secret") || strings.Contains(refused[0], "u:p") {
				t.Errorf("problem = %q, which tells a secret", refused[0])
			}
			if admitted := problemsOf(t, test.admitted); admitted != nil {
				t.Errorf("problems of %v = %q, want none", test.admitted, admitted)
			}
		})
	}
}

func TestAllProblemsComeAtOnce(t *testing.T) {
	t.Parallel()
	got := problemsOf(t, map[string]string{
		"STREAM_PREFIX": "a b", "FUNCTION_TARGET": "x", "PORT": "-1", "LEDGER_REPLICAS": "99", "TEBRA_PHP_API_URL": "x",
		"TEBRA_INTERNAL_API_KEY": "a b", "PHP_TIMEOUT": "0s", "RATE_WAIT": "0s", "ACK_DEADLINE": "1h", "LEDGER_TTL": "1h",
	})
	var named []string
	for _, p := range got {
		named = append(named, strings.Trim(strings.Fields(p)[0], ":"))
	}
	slices.Sort(named)
	want := "[ACK_DEADLINE ACK_DEADLINE FUNCTION_TARGET LEDGER_REPLICAS PHP_TIMEOUT PORT RATE_WAIT STREAM_PREFIX TEBRA_INTERNAL_API_KEY TEBRA_PHP_API_URL the]"
	if fmt.Sprint(named) != want {
		t.Errorf("problems begin with %v,\nwant %s:\n%s", named, want, strings.Join(got, "\n"))
	}
}

// TestRecordDeadLetterGetsNoKey: it calls nobody, so what calls the API is neither
// asked of it nor read.
func TestRecordDeadLetterGetsNoKey(t *testing.T) {
	t.Parallel()
	_, err := config.Load[RecorderConfig]([]string{"REDIS_URL=redis://localhost", "FUNCTION_TARGET=" + RecordDeadLetter})
	if err != nil {
		t.Errorf("Load() = %v, want nil", err)
	}
	for _, name := range config.Variables[RecorderConfig]() {
		if strings.HasPrefix(name, "TEBRA_") || strings.HasSuffix(name, "_TOPIC") {
			t.Errorf("RecordDeadLetter reads %s", name)
		}
	}
	_, err = config.Load[RecorderConfig]([]string{"REDIS_URL=redis://localhost", "FUNCTION_TARGET=" + RecordDeadLetter, "HANDLER_TIMEOUT=0s", "ACK_DEADLINE=1h"})
	if err == nil || !strings.Contains(err.Error(), "HANDLER_TIMEOUT") || !strings.Contains(err.Error(), "ACK_DEADLINE") {
		t.Errorf("Load() = %v, want HANDLER_TIMEOUT and ACK_DEADLINE refused", err)
	}
}
