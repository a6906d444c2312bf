package deploy

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"tebraproxy/bridge"
	"tebraproxy/functions"
	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/config"
)

// program is one of those that are deployed.
type program struct {
	variables []string                            // that it reads
	load      func(environ []string) (any, error) // its configuration
	required  []string                            // what it does not start without, beside what differs
}

func programOf[T any](required ...string) program {
	return program{config.Variables[T](), func(environ []string) (any, error) { return config.Load[T](environ) }, required}
}

// programs are those by the names that Terraform has for them.
var programs = map[string]program{
	"bridge": programOf[bridge.Config]("GOOGLE_CLOUD_PROJECT=p"),
	"process": programOf[functions.Config]("GOOGLE_CLOUD_PROJECT=p", "FUNCTION_TARGET=ProcessRequest",
		"TEBRA_PHP_API_URL=https://api.example.com/api"),
	"record":  programOf[functions.RecorderConfig]("GOOGLE_CLOUD_PROJECT=p", "FUNCTION_TARGET=RecordDeadLetter"),
	"gateway": programOf[gateway.Config]("FUNCTION_TARGET=Gateway", "GOOGLE_CLOUD_PROJECT=p"),
}

// notDeployed are variables that programs read and Terraform does not set, and why.
var notDeployed = map[string]string{
	"PUBSUB_EMULATOR_HOST":                "there is no emulator in production",
	"PORT":                                "Cloud Run sets it, and lets nobody else",
	"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":  "traces go where metrics go",
	"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "metrics go where traces go",
	"OTEL_SERVICE_NAME":                   "each program has its own",
	"OTEL_METRIC_EXPORT_INTERVAL":         "the programs' own is what Google takes",
}

// otherwise are variables whose deployed default is another than the program's own,
// and why.
var otherwise = map[string]string{
	"GATEWAY_MAX_STREAMS":         "Cloud Run gives an instance at most 1000 requests at a time",
	"OTEL_EXPORTER_OTLP_ENDPOINT": "only where it is deployed is there somebody to send to",
	"OTEL_RESOURCE_ATTRIBUTES":    "only where it is deployed is there a region",
	"OTEL_TRACES_SAMPLER":         "every trace of a deployment would cost too much",
	"OTEL_TRACES_SAMPLER_ARG":     "every trace of a deployment would cost too much",
}

func TestTerraformSetsWhatTheProgramsRead(t *testing.T) {
	t.Parallel()
	plain, secret := environment(t, "environment"), environment(t, "secret_environment")
	for name, program := range programs {
		set := append(names(plain[name]), names(secret[name])...)
		for _, variable := range set {
			if !slices.Contains(program.variables, variable) {
				t.Errorf("terraform sets %s for %s, which does not read it", variable, name)
			}
		}
		for _, variable := range program.variables {
			if !slices.Contains(set, variable) && notDeployed[variable] == "" {
				t.Errorf("%s reads %s, which terraform does not set: add it to terraform/environment.tf", name, variable)
			}
		}
	}
	for name := range plain {
		if _, ok := programs[name]; !ok {
			t.Errorf("terraform deploys %s, whose configuration this test does not know", name)
		}
	}
}

func TestWhatTerraformSetsByDefaultIsWhatTheProgramsDoByDefault(t *testing.T) {
	t.Parallel()
	plain := environment(t, "environment")
	for name, program := range programs {
		secrets := []string{"REDIS_URL=redis://redis.example.com:6379", "TEBRA_INTERNAL_API_KEY=key"}
		deployed, err := program.load(append(evaluate(t, plain[name]), secrets...))
		if err != nil {
			t.Errorf("%s does not start with terraform's defaults: %v", name, err)
			continue
		}
		alone, err := program.load(append(program.required, secrets...))
		if err != nil {
			t.Fatalf("%s does not start with its own defaults: %v", name, err)
		}
		compare(t, name, reflect.ValueOf(deployed), reflect.ValueOf(alone))
	}
}

// compare reports every variable of two configurations that has two values.
func compare(t *testing.T, name string, deployed, alone reflect.Value) {
	t.Helper()
	for i := range deployed.NumField() {
		field := deployed.Type().Field(i)
		variable, _, _ := strings.Cut(field.Tag.Get("env"), ",")
		if variable == "" {
			compare(t, name, deployed.Field(i), alone.Field(i))
			continue
		}
		got, want := deployed.Field(i).Interface(), alone.Field(i).Interface()
		if !reflect.DeepEqual(got, want) && otherwise[variable] == "" {
			t.Errorf("%s of %s is %v by terraform's default, %v by its own", variable, name, got, want)
		}
	}
}

