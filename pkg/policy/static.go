package policy

import "context"

// Static is the source of roles that is written in the policy file. It never
// fails and never changes; it is safe for concurrent use.
type Static struct {
	accounts map[string]account
	anyone   []string
}

type account struct {
	roles    []string
	disabled bool
}

var _ Source = (*Static)(nil)

// Roles returns the roles of the user's account, or, for a user without one,
// those of anyone. The error is [ErrUnknownUser] where there is neither, and
// [ErrDisabledUser] where the account is disabled.
func (s *Static) Roles(_ context.Context, userID string) ([]string, error) {
	a, ok := s.accounts[userID]
	if !ok && len(s.anyone) == 0 {
		return nil, ErrUnknownUser
	}
	if !ok {
		return s.anyone, nil
	}
	if a.disabled {
		return nil, ErrDisabledUser
	}
	return a.roles, nil
}

// AdmitsAnyone reports whether users without an account have roles too. That is
// for local runs: a deployment should refuse to start with it.
func (s *Static) AdmitsAnyone() bool { return len(s.anyone) > 0 }
