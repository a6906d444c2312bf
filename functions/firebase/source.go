package firebase

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"firebase.google.com/go/v4/auth"

	"tebraproxy/pkg/policy"
)

const (
	// lookupTimeout bounds one look-up, the client's own retries among it. It
	// comes before RATE_WAIT and the call, so it has to be short.
	lookupTimeout = 5 * time.Second
	// maxUIDBytes is the longest user ID that Firebase Auth gives out.
	maxUIDBytes = 128
)

// Users looks up users; *[auth.Client] does.
type Users interface {
	GetUser(ctx context.Context, uid string) (*auth.UserRecord, error)
}

// Source is a [policy.Source] over Firebase Auth. It is safe for concurrent use
// when its client is, as *[auth.Client] is.
type Source struct {
	users Users
	claim string
}

var _ policy.Source = (*Source)(nil)

// New returns a source that takes a user's roles from the named custom claim.
func New(users Users, claim string) *Source { return &Source{users: users, claim: claim} }

// Roles returns the roles in the user's claim: a list of strings, or one string
// with commas or white space between. A user without the claim has none.
//
// The errors that are answers are [policy.ErrUnknownUser],
// [policy.ErrDisabledUser] and, for a claim in any other form,
// [policy.ErrUnusableRoles]. Every other error means that Firebase could not be
// asked; one that does not answer gets 5 s.
func (s *Source) Roles(ctx context.Context, userID string) ([]string, error) {
	if userID == "" || len(userID) > maxUIDBytes {
		return nil, policy.ErrUnknownUser
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	user, err := s.users.GetUser(ctx, userID)
	if auth.IsUserNotFound(err) {
		return nil, policy.ErrUnknownUser
	}
	if err != nil {
		return nil, fmt.Errorf("firebase: the user could not be looked up in Firebase Auth: %w", err)
	}
	if user.Disabled {
		return nil, policy.ErrDisabledUser
	}
	return roles(user.CustomClaims[s.claim])
}

// roles reads a claim, which came as JSON.
func roles(claim any) ([]string, error) {
	switch claim := claim.(type) {
	case nil:
		return nil, nil
	case string:
		return strings.FieldsFunc(claim, separates), nil
	case []any:
		return listed(claim)
	default:
		return nil, policy.ErrUnusableRoles
	}
}

func separates(r rune) bool { return r == ',' || unicode.IsSpace(r) }

func listed(claim []any) ([]string, error) {
	roles := make([]string, 0, len(claim))
	for _, item := range claim {
		role, ok := item.(string)
		if !ok {
			return nil, policy.ErrUnusableRoles
		}
		roles = append(roles, role)
	}
	return roles, nil
}