// environment returns a local of terraform/environment.tf: by program, its object.
func environment(t *testing.T, local string) map[string]*hclsyntax.ObjectConsExpr {
	t.Helper()
	for _, block := range parse(t, "environment.tf").Blocks {
		attribute, ok := block.Body.Attributes[local]
		if block.Type != "locals" || !ok {
			continue
		}
		all := map[string]*hclsyntax.ObjectConsExpr{}
		for name, value := range items(t, attribute.Expr) {
			object, ok := value.(*hclsyntax.ObjectConsExpr)
			if !ok {
				t.Fatalf("local.%s.%s is no object: nothing but one can be read here", local, name)
			}
			all[name] = object
		}
		return all
	}
	t.Fatalf("terraform/environment.tf has no local.%s", local)
	return nil
}

func parse(t *testing.T, file string) *hclsyntax.Body {
	t.Helper()
	parsed, diagnostics := hclparse.NewParser().ParseHCLFile(filepath.Join(root, "terraform", file))
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	return parsed.Body.(*hclsyntax.Body)
}

// items returns the members of an object that is written out.
func items(t *testing.T, expression hclsyntax.Expression) map[string]hclsyntax.Expression {
	t.Helper()
	object, ok := expression.(*hclsyntax.ObjectConsExpr)
	if !ok {
		t.Fatalf("%s: want an object", expression.Range())
	}
	all := map[string]hclsyntax.Expression{}
	for _, item := range object.Items {
		key, diagnostics := item.KeyExpr.Value(nil)
		if diagnostics.HasErrors() {
			t.Fatal(diagnostics)
		}
		all[key.AsString()] = item.ValueExpr
	}
	return all
}

// names returns the variables that an object sets.
func names(object *hclsyntax.ObjectConsExpr) []string {
	var all []string
	for _, item := range object.Items {
		if key, diagnostics := item.KeyExpr.Value(nil); !diagnostics.HasErrors() {
			all = append(all, key.AsString())
		}
	}
	return all
}

// evaluate returns the environment that an object makes where every variable of
// Terraform's has its default.
func evaluate(t *testing.T, object *hclsyntax.ObjectConsExpr) []string {
	t.Helper()
	known := &hcl.EvalContext{
		Variables: map[string]cty.Value{"var": cty.ObjectVal(defaults(t)), "local": cty.ObjectVal(locals)},
		Functions: map[string]function.Function{"join": stdlib.JoinFunc, "tostring": stdlib.MakeToFunc(cty.String)},
	}
	var environ []string
	for name, expression := range items(t, object) {
		value, diagnostics := expression.Value(known)
		if diagnostics.HasErrors() {
			t.Fatal(diagnostics)
		}
		environ = append(environ, name+"="+value.AsString())
	}
	return environ
}

// locals are those that environment.tf uses, as they are with the default name and
// a Redis of one's own.
var locals = map[string]cty.Value{
	"topics": cty.ObjectVal(map[string]cty.Value{
		"requests": cty.StringVal("tebra-requests"), "dead_letter": cty.StringVal("tebra-dead-letters"),
	}),
	"functions": cty.ObjectVal(map[string]cty.Value{
		"process": cty.StringVal(functions.ProcessRequest), "record": cty.StringVal(functions.RecordDeadLetter),
	}),
	"redis_ca_cert":       cty.StringVal(""),
	"policy_path":         cty.StringVal(""),
	"port":                cty.NumberIntVal(8080),
	"gateway_concurrency": cty.NumberIntVal(1000),
	"otlp_endpoint":       cty.StringVal("https://telemetry.googleapis.com"),
}

// defaults are those of Terraform's variables, with something for what has none.
func defaults(t *testing.T) map[string]cty.Value {
	t.Helper()
	all := map[string]cty.Value{
		"project_id": cty.StringVal("p"), "region": cty.StringVal("us-central1"), "php_api_url": cty.StringVal("https://api.example.com/api"),
	}
	for _, block := range parse(t, "variables.tf").Blocks {
		attribute, ok := block.Body.Attributes["default"]
		if !ok {
			continue
		}
		value, diagnostics := attribute.Expr.Value(nil)
		if diagnostics.HasErrors() {
			t.Fatal(diagnostics)
		}
		if value.Type().Equals(cty.EmptyTuple) {
			value = cty.ListValEmpty(cty.String) // as the variable's type makes it
		}
		all[block.Labels[0]] = value
	}
	return all
}
