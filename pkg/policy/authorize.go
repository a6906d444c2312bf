package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"tebraproxy/pkg/tebra"
)

// What a [Source] says of a user, for good. Any other error of a source means
// that it could not be asked.
var (
	// ErrUnknownUser means that the source has no such user.
	ErrUnknownUser = errors.New("the user is not known")
	// ErrDisabledUser means that the user's account is switched off.
	ErrDisabledUser = errors.New("the user's account is disabled")
	// ErrUnusableRoles means that the user's roles are recorded in a form that
	// can't be read: asking again does not help, an administrator has to set
	// them right.
	ErrUnusableRoles = errors.New("the user's roles are recorded in a form that can't be read")
)

// Source knows users' roles.
type Source interface {
	// Roles returns the roles of a user, possibly none. The slice must not be
	// changed. [ErrUnknownUser], [ErrDisabledUser] and [ErrUnusableRoles], also
	// wrapped, are answers; any other error means that there is none yet. It is
	// safe for concurrent use and keeps to ctx.
	Roles(ctx context.Context, userID string) ([]string, error)
}

// Subject is who wants to do what.
type Subject struct {
	// UserID is the user whom the request names.
	UserID string
	// PublishedBy is the verified user who put the request on the stream, from
	// `_metadata.publishedBy`, or empty where the request does not have it.
	PublishedBy string
	// Action is the action that the request names.
	Action string
}

// Denied is a refusal for good: asking again gives the same until somebody
// changes the policy or the user's roles.
type Denied struct {
	// Code is [tebra.UnknownAction] or [tebra.Unauthorized].
	Code tebra.ErrorCode
	// Reason says why, for the user and for logs. It repeats nothing that came
	// with the request.
	Reason string
}

// Error returns code and reason.
func (d *Denied) Error() string { return string(d.Code) + ": " + d.Reason }

// Authorizer decides on requests. It is safe for concurrent use.
type Authorizer struct {
	policy *Policy
	source Source
}

// NewAuthorizer returns an authorizer that holds requests against p, with the
// roles that source knows: what [Policy.Static] returns, or a [Cache] over
// another.
func NewAuthorizer(p *Policy, source Source) *Authorizer {
	return &Authorizer{policy: p, source: source}
}

// Authorize returns nil where s may do what it wants and a *[Denied] where it may
// not. Any other error means that the source of roles could not be asked: the
// request is neither allowed nor refused, and has to be tried again.
func (a *Authorizer) Authorize(ctx context.Context, s Subject) error {
	if s.UserID == "" {
		return denied(tebra.Unauthorized, "the request names no user")
	}
	if s.PublishedBy != "" && s.PublishedBy != s.UserID {
		return denied(tebra.Unauthorized, "the request names another user than the one who published it")
	}
	action, ok := a.policy.actions[s.Action]
	if !ok {
		return denied(tebra.UnknownAction, tebra.UnknownAction.Meaning())
	}
	if len(action.Roles) == 0 {
		return denied(tebra.Unauthorized, fmt.Sprintf("the policy grants %s to nobody", action.Name))
	}
	roles, err := a.source.Roles(ctx, s.UserID)
	if err != nil {
		return refusal(err)
	}
	if !overlap(action.Roles, roles) {
		return denied(tebra.Unauthorized, fmt.Sprintf("the user has no role that may do %s", action.Name))
	}
	return nil
}

// answers are what a source may say for good.
var answers = []error{ErrUnknownUser, ErrDisabledUser, ErrUnusableRoles}

// refusal returns what a source's error means for the request.
func refusal(err error) error {
	for _, answer := range answers {
		if errors.Is(err, answer) {
			return denied(tebra.Unauthorized, answer.Error())
		}
	}
	return fmt.Errorf("the user's roles could not be looked up, so the request has to be tried again: %w", err)
}

// isAnswer reports whether a source with that error has said something for good.
func isAnswer(err error) bool {
	return err == nil || slices.ContainsFunc(answers, func(answer error) bool { return errors.Is(err, answer) })
}

func denied(code tebra.ErrorCode, reason string) *Denied { return &Denied{Code: code, Reason: reason} }

func overlap(wanted, have []string) bool {
	for _, role := range have {
		if slices.Contains(wanted, role) {
			return true
		}
	}
	return false
}
