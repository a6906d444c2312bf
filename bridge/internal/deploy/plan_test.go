package deploy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// planTimeout is for a plan on a busy machine.
const planTimeout = 3 * time.Minute

func TestAFirstPlanAsksTheProjectNothingAndHoldsNoSecret(t *testing.T) {
	t.Parallel()
	policy, err := filepath.Abs(filepath.Join(root, "pkg", "policy", "example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const key, password = "the-key-of-the-api", "the-password-of-redis"
	// With these Google would refuse every call.
	config := newConfiguration(t, "", "GOOGLE_OAUTH_ACCESS_TOKEN=none", "TF_VAR_php_api_key="+key)
	for name, more := range map[string][]string{
		"pool with Memorystore":           {"create_redis=true", "enable_gateway=true"},
		"job with a Redis of one's own":   {"redis_url=rediss://tebra:" + password + "@redis.example.com:6379", "bridge_mode=job"},
		"pool in somebody else's network": {"redis_url=redis://:" + password + "@10.0.0.2:6379", "subnetwork=projects/host/regions/us-central1/subnetworks/apps"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), planTimeout)
		output, err := config.run(ctx, append([]string{"plan", "-input=false", "-no-color", "-out=plan"}, flags(append(more,
			"project_id=empty-project", "region=us-central1", "php_api_url=https://api.example.com/api", "policy_file="+policy))...)...)
		if err != nil {
			t.Errorf("%s: terraform plan: %v\n%s", name, err, output)
		}
		shown, err := config.run(ctx, "show", "-json", "plan")
		if err != nil {
			t.Errorf("%s: terraform show: %v\n%s", name, err, shown)
		}
		cancel()
		for _, secret := range []string{key, password, "clinician"} {
			if strings.Contains(output+shown, secret) {
				t.Errorf("%s: the plan holds %q", name, secret)
			}
		}
		if !strings.Contains(shown, "google_secret_manager_secret_version") {
			t.Errorf("%s: the plan makes no secrets", name)
		}
	}
}

func TestAPolicyThatNoSecretHoldsIsRefusedAtPlan(t *testing.T) {
	t.Parallel()
	const most = 65536 // of a secret's version
	config := newConfiguration(t, "", "GOOGLE_OAUTH_ACCESS_TOKEN=none", "TF_VAR_php_api_key=key")
	for size, admitted := range map[int]bool{most: true, most + 1: false} {
		path := filepath.Join(t.TempDir(), "policy.yaml")
		text := "version: 1\n#"
		if err := os.WriteFile(path, []byte(text+strings.Repeat("x", size-len(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), planTimeout)
		output, err := config.run(ctx, append([]string{"plan", "-input=false", "-no-color"}, flags([]string{
			"project_id=empty-project", "region=us-central1", "php_api_url=https://api.example.com/api", "redis_url=redis://10.0.0.2:6379", "policy_file=" + path,
		})...)...)
		cancel()
		if (err == nil) != admitted || !admitted && !strings.Contains(output, "at most 64 KiB") {
			t.Errorf("a policy of %d bytes: terraform plan: %v, want it admitted: %t\n%s", size, err, admitted, output)
		}
	}
}
