package firebase_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	admin "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/auth"

	"tebraproxy/functions/firebase"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/tebra"
)

const policyFile = `
version: 1
actions:
  getPatients: {roles: [clinician, admin]}
users: {source: firebase, claim: roles}
`

// emulated returns a client of the Auth emulator at host. The client reads the
// host from the environment only, so tests with it can't be parallel.
func emulated(t *testing.T, host, project string) *auth.Client {
	t.Helper()
	t.Setenv("FIREBASE_AUTH_EMULATOR_HOST", host)
	app, err := admin.NewApp(t.Context(), &admin.Config{ProjectID: project})
	if err != nil {
		t.Fatal(err)
	}
	client, err := app.Auth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// addUser makes a user with claims.
func addUser(t *testing.T, client *auth.Client, user *auth.UserToCreate, uid string, claims map[string]any) {
	t.Helper()
	if _, err := client.CreateUser(t.Context(), user.UID(uid)); err != nil {
		t.Fatalf("make user %s: %v", uid, err)
	}
	if err := client.SetCustomUserClaims(t.Context(), uid, claims); err != nil {
		t.Fatalf("set the claims of user %s: %v", uid, err)
	}
}

// newAuthorizer puts policy, cache and source together as a function does.
func newAuthorizer(t *testing.T, client *auth.Client) *policy.Authorizer {
	t.Helper()
	p, err := policy.Parse([]byte(policyFile))
	if err != nil {
		t.Fatal(err)
	}
	cfg, ok := p.Firebase()
	if !ok {
		t.Fatal("Firebase() = none, want it from the policy")
	}
	source := firebase.New(client, cfg.Claim)
	return policy.NewAuthorizer(p, policy.NewCache(source, policy.CacheConfig{TTL: cfg.Cache}))
}

func TestUsersOfTheRealAuthDecide(t *testing.T) {
	emulator := peertest.FirebaseAuth(t)
	client := emulated(t, emulator.Host(), emulator.Project())
	addUser(t, client, &auth.UserToCreate{}, "permitted", map[string]any{"roles": []string{"scheduler", "clinician"}})
	addUser(t, client, &auth.UserToCreate{}, "forbidden", map[string]any{"roles": []string{"scheduler"}})
	addUser(t, client, &auth.UserToCreate{}, "elsewhere", map[string]any{"groups": []string{"clinician"}})
	addUser(t, client, &auth.UserToCreate{}, "mistaken", map[string]any{"roles": map[string]any{"clinician": true}})
	addUser(t, client, (&auth.UserToCreate{}).Disabled(true), "disabled", map[string]any{"roles": []string{"clinician"}})

	tests := map[string]string{ // reason by user; none where it may
		"permitted":              "",
		"forbidden":              "the user has no role that may do getPatients",
		"elsewhere":              "the user has no role that may do getPatients",
		"mistaken":               "the user's roles are recorded in a form that can't be read",
		"disabled":               "the user's account is disabled",
		"unknown":                "the user is not known",
		strings.Repeat("x", 200): "the user is not known",
	}
	authorizer := newAuthorizer(t, client)
	for user, want := range tests {
		t.Run(user, func(t *testing.T) {
			for range 2 { // from Firebase, then from the cache
				checkDecision(t, authorizer, user, want)
			}
		})
	}
}

// checkDecision holds what the authorizer says of a user against a reason, or
// against consent where that is empty.
func checkDecision(t *testing.T, authorizer *policy.Authorizer, user, want string) {
	t.Helper()
	err := authorizer.Authorize(t.Context(), policy.Subject{UserID: user, Action: "getPatients"})
	if want == "" {
		if err != nil {
			t.Errorf("Authorize(%s) = %v, want nil", user, err)
		}
		return
	}
	var denied *policy.Denied
	if !errors.As(err, &denied) || denied.Code != tebra.Unauthorized || denied.Reason != want {
		t.Errorf("Authorize(%s) = %v, want unauthorized: %s", user, err, want)
	}
}

func TestAUserIsAskedForAgainWhenAuthIsDown(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client := emulated(t, listener.Addr().String(), "demo-down")
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // the client itself tries for longer
	defer cancel()
	err = newAuthorizer(t, client).Authorize(ctx, policy.Subject{UserID: "permitted", Action: "getPatients"})
	if denied := (*policy.Denied)(nil); err == nil || errors.As(err, &denied) {
		t.Errorf("Authorize() with Auth down = %v, want an error that is no refusal", err)
	}
}

// An outage is remembered no longer than it lasts.
func TestTheEndOfAnOutageOfAuthIsSeenAtOnce(t *testing.T) {
	emulator := peertest.FirebaseAuth(t)
	project := emulator.Project()
	addUser(t, emulated(t, emulator.Host(), project), &auth.UserToCreate{}, "permitted", map[string]any{"roles": "clinician"})

	var down atomic.Bool
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: emulator.Host()})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	authorizer := newAuthorizer(t, emulated(t, server.Listener.Addr().String(), project))

	down.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := authorizer.Authorize(ctx, policy.Subject{UserID: "permitted", Action: "getPatients"})
	if denied := (*policy.Denied)(nil); err == nil || errors.As(err, &denied) {
		t.Errorf("Authorize() in the outage = %v, want an error that is no refusal", err)
	}
	down.Store(false)
	checkDecision(t, authorizer, "permitted", "")
}

