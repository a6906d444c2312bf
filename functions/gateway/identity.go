package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

// Identity is who a token speaks for.
type Identity struct {
	UserID  string
	Expires time.Time // when the token does; zero for never
}

// Verifier verifies tokens. A [*TokenError] says what is wrong with one; any other
// error means that it could not be found out. It must be safe for concurrent use.
type Verifier interface {
	Verify(ctx context.Context, token string) (Identity, error)
}

// TokenError says why a token does not count. Neither field quotes the token.
type TokenError struct {
	Code    string // for programs, such as token_expired
	Message string // for people
}

func (e *TokenError) Error() string { return e.Message }

// maxTokenBytes is several times a Firebase token with the most custom claims.
const maxTokenBytes = 16 << 10

// verifyTimeout bounds how long finding out who asks may take.
const verifyTimeout = 10 * time.Second

// authenticate returns who asks and with which token, or answers with 401 or 503
// and returns false.
func (g *Gateway) authenticate(w http.ResponseWriter, r *http.Request) (Identity, string, bool) {
	token, err := bearer(r)
	if err == nil {
		var who Identity
		if who, err = g.verify(r.Context(), token); err == nil {
			return who, token, true
		}
	}
	var wrong *TokenError
	if errors.As(err, &wrong) {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		refuse(w, http.StatusUnauthorized, wrong.Code, wrong.Message)
		return Identity{}, "", false
	}
	g.log.Warn("a token could not be verified", "error", err)
	refuseFor(w, http.StatusServiceUnavailable, "unavailable", "tokens can't be verified right now; try again", time.Second)
	return Identity{}, "", false
}

func (g *Gateway) verify(ctx context.Context, token string) (Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	return g.verifier.Verify(ctx, token)
}

// bearer returns the token of the Authorization header.
func bearer(r *http.Request) (string, error) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	switch {
	case !ok || !strings.EqualFold(scheme, "Bearer") || token == "":
		return "", &TokenError{"token_missing", "send a Firebase ID token in the header Authorization: Bearer TOKEN"}
	case len(token) > maxTokenBytes:
		return "", &TokenError{"token_invalid", "the token is too long to be a Firebase ID token"}
	}
	return token, nil
}
