package config_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tebraproxy/pkg/config"
)

type settings struct {
	config.Redis
	config.PubSub
	Wait  time.Duration `env:"WAIT" envDefault:"45s"`
	Count int           `env:"COUNT" envDefault:"3"`
	On    bool          `env:"ON"`
}

func (s *settings) Validate() []string {
	if s.Count > 3 {
		return []string{"COUNT is more than 3"}
	}
	return nil
}

func TestDefaultsHoldWhereTheEnvironmentIsSilent(t *testing.T) {
	t.Parallel()
	got, err := config.Load[settings]([]string{"REDIS_URL=redis://r", "GOOGLE_CLOUD_PROJECT=p"})
	if err != nil {
		t.Fatalf("Load() = %v", err)
	}
	if got.Wait != 45*time.Second || got.Prefix != "tebra" || got.Requests() != "projects/p/topics/tebra-requests" ||
		got.DeadLetters() != "projects/p/topics/tebra-dead-letters" {
		t.Errorf("Load() = %+v, want the defaults", got)
	}
}

func TestEverythingThatIsWrongIsSaidAtOnceByVariableAndWithoutValues(t *testing.T) {
	t.Parallel()
	_, err := config.Load[settings]([]string{"REDIS_URL=", "WAIT=canary-1", "COUNT=canary-2", "ON=canary-3"})
	var bad *config.Error
	if !errors.As(err, &bad) {
		t.Fatalf("Load() = %v, want a *config.Error", err)
	}
	for _, variable := range []string{"REDIS_URL", "GOOGLE_CLOUD_PROJECT", "WAIT", "COUNT", "ON"} {
		if !strings.Contains(err.Error(), variable+" is ") {
			t.Errorf("Load() = %v, want a line on %s", err, variable)
		}
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("Load() = %v, want no values: some are secrets", err)
	}
}

func TestWhatValidateFindsCounts(t *testing.T) {
	t.Parallel()
	_, err := config.Load[settings]([]string{"REDIS_URL=redis://r", "GOOGLE_CLOUD_PROJECT=p", "COUNT=4"})
	if err == nil || !strings.Contains(err.Error(), "COUNT is more than 3") {
		t.Errorf("Load() = %v, want what Validate found", err)
	}
}

func TestVariablesAreAllThatAreRead(t *testing.T) {
	t.Parallel()
	got := strings.Join(config.Variables[settings](), " ")
	want := "COUNT DEAD_LETTERS_TOPIC GOOGLE_CLOUD_PROJECT ON PUBSUB_EMULATOR_HOST REDIS_CA_CERT REDIS_URL REQUESTS_TOPIC STREAM_PREFIX WAIT"
	if got != want {
		t.Errorf("Variables() = %s, want %s", got, want)
	}
}
