package firebase

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"firebase.google.com/go/v4/auth"
	"golang.org/x/sync/singleflight"

	"tebraproxy/functions/gateway"
)

// Accounts verifies ID tokens and looks up users; *[auth.Client] does.
type Accounts interface {
	Users
	VerifyIDToken(ctx context.Context, token string) (*auth.Token, error)
}

const (
	// accountTTL is how long it may take until a revoked token or a disabled user
	// is refused.
	accountTTL = time.Minute
	// mostAccounts bounds how many users' accounts are remembered.
	mostAccounts = 10_000
)

// Tokens is a [gateway.Verifier] over Firebase Auth. The signature, the project and
// the times of every token are checked here; whether the user was disabled or the
// token revoked is asked of Firebase once a minute and user. It is safe for
// concurrent use.
type Tokens struct {
	accounts Accounts
	project  string
	now      func() time.Time

	asking singleflight.Group
	mu     sync.Mutex
	known  map[string]account
}

var _ gateway.Verifier = (*Tokens)(nil)

// account is what Firebase said of a user.
type account struct {
	asked      time.Time
	gone       bool
	disabled   bool
	validAfter int64 // tokens issued before it were revoked; ms since 1970
}

// NewTokens returns a verifier of the ID tokens of a project.
func NewTokens(accounts Accounts, project string) *Tokens {
	return &Tokens{accounts: accounts, project: project, now: time.Now, known: map[string]account{}}
}

// Verify returns who the token speaks for. A [*gateway.TokenError] says what is
// wrong with it: token_expired, token_wrong_project, token_revoked, user_disabled,
// user_unknown or token_invalid. Any other error means that Firebase could not be asked.
func (t *Tokens) Verify(ctx context.Context, token string) (gateway.Identity, error) {
	verified, err := t.accounts.VerifyIDToken(ctx, token)
	if err != nil {
		return gateway.Identity{}, t.explain(err, token)
	}
	account, err := t.account(ctx, verified.UID)
	if err != nil {
		return gateway.Identity{}, fmt.Errorf("firebase: the user could not be looked up in Firebase Auth: %w", err)
	}
	switch {
	case account.gone:
		return gateway.Identity{}, unknownUser()
	case account.disabled:
		return gateway.Identity{}, disabledUser()
	case verified.IssuedAt*1000 < account.validAfter:
		return gateway.Identity{}, revokedToken()
	}
	return gateway.Identity{UserID: verified.UID, Expires: time.Unix(verified.Expires, 0)}, nil
}

// explain says what is wrong with a token in our own words: the library's quote it.
func (t *Tokens) explain(err error, token string) error {
	switch {
	case auth.IsIDTokenExpired(err):
		return &gateway.TokenError{Code: "token_expired", Message: "the token has expired; get a new one from Firebase"}
	case auth.IsIDTokenRevoked(err): // only the emulator's client asks by itself
		return revokedToken()
	case auth.IsUserDisabled(err):
		return disabledUser()
	case auth.IsUserNotFound(err):
		return unknownUser()
	case auth.IsIDTokenInvalid(err):
		if audience := audienceOf(token); audience != "" && audience != t.project {
			return &gateway.TokenError{Code: "token_wrong_project", Message: "the token is for another Firebase project than the gateway's"}
		}
		return &gateway.TokenError{Code: "token_invalid", Message: "the token is no ID token that Firebase signed for this project"}
	}
	return fmt.Errorf("firebase: the token could not be verified: %w", err)
}

func revokedToken() error {
	return &gateway.TokenError{Code: "token_revoked", Message: "the token was revoked; sign in again"}
}

func disabledUser() error {
	return &gateway.TokenError{Code: "user_disabled", Message: "the user's account is disabled"}
}

func unknownUser() error {
	return &gateway.TokenError{Code: "user_unknown", Message: "the user is not known"}
}

// audienceOf returns what a token says it is for, believed by nobody: only to
// explain why it was refused.
func audienceOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Audience string `json:"aud"`
	}
	if err != nil || json.Unmarshal(raw, &claims) != nil {
		return ""
	}
	return claims.Audience
}

// account returns what Firebase says of a user, or said a moment ago.
func (t *Tokens) account(ctx context.Context, uid string) (account, error) {
	t.mu.Lock()
	known, ok := t.known[uid]
	t.mu.Unlock()
	if ok && t.now().Sub(known.asked) < accountTTL {
		return known, nil
	}
	// One question for all who ask at a time; it outlives the one who asked first.
	found := t.asking.DoChan(uid, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		return t.ask(ctx, uid)
	})
	select {
	case result := <-found:
		if result.Err != nil {
			return account{}, result.Err
		}
		return result.Val.(account), nil
	case <-ctx.Done():
		return account{}, ctx.Err()
	}
}

func (t *Tokens) ask(ctx context.Context, uid string) (account, error) {
	a := account{asked: t.now()}
	user, err := t.accounts.GetUser(ctx, uid)
	switch {
	case auth.IsUserNotFound(err):
		a.gone = true
	case err != nil:
		return a, err
	default:
		a.disabled, a.validAfter = user.Disabled, user.TokensValidAfterMillis
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= mostAccounts {
		t.forget()
	}
	t.known[uid] = a
	return a, nil
}

// forget makes room for a while, since it looks at everything: first it forgets what
// is too old anyway, then anything.
func (t *Tokens) forget() {
	for uid, a := range t.known {
		if t.now().Sub(a.asked) >= accountTTL {
			delete(t.known, uid)
		}
	}
	for uid := range t.known {
		if len(t.known) <= mostAccounts*9/10 {
			return
		}
		delete(t.known, uid)
	}
}
