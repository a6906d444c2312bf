package deploy

import (
	"strings"
	"testing"
)

func TestTheREADMENamesEveryVariableAndOutputOfTerraformsThatThereIs(t *testing.T) {
	t.Parallel()
	readme := readFile(t, "README.md")
	_, deployment, ok := strings.Cut(readme, "\n## Deployment\n")
	if !ok {
		t.Fatal("README.md has no section Deployment")
	}
	deployment, _, _ = strings.Cut(deployment, "\n## ")
	variables := 0
	for _, block := range parse(t, "variables.tf").Blocks {
		variables++
		if name := block.Labels[0]; !strings.Contains(deployment, "`"+name+"`") {
			t.Errorf("README.md's section Deployment does not name the variable %s", name)
		}
	}
	if variables < 50 {
		t.Errorf("found %d variables: the search does not see them any more", variables)
	}
	outputs := readFile(t, "terraform/outputs.tf")
	for _, command := range []string{"tebra", "bridge_logs", "trigger"} {
		if !strings.Contains(deployment, "`commands."+command+"`") || !strings.Contains(outputs, "\n    "+command+" ") {
			t.Errorf("README.md names no output commands.%s, or there is none", command)
		}
	}
	if !strings.Contains(outputs, `output "redis_ca_cert"`) || !strings.Contains(outputs, `output "accounts"`) {
		t.Error("README.md names an output that is not there")
	}
}