// usersFunc makes up what Auth says where the emulator would not say it.
type usersFunc func(ctx context.Context, uid string) (*auth.UserRecord, error)

func (f usersFunc) GetUser(ctx context.Context, uid string) (*auth.UserRecord, error) {
	return f(ctx, uid)
}

func TestALookUpEndsWhenAuthDoesNotAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent := usersFunc(func(ctx context.Context, _ string) (*auth.UserRecord, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		begin := time.Now()
		_, err := firebase.New(silent, "roles").Roles(t.Context(), "ann")
		if got := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || got != 5*time.Second {
			t.Errorf("Roles() = %v after %v, want %v after 5s", err, got, context.DeadlineExceeded)
		}
	})
}

func TestRolesAreReadFromTheClaim(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		claims map[string]any
		want   []string
		err    error
	}{
		"no claims":            {nil, nil, nil},
		"another claim":        {map[string]any{"group": "a"}, nil, nil},
		"null":                 {map[string]any{"roles": nil}, nil, nil},
		"a list":               {map[string]any{"roles": []any{"a", "b"}}, []string{"a", "b"}, nil},
		"an empty list":        {map[string]any{"roles": []any{}}, nil, nil},
		"one role":             {map[string]any{"roles": "a"}, []string{"a"}, nil},
		"commas":               {map[string]any{"roles": "a,b, c"}, []string{"a", "b", "c"}, nil},
		"white space":          {map[string]any{"roles": " a\tb\n"}, []string{"a", "b"}, nil},
		"an empty string":      {map[string]any{"roles": ""}, nil, nil},
		"a list with a number": {map[string]any{"roles": []any{"a", 1.0}}, nil, policy.ErrUnusableRoles},
		"a number":             {map[string]any{"roles": 1.0}, nil, policy.ErrUnusableRoles},
		"an object":            {map[string]any{"roles": map[string]any{"a": true}}, nil, policy.ErrUnusableRoles},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			users := usersFunc(func(context.Context, string) (*auth.UserRecord, error) {
				return &auth.UserRecord{CustomClaims: tt.claims}, nil
			})
			got, err := firebase.New(users, "roles").Roles(t.Context(), "ann")
			if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("Roles() = %v, %v, want %v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// Auth gives out no such user IDs, and answers a question for one with an error
// that would be asked again and again.
func TestAuthIsNotAskedForUsersThatItCanNotHave(t *testing.T) {
	t.Parallel()
	users := usersFunc(func(_ context.Context, uid string) (*auth.UserRecord, error) {
		return nil, fmt.Errorf("asked for %q", uid)
	})
	for _, uid := range []string{"", strings.Repeat("x", 129)} {
		if _, err := firebase.New(users, "roles").Roles(t.Context(), uid); !errors.Is(err, policy.ErrUnknownUser) {
			t.Errorf("Roles() of a user ID of %d bytes = %v, want %v", len(uid), err, policy.ErrUnknownUser)
		}
	}
	if _, err := firebase.New(users, "roles").Roles(t.Context(), strings.Repeat("x", 128)); err == nil || errors.Is(err, policy.ErrUnknownUser) {
		t.Errorf("Roles() of a user ID of 128 bytes = %v, want Auth's error", err)
	}
}
