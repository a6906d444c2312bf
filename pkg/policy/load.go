package policy

import (
	"fmt"
	"os"
)

// Load reads the policy file at path; an empty path means [Default]. What is
// wrong with its contents comes as a wrapped *[InvalidError].
func Load(path string) (*Policy, error) {
	if path == "" {
		return Default(), nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("POLICY_FILE can't be read: %w", err)
	}
	p, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("POLICY_FILE %s: %w", path, err)
	}
	return p, nil
}
