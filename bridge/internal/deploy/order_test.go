package deploy

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// references are what each block of terraform/ refers to, by their addresses: what
// Terraform makes in which order follows from it.
type references map[string][]string

func readReferences(t *testing.T) references {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "terraform", "*.tf"))
	if err != nil || len(files) < 10 {
		t.Fatalf("files = %v, %v, want those of terraform/", files, err)
	}
	all := references{}
	for _, file := range files {
		for _, block := range parse(t, filepath.Base(file)).Blocks {
			switch block.Type {
			case "resource":
				all[strings.Join(block.Labels, ".")] = referred(block.Body)
			case "data", "module":
				all[block.Type+"."+strings.Join(block.Labels, ".")] = referred(block.Body)
			case "locals":
				for name, attribute := range block.Body.Attributes {
					all["local."+name] = addresses(attribute.Expr)
				}
			}
		}
	}
	return all
}

func referred(body *hclsyntax.Body) []string {
	var all []string
	for _, attribute := range body.Attributes {
		all = append(all, addresses(attribute.Expr)...)
	}
	for _, block := range body.Blocks {
		all = append(all, referred(block.Body)...)
	}
	return all
}

// addresses returns what an expression refers to. Some of it may be names of its own,
// which are no addresses.
func addresses(expression hclsyntax.Expression) []string {
	var all []string
	for _, traversal := range expression.Variables() {
		names := []string{traversal.RootName()}
		for _, step := range traversal[1:] {
			if attribute, ok := step.(hcl.TraverseAttr); ok {
				names = append(names, attribute.Name)
			} else {
				break
			}
		}
		length := 2
		if names[0] == "data" {
			length = 3
		}
		all = append(all, strings.Join(names[:min(length, len(names))], "."))
	}
	return all
}

// waitsFor reports whether one address is made after another.
func (r references) waitsFor(address, other string) bool {
	seen := map[string]bool{}
	next := []string{address}
	for len(next) > 0 {
		at := next[0]
		next = next[1:]
		for _, to := range r[at] {
			if to == other {
				return true
			}
			if !seen[to] {
				seen[to] = true
				next = append(next, to)
			}
		}
	}
	return false
}

func TestNothingIsMadeBeforeItsAPIsAreKnownEverywhere(t *testing.T) {
	t.Parallel()
	all := readReferences(t)
	resources := 0
	for address := range all {
		if !strings.HasPrefix(address, "google_") || strings.HasPrefix(address, "google_project_service.") {
			continue
		}
		resources++
		if !all.waitsFor(address, "time_sleep.apis") {
			t.Errorf("a first apply can make %s before its API is known: let it depend on time_sleep.apis", address)
		}
	}
	if resources < 30 {
		t.Errorf("found %d resources: the search does not see them any more", resources)
	}
	for address := range all {
		if strings.HasPrefix(address, "data.google_artifact") || !strings.HasPrefix(address, "data.") {
			continue
		}
		if !all.waitsFor(address, "time_sleep.asked") || all.waitsFor(address, "time_sleep.apis") {
			t.Errorf("%s must wait for time_sleep.asked and not for time_sleep.apis: else enabling another API has every agent's binding made anew", address)
		}
	}
}

func TestWhatNeedsRightsWaitsForThem(t *testing.T) {
	t.Parallel()
	all := readReferences(t)
	for address, others := range map[string][]string{
		// A revision that may not read its secrets fails, and the apply with it.
		"google_cloud_run_v2_service.functions":      {"time_sleep.readers"},
		"google_cloud_run_v2_worker_pool.bridge":     {"time_sleep.readers", "module.messaging"},
		"google_cloud_run_v2_job.bridge":             {"time_sleep.readers", "module.messaging"},
		"time_sleep.readers":                         {"google_secret_manager_secret_iam_member.readers"},
		"module.messaging":                           {"time_sleep.kms", "terraform_data.agents", "google_cloud_run_v2_service_iam_member.push"},
		"google_artifact_registry_repository.images": {"time_sleep.kms"},
		"google_storage_bucket.build":                {"time_sleep.kms"},
		"google_secret_manager_secret.this":          {"time_sleep.kms"},
		"google_redis_instance.this":                 {"time_sleep.kms", "terraform_data.agents"},
		"google_logging_project_bucket_config.audit": {"time_sleep.kms"},
		"time_sleep.kms":                             {"google_kms_crypto_key_iam_member.agents", "terraform_data.agents"},
		"google_cloud_scheduler_job.bridge":          {"google_cloud_run_v2_job_iam_member.scheduler"},
		"terraform_data.images": {
			"google_artifact_registry_repository_iam_member.builder", "google_storage_bucket_iam_member.builder", "google_project_iam_member.builder_logs",
		},
		"data.google_artifact_registry_docker_image.images": {"terraform_data.images"},
	} {
		if len(all[address]) == 0 {
			t.Errorf("%s is not there any more, or refers to nothing", address)
		}
		for _, other := range others {
			if !all.waitsFor(address, other) {
				t.Errorf("%s does not wait for %s", address, other)
			}
		}
	}
}

// Topics are protected; what is destroyed after them is safe from an accident as well.
func TestTheAuditLogIsDestroyedAfterTheTopicsThatAreProtected(t *testing.T) {
	t.Parallel()
	if !readReferences(t).waitsFor("module.messaging", "google_logging_project_bucket_config.audit") {
		t.Error("a destroy that the topics' protection stops could have begun with the audit log")
	}
}
