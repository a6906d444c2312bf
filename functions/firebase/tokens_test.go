package firebase_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	admin "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/auth"
	"google.golang.org/api/option"

	"tebraproxy/functions/firebase"
	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/peertest"
)

// codeOf returns why a token does not count, "" if it does.
func codeOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var wrong *gateway.TokenError
	if !errors.As(err, &wrong) {
		t.Fatalf("Verify() = %v, want a *gateway.TokenError", err)
	}
	return wrong.Code
}

// jwt is a token with that header and those claims, signed by nobody.
func jwt(t *testing.T, header, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	return part(header) + "." + part(claims) + ".c2lnbmVk"
}

// claims are right for project but for what differs.
func claims(project string, different map[string]any) map[string]any {
	now := time.Now().Unix()
	all := map[string]any{"iss": "https://securetoken.google.com/" + project, "aud": project, "sub": "u", "iat": now - 60, "exp": now + 3600}
	for name, value := range different {
		all[name] = value
	}
	return all
}

// TestTokensOfTheRealAuthAreBelieved until the user is disabled or gone.
func TestTokensOfTheRealAuthAreBelieved(t *testing.T) {
	emulator := peertest.FirebaseAuth(t)
	client := emulated(t, emulator.Host(), emulator.SignInProject())
	uid, token := emulator.SignUp(t)
	tokens := firebase.NewTokens(client, emulator.SignInProject())
	who, err := tokens.Verify(t.Context(), token)
	if err != nil || who.UserID != uid || time.Until(who.Expires) < 30*time.Minute {
		t.Fatalf("Verify() = %+v, %v, want user %s for about an hour", who, err, uid)
	}
	if got := codeOf(t, errorOf(firebase.NewTokens(client, "other").Verify(t.Context(), jwt(t, map[string]any{"alg": "none"}, claims("foreign", nil))))); got != "token_wrong_project" {
		t.Errorf("a token of another project is %q, want token_wrong_project", got)
	}
	if _, err := client.UpdateUser(t.Context(), uid, (&auth.UserToUpdate{}).Disabled(true)); err != nil {
		t.Fatal(err)
	}
	if got := codeOf(t, errorOf(tokens.Verify(t.Context(), token))); got != "user_disabled" {
		t.Errorf("the token of a disabled user is %q, want user_disabled", got)
	}
	if err := client.DeleteUser(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	if got := codeOf(t, errorOf(tokens.Verify(t.Context(), token))); got != "user_unknown" {
		t.Errorf("the token of a deleted user is %q, want user_unknown", got)
	}
}

func errorOf(_ gateway.Identity, err error) error { return err }

// TestOutsideTheEmulatorOnlySignedTokensCount: the rest is refused before anybody is
// asked for keys.
func TestOutsideTheEmulatorOnlySignedTokensCount(t *testing.T) {
	t.Setenv("FIREBASE_AUTH_EMULATOR_HOST", "")
	app, err := admin.NewApp(t.Context(), &admin.Config{ProjectID: "mine"}, option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	client, err := app.Auth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tokens := firebase.NewTokens(client, "mine")
	rs256 := map[string]any{"alg": "RS256", "kid": "k"}
	for name, test := range map[string]struct{ token, want string }{
		"no token":        {"x", "token_invalid"},
		"alg none":        {jwt(t, map[string]any{"alg": "none"}, claims("mine", nil)), "token_invalid"},
		"none with a key": {jwt(t, map[string]any{"alg": "none", "kid": "k"}, claims("mine", nil)), "token_invalid"},
		"alg HS256":       {jwt(t, map[string]any{"alg": "HS256", "kid": "k"}, claims("mine", nil)), "token_invalid"},
		"another project": {jwt(t, rs256, claims("yours", nil)), "token_wrong_project"},
		"another issuer":  {jwt(t, rs256, claims("mine", map[string]any{"iss": "https://evil"})), "token_invalid"},
		"nobody's":        {jwt(t, rs256, claims("mine", map[string]any{"sub": ""})), "token_invalid"},
		"expired":         {jwt(t, rs256, claims("mine", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})), "token_expired"},
		"of the future":   {jwt(t, rs256, claims("mine", map[string]any{"iat": time.Now().Add(time.Hour).Unix()})), "token_invalid"},
	} {
		if got := codeOf(t, errorOf(tokens.Verify(t.Context(), test.token))); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		if err := errorOf(tokens.Verify(t.Context(), test.token)); strings.Contains(err.Error(), test.token) && len(test.token) > 1 {
			t.Errorf("%s: the error quotes the token: %v", name, err)
		}
	}
}

// fakeAccounts believes every token, of users whose tokens count from validAfter on.
type fakeAccounts struct {
	validAfter atomic.Int64
	asked      atomic.Int64
	fails      atomic.Bool
}

func (f *fakeAccounts) VerifyIDToken(_ context.Context, token string) (*auth.Token, error) {
	return &auth.Token{UID: token, IssuedAt: time.Now().Unix(), Expires: time.Now().Add(time.Hour).Unix()}, nil
}

func (f *fakeAccounts) GetUser(_ context.Context, uid string) (*auth.UserRecord, error) {
	f.asked.Add(1)
	if f.fails.Load() {
		return nil, errors.New("away")
	}
	return &auth.UserRecord{UserInfo: &auth.UserInfo{UID: uid}, TokensValidAfterMillis: f.validAfter.Load()}, nil
}

// TestARevokedTokenIsRefusedWithinAMinute, and Firebase is asked once a minute and
// user, however often tokens come.
func TestARevokedTokenIsRefusedWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accounts := &fakeAccounts{}
		tokens := firebase.NewTokens(accounts, "p")
		for range 100 {
			if err := errorOf(tokens.Verify(t.Context(), "u")); err != nil {
				t.Fatal(err)
			}
		}
		if got := accounts.asked.Load(); got != 1 {
			t.Errorf("Firebase was asked %d times, want once", got)
		}
		accounts.validAfter.Store(time.Now().Add(time.Hour).UnixMilli())
		time.Sleep(time.Minute) // of the bubble's clock
		if got := codeOf(t, errorOf(tokens.Verify(t.Context(), "u"))); got != "token_revoked" {
			t.Errorf("a revoked token is %q, want token_revoked", got)
		}
		accounts.fails.Store(true)
		var wrong *gateway.TokenError
		if err := errorOf(tokens.Verify(t.Context(), "another")); err == nil || errors.As(err, &wrong) {
			t.Errorf("Verify() = %v while Firebase is away, want an error that is not about the token", err)
		}
		accounts.fails.Store(false)
		for i := range 20_000 { // what is remembered is bounded; nothing else may happen
			if err := errorOf(tokens.Verify(t.Context(), fmt.Sprint(i))); codeOf(t, err) != "token_revoked" {
				t.Fatal(err)
			}
		}
	})
}
