package firebase_test

import (
	"strings"
	"testing"

	"tebraproxy/functions/firebase"
)

func TestCheckEnvironmentKeepsTheEmulatorOutOfProduction(t *testing.T) {
	t.Parallel()
	const emulator = "FIREBASE_AUTH_EMULATOR_HOST"
	tests := map[string]struct {
		env     map[string]string
		refused bool
	}{
		"a machine":                    {env: map[string]string{}},
		"a machine with the emulator":  {env: map[string]string{emulator: "127.0.0.1:9099"}},
		"a service":                    {env: map[string]string{"K_SERVICE": "functions"}},
		"a service, variable empty":    {env: map[string]string{"K_SERVICE": "functions", emulator: ""}},
		"a service with the emulator":  {env: map[string]string{"K_SERVICE": "functions", emulator: "x"}, refused: true},
		"a revision with the emulator": {env: map[string]string{"K_REVISION": "r", emulator: "x"}, refused: true},
		"a pool with the emulator":     {env: map[string]string{"CLOUD_RUN_WORKER_POOL": "bridge", emulator: "x"}, refused: true},
		"a job with the emulator":      {env: map[string]string{"CLOUD_RUN_JOB": "drain", emulator: "x"}, refused: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := firebase.CheckEnvironment(func(name string) (string, bool) {
				v, ok := tt.env[name]
				return v, ok
			})
			if (err != nil) != tt.refused {
				t.Fatalf("CheckEnvironment(%v) = %v, want refused %v", tt.env, err, tt.refused)
			}
			if err != nil && !strings.Contains(err.Error(), emulator) {
				t.Errorf("CheckEnvironment() = %v, want it to name %s", err, emulator)
			}
		})
	}
}
