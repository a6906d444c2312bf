// Package firebase is the source of users' roles that asks Firebase Auth (DESIGN
// section 7): a user's custom claim holds the roles, and a user whom Firebase
// does not know, or has disabled, is refused.
//
// Only claims of SetCustomUserClaims count; those that were minted into a custom
// token don't show (FACTS, Firebase Auth). A Firebase that does not answer
// refuses nobody: the request is tried again. Put a [policy.Cache] in front.
package firebase
