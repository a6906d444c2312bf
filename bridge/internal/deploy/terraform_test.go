package deploy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// initTimeout is for the provider, which is large, to be fetched.
const initTimeout = 5 * time.Minute

// unreachable is what terraform init says when it can't get a provider, as against
// a configuration that is wrong.
var unreachable = []string{
	"Failed to query available provider packages", "Failed to install provider", "Could not retrieve the list of available versions",
	"Error accessing remote module registry", "could not connect to registry",
}

// configuration is a directory of Terraform's, of one test.
type configuration struct {
	t       *testing.T
	dir     string
	environ []string
}

// newConfiguration copies a directory below terraform/ and initialises the copy.
// Where Terraform or the provider can't be had it skips the test, in CI too: neither
// is a package that CI could install everywhere.
func newConfiguration(t *testing.T, dir string, environ ...string) *configuration {
	t.Helper()
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skipf("skipped: there is no terraform here (%v)", err)
	}
	c := &configuration{t: t, dir: filepath.Join(t.TempDir(), "terraform"), environ: append(environ, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1",
		"TF_REGISTRY_DISCOVERY_RETRY=1", "TF_REGISTRY_CLIENT_TIMEOUT=10")}
	if err := os.CopyFS(c.dir, os.DirFS(root+"/terraform/"+dir)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), initTimeout)
	defer cancel()
	output, err := c.run(ctx, "init", "-backend=false", "-input=false", "-no-color")
	for _, sign := range unreachable {
		if err != nil && strings.Contains(output, sign) {
			t.Skipf("skipped: terraform init can't get the provider here:\n%s", output)
		}
	}
	if err != nil {
		t.Fatalf("terraform init: %v\n%s", err, output)
	}
	return c
}

// run runs terraform and returns what it printed.
func (c *configuration) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "terraform", args...)
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), c.environ...)
	cmd.WaitDelay = 10 * time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	return output.String(), err
}

// apply applies the configuration with variables, each "name=value".
func (c *configuration) apply(ctx context.Context, variables ...string) error {
	output, err := c.run(ctx, append([]string{"apply", "-auto-approve", "-input=false", "-no-color"}, flags(variables)...)...)
	if err != nil {
		return fmt.Errorf("terraform apply: %w\n%s", err, output)
	}
	return nil
}

// changesNothing returns an error unless a plan finds nothing left to do.
func (c *configuration) changesNothing(ctx context.Context, variables ...string) error {
	output, err := c.run(ctx, append([]string{"plan", "-detailed-exitcode", "-input=false", "-no-color"}, flags(variables)...)...)
	if err != nil {
		return fmt.Errorf("terraform plan: %w\n%s", err, output)
	}
	return nil
}

func flags(variables []string) []string {
	var all []string
	for _, v := range variables {
		all = append(all, "-var="+v)
	}
	return all
}
