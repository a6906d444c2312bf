package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"tebraproxy/pkg/peertest"
)

// cloudBuild is the part of cloudbuild.yaml that can be wrong without anybody
// noticing before a build.
type cloudBuild struct {
	Steps []struct {
		ID     string
		Name   string
		Env    []string
		Script string
	}
	Substitutions map[string]string
	Options       struct{ Logging string }
}

func readCloudBuild(t *testing.T) cloudBuild {
	t.Helper()
	var build cloudBuild
	if err := yaml.Unmarshal([]byte(readFile(t, "cloudbuild.yaml")), &build); err != nil {
		t.Fatalf("cloudbuild.yaml: %v", err)
	}
	return build
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheBuildTestsAndThenMakesTheImagesThatTerraformDeploys(t *testing.T) {
	t.Parallel()
	build := readCloudBuild(t)
	if len(build.Steps) != 2 || build.Steps[0].ID != "test" || build.Steps[1].ID != "images" {
		t.Fatalf("steps = %+v, want test, then images", build.Steps)
	}
	deployed := regexp.MustCompile(`for_each = toset\(\[(.*)\]\)\n\n  location      = google_artifact`).FindStringSubmatch(readFile(t, "terraform/images.tf"))
	if deployed == nil {
		t.Fatal("terraform/images.tf names no images that can be found")
	}
	for _, image := range strings.Split(deployed[1], ", ") {
		image = strings.Trim(image, `"`)
		if want := "/cmd/" + image; !strings.Contains(build.Steps[1].Script, want) {
			t.Errorf("terraform deploys the image %s, and the build makes nothing that ends in %s", image, want)
		}
	}
	if build.Options.Logging != "CLOUD_LOGGING_ONLY" {
		t.Errorf("logging = %q: an account of one's own can log to nowhere but Cloud Logging", build.Options.Logging)
	}
}

func TestEveryStepOfTheBuildIsAScriptForTheGoOfTheModule(t *testing.T) {
	t.Parallel()
	bash := peertest.Program(t, "install bash", "bash")
	version := regexp.MustCompile(`(?m)^go (1\.[0-9]+)`).FindStringSubmatch(readFile(t, "go.mod"))
	if version == nil {
		t.Fatal("go.mod names no version of Go")
	}
	for _, step := range readCloudBuild(t).Steps {
		if !strings.HasPrefix(step.Name, "golang:"+version[1]+"-") {
			t.Errorf("step %s runs in %s, go.mod wants Go %s", step.ID, step.Name, version[1])
		}
		if !strings.HasPrefix(step.Script, "#!/usr/bin/env bash\nset -euo pipefail\n") {
			t.Errorf("step %s would go on after a command that failed:\n%s", step.ID, step.Script)
		}
		check := exec.CommandContext(t.Context(), bash, "-n")
		check.Stdin = strings.NewReader(step.Script)
		if output, err := check.CombinedOutput(); err != nil {
			t.Errorf("step %s: bash can't read its script: %v\n%s", step.ID, err, output)
		}
		for _, command := range regexp.MustCompile(`\./[a-z]+/cmd/[a-z]+`).FindAllString(step.Script, -1) {
			if main, err := os.ReadFile(filepath.Join(root, command, "main.go")); err != nil || !strings.Contains(string(main), "\nfunc main()") {
				t.Errorf("step %s builds %s, which is no program (%v)", step.ID, command, err)
			}
		}
		for _, tool := range regexp.MustCompile(`go run (\S+)`).FindAllStringSubmatch(step.Script, -1) {
			if !regexp.MustCompile(`@v[0-9]+\.[0-9]+\.[0-9]+$`).MatchString(tool[1]) {
				t.Errorf("step %s runs %s, want a version: another day's build would be another", step.ID, tool[1])
			}
		}
	}
}

func TestWhatAnApplySubstitutesIsWhatTheBuildUses(t *testing.T) {
	t.Parallel()
	build := readCloudBuild(t)
	var used []string
	for _, step := range build.Steps {
		for _, m := range regexp.MustCompile(`\$\{(_[A-Z]+)\}`).FindAllStringSubmatch(strings.Join(step.Env, " "), -1) {
			used = append(used, m[1])
		}
		if strings.Contains(step.Script, "${_") {
			t.Errorf("step %s: a script's text is not substituted, only its env is", step.ID)
		}
	}
	var given []string
	for _, m := range regexp.MustCompile(`(_[A-Z]+)=\$`).FindAllStringSubmatch(readFile(t, "terraform/build.sh"), -1) {
		given = append(given, m[1])
	}
	slices.Sort(used)
	slices.Sort(given)
	if !slices.Equal(used, given) {
		t.Errorf("build.sh substitutes %v, cloudbuild.yaml uses %v", given, used)
	}
	for _, name := range used {
		if _, ok := build.Substitutions[name]; !ok {
			t.Errorf("%s has no default, which a trigger needs", name)
		}
	}
}

func TestTheBaseImageIsPinned(t *testing.T) {
	t.Parallel()
	var ko struct {
		DefaultBaseImage string   `yaml:"defaultBaseImage"`
		DefaultFlags     []string `yaml:"defaultFlags"`
	}
	if err := yaml.Unmarshal([]byte(readFile(t, ".ko.yaml")), &ko); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`/distroless/static-[a-z0-9]+:nonroot@sha256:[0-9a-f]{64}$`).MatchString(ko.DefaultBaseImage) {
		t.Errorf("defaultBaseImage = %q, want a distroless base that is not root's, by digest", ko.DefaultBaseImage)
	}
	if !slices.Contains(ko.DefaultFlags, "-trimpath") {
		t.Errorf("defaultFlags = %v, want -trimpath, without which no two machines build the same", ko.DefaultFlags)
	}
}
