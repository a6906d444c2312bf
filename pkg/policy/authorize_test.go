package policy

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"tebraproxy/pkg/tebra"
)

const clinicPolicy = `
version: 1
actions:
  getPatients: {roles: [clinician, admin]}
  createAppointment: {roles: [scheduler]}
users:
  source: static
  accounts:
    ann: {roles: [clinician]}
    bob: {roles: [scheduler, admin]}
    gone: {roles: [admin], disabled: true}
    new: {}
`

func TestAuthorize(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		subject Subject
		want    *Denied
	}{
		"a role that may": {
			subject: Subject{UserID: "ann", Action: "getPatients"},
		},
		"the second of two roles": {
			subject: Subject{UserID: "bob", Action: "getPatients"},
		},
		"published by the same user": {
			subject: Subject{UserID: "ann", PublishedBy: "ann", Action: "getPatients"},
		},
		"a role that may not": {
			subject: Subject{UserID: "ann", Action: "createAppointment"},
			want:    &Denied{tebra.Unauthorized, "the user has no role that may do createAppointment"},
		},
		"no roles": {
			subject: Subject{UserID: "new", Action: "getPatients"},
			want:    &Denied{tebra.Unauthorized, "the user has no role that may do getPatients"},
		},
		"an action granted to nobody": {
			subject: Subject{UserID: "bob", Action: "updateAppointment"},
			want:    &Denied{tebra.Unauthorized, "the policy grants updateAppointment to nobody"},
		},
		"an unknown user": {
			subject: Subject{UserID: "eve", Action: "getPatients"},
			want:    &Denied{tebra.Unauthorized, "the user is not known"},
		},
		"a disabled user": {
			subject: Subject{UserID: "gone", Action: "getPatients"},
			want:    &Denied{tebra.Unauthorized, "the user's account is disabled"},
		},
		"published by somebody else": {
			subject: Subject{UserID: "ann", PublishedBy: "eve", Action: "getPatients"},
			want:    &Denied{tebra.Unauthorized, "the request names another user than the one who published it"},
		},
		"no user": {
			subject: Subject{Action: "getPatients"},
			want:    &Denied{tebra.Unauthorized, "the request names no user"},
		},
		"an unknown action": {
			subject: Subject{UserID: "ann", Action: "Mrs. Jones, born 1950"},
			want:    &Denied{tebra.UnknownAction, "the policy knows no action of that name"},
		},
	}
	p := mustParse(t, clinicPolicy)
	authorizer := NewAuthorizer(p, staticOf(t, p))
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := authorizer.Authorize(t.Context(), tt.subject)
			var got *Denied
			errors.As(err, &got)
			if !reflect.DeepEqual(got, tt.want) || (tt.want == nil && err != nil) {
				t.Errorf("Authorize(%+v) = %v, want %v", tt.subject, err, tt.want)
			}
		})
	}
}

// sourceFunc is a source of roles that a test makes up: the faults of a real one
// can't be had on demand.
type sourceFunc func(ctx context.Context, userID string) ([]string, error)

func (f sourceFunc) Roles(ctx context.Context, userID string) ([]string, error) {
	return f(ctx, userID)
}

func TestAuthorizeAsksAgainWhenTheSourceIsDown(t *testing.T) {
	t.Parallel()
	down := errors.New("connection refused")
	source := sourceFunc(func(context.Context, string) ([]string, error) { return nil, down })
	err := NewAuthorizer(mustParse(t, clinicPolicy), source).Authorize(t.Context(), Subject{UserID: "ann", Action: "getPatients"})
	if denied := (*Denied)(nil); errors.As(err, &denied) || !errors.Is(err, down) {
		t.Errorf("Authorize() with the source down = %v, want no refusal, and %v", err, down)
	}
}

func TestAuthorizeRefusesWhenTheSourceAnswers(t *testing.T) {
	t.Parallel()
	for _, answer := range []error{ErrUnknownUser, ErrDisabledUser, ErrUnusableRoles} {
		source := sourceFunc(func(context.Context, string) ([]string, error) {
			return []string{"clinician"}, fmt.Errorf("some source: %w", answer)
		})
		err := NewAuthorizer(mustParse(t, clinicPolicy), source).Authorize(t.Context(), Subject{UserID: "ann", Action: "getPatients"})
		if want := "unauthorized: " + answer.Error(); err == nil || err.Error() != want {
			t.Errorf("Authorize() with %v = %v, want %v", answer, err, want)
		}
	}
}

// A refusal that needs no roles must not wait for their source.
func TestAuthorizeAsksTheSourceOnlyWhereRolesDecide(t *testing.T) {
	t.Parallel()
	source := sourceFunc(func(_ context.Context, userID string) ([]string, error) {
		t.Errorf("Roles(%q) was called, want it left alone", userID)
		return nil, nil
	})
	authorizer := NewAuthorizer(mustParse(t, clinicPolicy), source)
	for _, s := range []Subject{
		{UserID: "ann", Action: "dropTables"},
		{UserID: "ann", Action: "updateAppointment"},
		{UserID: "ann", PublishedBy: "eve", Action: "getPatients"},
	} {
		if err := authorizer.Authorize(t.Context(), s); err == nil {
			t.Errorf("Authorize(%+v) = nil, want a refusal", s)
		}
	}
}

func TestStaticAdmitsAnyoneOnlyWhereTheFileSaysSo(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{
		"{source: static}":                                           false,
		"{source: static, anyone: {}}":                               false,
		"{source: static, anyone: {roles: []}}":                      false,
		"{source: static, anyone: {roles: [clinician]}}":             true,
		"{source: static, accounts: {anyone: {roles: [clinician]}}}": false,
	}
	for users, want := range tests {
		s := staticOf(t, mustParse(t, "version: 1\nusers: "+users+"\n"))
		_, err := s.Roles(t.Context(), "eve")
		if got := s.AdmitsAnyone(); got != want || (err == nil) != want {
			t.Errorf("users %s: AdmitsAnyone() = %v, Roles(eve) = %v, want %v", users, got, err, want)
		}
	}
}

func TestStaticHoldsAnAccountToItsOwnRoles(t *testing.T) {
	t.Parallel()
	s := staticOf(t, mustParse(t, "version: 1\nusers: {source: static, anyone: {roles: [a]}, accounts: {ann: {roles: [b]}, gone: {disabled: true}}}\n"))
	if got, err := s.Roles(t.Context(), "ann"); err != nil || !reflect.DeepEqual(got, []string{"b"}) {
		t.Errorf("Roles(ann) = %v, %v, want [b] without those of anyone", got, err)
	}
	if _, err := s.Roles(t.Context(), "gone"); !errors.Is(err, ErrDisabledUser) {
		t.Errorf("Roles(gone) = %v, want %v", err, ErrDisabledUser)
	}
}
