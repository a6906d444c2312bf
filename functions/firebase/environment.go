package firebase

import "fmt"

// emulatorVariable makes Firebase's client talk to an emulator, which believes
// everybody.
const emulatorVariable = "FIREBASE_AUTH_EMULATOR_HOST"

// cloudRunVariables are those that Cloud Run sets: services, worker pools and
// jobs, in this order (Cloud Run's container runtime contract).
var cloudRunVariables = []string{"K_SERVICE", "K_REVISION", "CLOUD_RUN_WORKER_POOL", "CLOUD_RUN_JOB"}

// CheckEnvironment returns an error where FIREBASE_AUTH_EMULATOR_HOST is set on
// Cloud Run: users would be whoever they say they are. Call it at start, before
// a client is made; lookupEnv is os.LookupEnv outside of tests.
func CheckEnvironment(lookupEnv func(string) (string, bool)) error {
	if host, _ := lookupEnv(emulatorVariable); host == "" {
		return nil
	}
	for _, name := range cloudRunVariables {
		if _, ok := lookupEnv(name); ok {
			return fmt.Errorf("%s is set on Cloud Run (%s is there too): the emulator checks no credentials, so remove the variable", emulatorVariable, name)
		}
	}
	return nil
}
