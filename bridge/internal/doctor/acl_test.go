package doctor

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryCommandOfOurScriptsIsAskedAbout holds the list of what a user must be
// allowed against what the scripts call, whose commands need grants of their own.
func TestEveryCommandOfOurScriptsIsAskedAbout(t *testing.T) {
	t.Parallel()
	asked := map[string]bool{}
	for _, command := range needed {
		asked[command[0].(string)] = true
	}
	call := regexp.MustCompile(`redis\.p?call\('([A-Z]+)'`)
	var missing []string
	found := 0
	err := fs.WalkDir(os.DirFS("../../.."), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, "_test.go") || filepath.Ext(path) != ".lua" && filepath.Ext(path) != ".go" {
			return nil
		}
		text, err := os.ReadFile(filepath.Join("../../..", path))
		for _, match := range call.FindAllStringSubmatch(string(text), -1) {
			found++
			if name := match[1]; !asked[name] && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
		return err
	})
	if err != nil || found < 20 {
		t.Fatalf("found %d commands in scripts, %v, want all of them", found, err)
	}
	if len(missing) > 0 {
		t.Errorf("the doctor does not ask about %v, which scripts call", missing)
	}
}
