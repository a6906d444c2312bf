package deploy

import "strings"

// commands is what bridge, functions and gateway send to Redis, and the command line
// for operators, inside Lua scripts too, as an ACL's rules name it. Tests hold it against the source, and against a
// server that refuses everything else.
var commands = []string{
	// connections
	"ping", "select", "info", "time",
	// transactions, scripts, replicas
	"multi", "exec", "watch", "unwatch", "eval", "evalsha", "script|load", "wait",
	// keys
	"get", "set", "del", "exists", "pexpire",
	// streams
	"xadd", "xlen", "xrange", "xrevrange", "xread", "xtrim",
	"xgroup|create", "xgroup|delconsumer", "xreadgroup", "xack", "xpending", "xclaim", "xautoclaim",
	"xinfo|stream", "xinfo|groups", "xinfo|consumers",
	// sorted sets: what is open, retrying, and whose turn it is
	"zadd", "zrem", "zcard", "zscore", "zrange", "zrangebyscore", "zrevrange", "zremrangebyscore",
	// hashes: the ledger, the breaker, heartbeats, what is overdue
	"hset", "hsetnx", "hmget", "hgetall", "hdel", "hkeys", "hincrby",
	// sets: the lanes
	"sadd", "smembers",
}

// RedisACL returns the line of a Redis ACL file that lets a user do what bridge,
// functions, gateway and the command line do under a stream prefix, and nothing else. The user has
// no password and so can't log in: append ">" and one to the line. A valid prefix
// (tebra.NewKeys) holds nothing that a key pattern reads as more than itself.
func RedisACL(user, prefix string) string {
	var b strings.Builder
	b.WriteString("user " + user + " on resetpass sanitize-payload resetkeys ~" + prefix + ":* resetchannels -@all")
	for _, command := range commands {
		b.WriteString(" +" + command)
	}
	return b.String()
}

// applicationCommands is what an application that asks and listens needs, the
// existing SSE proxy among them.
var applicationCommands = []string{"ping", "xadd", "xlen", "xrange", "xrevrange", "xread"}

// ApplicationACL returns the line of a Redis ACL file (Redis 7 or newer) for an
// application: it may put requests on the stream, and read answers and statuses. It
// can't forge an answer, read another's request, or touch the ledger. Who asks is what
// the application says. XADD with MAXLEN also trims the stream, which no ACL tells
// apart from XADD without. As in [RedisACL], the user can't log in before it has a
// password.
func ApplicationACL(user, prefix string) string {
	return "user " + user + " on resetpass sanitize-payload resetkeys %W~" + prefix + ":requests %R~" + prefix + ":responses %R~" + prefix +
		":status resetchannels -@all +" + strings.Join(applicationCommands, " +")
}
