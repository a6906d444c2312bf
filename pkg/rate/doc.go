// Package rate gives out turns in a lane: a rate limit that all instances share
// through Redis, and that is waited for rather than bumped into (DESIGN section
// 6.3).
//
// It is the generic cell rate algorithm in its reservation form. The known
// library for it, go-redis/redis_rate, says only "not now, try again in d": all
// who wait then wake for the same slot, and of those that lose again and again
// one can lose beyond RATE_WAIT, although there was room for it. Here each is
// given a slot of its own at once, in the order of asking, and sleeps until then.
// The times are those of the Redis clock, so that instances need not agree on one.
// That library also keeps its keys outside our prefix, where our ACL ends.
package rate
