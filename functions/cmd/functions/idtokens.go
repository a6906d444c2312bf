package main

import (
	"context"

	"golang.org/x/oauth2"
)

// idTokens gives the ID tokens of a source that renews them by itself.
type idTokens struct{ source oauth2.TokenSource }

// Token returns a token that is valid now. The source knows no context; its own
// requests to the metadata server are bounded.
func (t idTokens) Token(context.Context) (string, error) {
	token, err := t.source.Token()
	if err != nil {
		return "", err
	}
	return token.AccessToken, nil
}
