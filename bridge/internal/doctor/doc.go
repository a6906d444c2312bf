// Package doctor checks an installation as a person would who has been called
// because it does not work: every part that requests go through, in their order,
// and what is to be done about what is wrong. It prints nothing.
//
//	redis      reachable, version, TLS, ACL, eviction, persistence, clock
//	streams    groups, lag, entries stuck in somebody's hands, bridges, breaker
//	pubsub     topics, subscriptions and their policies, the service agent's rights
//	api        reachable, key accepted (by the policy's probe, which changes nothing)
//	settings   deadlines nested, as the variables of this environment have them
//
// It only reads. What can't be checked is skipped, with the reason: that the
// doctor may not ask, or that this kind of server does not tell. It never says ok
// about what it did not see.
package doctor
