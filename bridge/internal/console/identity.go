package console

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"net/url"
	"strings"

	"tebraproxy/functions/gateway"
)

// NewSecret returns what only those know who are told it.
func NewSecret() string { return rand.Text() }

// NewBearer returns a verifier for a gateway on loopback that believes whoever knows
// the secret, as any user: a token is the secret, a dot, and the user's ID, escaped as
// in a URL. It is for one's own machine, and in none of the programs that are deployed.
func NewBearer(secret string) gateway.Verifier { return bearer{secret} }

type bearer struct{ secret string }

// maxUserBytes is the longest user ID that a request may have.
const maxUserBytes = 256

func (b bearer) Verify(_ context.Context, token string) (gateway.Identity, error) {
	secret, escaped, _ := strings.Cut(token, ".")
	if subtle.ConstantTimeCompare([]byte(secret), []byte(b.secret)) != 1 {
		return gateway.Identity{}, &gateway.TokenError{Code: "token_invalid", Message: "this is not the token that was printed at the start; it changes with each"}
	}
	user, err := url.PathUnescape(escaped)
	if err != nil || user == "" || len(user) > maxUserBytes {
		return gateway.Identity{}, &gateway.TokenError{Code: "user_unknown", Message: "the token names no user: want TOKEN.USER, with 1 to 256 bytes of user"}
	}
	return gateway.Identity{UserID: user}, nil
}

// sender tells that somebody sends requests.
type sender struct {
	gateway.Verifier
	seen func()
}

func (s sender) Verify(ctx context.Context, token string) (gateway.Identity, error) {
	who, err := s.Verifier.Verify(ctx, token)
	if err == nil {
		s.seen()
	}
	return who, err
}
