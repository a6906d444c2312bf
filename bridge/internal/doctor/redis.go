package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/deploy"
)

// The oldest Redis that has all we use (FACTS, Redis).
const leastMajor, leastMinor = 6, 2

// redis checks the server itself.
func (e *examination) redis(ctx context.Context) {
	a := e.area("redis")
	ctx, cancel := context.WithTimeout(ctx, 3*checkTimeout)
	defer cancel()
	began := time.Now()
	if err := e.Redis.Ping(ctx).Err(); err != nil {
		e.deaf = !redis.HasErrorPrefix(err, "NOPERM")
		if e.deaf {
			a.fail("reachable", errText(err), pingRemedy(err))
			return
		}
	}
	a.ok("reachable", "answers in %d ms", time.Since(began).Milliseconds())
	e.encryption(a)
	info := e.info(ctx)
	e.version(a, info)
	e.cluster(a, info)
	e.eviction(a, info)
	e.persistence(a, info)
	e.acl(ctx, a)
	e.clock(ctx, a)
}

func pingRemedy(err error) string {
	switch {
	case redis.HasErrorPrefix(err, "WRONGPASS"), redis.HasErrorPrefix(err, "NOAUTH"):
		return "correct user and password in REDIS_URL"
	case strings.Contains(err.Error(), "certificate"):
		return "set REDIS_CA_CERT to the certificate authority of this Redis"
	case strings.Contains(err.Error(), "first record does not look like a TLS handshake"):
		return "this Redis speaks no TLS on that port: use redis://, or its TLS port"
	default:
		return "is Redis running at the address in REDIS_URL, and does the network let this machine reach it?"
	}
}

// info returns all that INFO tells, by name; nothing where it tells nothing.
func (e *examination) info(ctx context.Context) map[string]string {
	all := map[string]string{}
	for _, section := range []string{"server", "memory", "persistence", "replication", "cluster"} {
		text, err := e.Redis.Info(ctx, section).Result()
		if err != nil {
			continue
		}
		for line := range strings.Lines(text) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				all[name] = value
			}
		}
	}
	return all
}

const notTold = "this Redis does not tell (INFO)"

func (e *examination) version(a area, info map[string]string) {
	version := info["redis_version"]
	if version == "" {
		a.skip("version", notTold)
		return
	}
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		a.skip("version", "%q is not a version", version)
		return
	}
	if major < leastMajor || major == leastMajor && minor < leastMinor {
		a.fail("version", version, fmt.Sprintf("upgrade to Redis %d.%d or newer", leastMajor, leastMinor))
		return
	}
	a.ok("version", "%s", version)
}

func (e *examination) encryption(a area) {
	options := e.Redis.Options()
	switch {
	case options.TLSConfig != nil:
		a.ok("tls", "the connection is encrypted")
	case isLoopback(options.Addr):
		a.ok("tls", "not encrypted, on this machine only")
	default:
		a.warn("tls", "the connection is not encrypted, and health data goes over it", "use a rediss:// URL, with REDIS_CA_CERT where the certificate is private")
	}
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (e *examination) cluster(a area, info map[string]string) {
	if info["cluster_enabled"] == "1" && !e.Keys.OneSlot() {
		a.fail("cluster", "Redis is a cluster, over whose slots the keys would be scattered",
			fmt.Sprintf("put the prefix into braces for everybody: STREAM_PREFIX={%s}", e.Keys.Prefix()))
	}
}

func (e *examination) eviction(a area, info map[string]string) {
	const remedy = "set maxmemory-policy to noeviction: else Redis may evict what keeps a change from being made twice"
	switch rule := info["maxmemory_policy"]; {
	case rule == "":
		a.skip("eviction", notTold)
	case rule == "noeviction":
		a.ok("eviction", "noeviction")
	case info["maxmemory"] == "0":
		a.warn("eviction", rule+", but no limit to memory is set, so that nothing is evicted yet", remedy)
	default:
		a.fail("eviction", rule, remedy)
	}
	e.memory(a, info)
}

// fullPart is the part of its memory from which on a Redis is nearly full: the
// streams of a long outage still have to fit.
const fullPart = 0.8

func (e *examination) memory(a area, info map[string]string) {
	used, err1 := strconv.ParseFloat(info["used_memory"], 64)
	most, err2 := strconv.ParseFloat(info["maxmemory"], 64)
	if err1 != nil || err2 != nil || most == 0 {
		return
	}
	part := used / most
	if part > fullPart {
		a.warn("memory", fmt.Sprintf("%.0f%% in use", part*100), "give Redis more memory, or shorten RETENTION: when it is full, no request is taken any more")
		return
	}
	a.ok("memory", "%.0f%% in use", part*100)
}

func (e *examination) persistence(a area, info map[string]string) {
	replicas := info["connected_slaves"]
	switch {
	case info["aof_enabled"] == "":
		a.skip("persistence", notTold)
	case info["aof_last_write_status"] == "err" || info["rdb_last_bgsave_status"] == "err":
		a.fail("persistence", "the last write to disk failed", "look into the log of Redis: its disk may be full")
	case info["aof_enabled"] == "1":
		a.ok("persistence", "append-only file")
	case replicas != "" && replicas != "0":
		a.ok("persistence", "no append-only file, %s replicas", replicas)
	default:
		a.warn("persistence", "no append-only file and no replica: what came in since the last snapshot is lost when Redis stops",
			"set appendonly to yes, or use a Redis with a replica (Memorystore's standard tier)")
	}
}

// examples are arguments of every command that an installation needs, such as ACL
// DRYRUN takes; %s is a key of the installation. Which those commands are, the
// deployed ACL says.
var examples = map[string][]any{
	"ping": {}, "time": {}, "info": {}, "multi": {}, "exec": {}, "watch": {"%s"}, "unwatch": {}, "select": {"0"}, "wait": {"0", "0"}, "script|load": {"return 1"},
	"eval": {"return 1", "1", "%s"}, "evalsha": {"0", "1", "%s"},
	"get": {"%s"}, "set": {"%s", "v"}, "del": {"%s"}, "exists": {"%s"}, "pexpire": {"%s", "1"},
	"xadd": {"%s", "*", "f", "v"}, "xread": {"STREAMS", "%s", "0"}, "xreadgroup": {"GROUP", "g", "c", "STREAMS", "%s", ">"},
	"xack": {"%s", "g", "0-1"}, "xrange": {"%s", "-", "+"}, "xrevrange": {"%s", "+", "-"}, "xlen": {"%s"}, "xtrim": {"%s", "MINID", "0-1"},
	"xpending": {"%s", "g"}, "xclaim": {"%s", "g", "c", "0", "0-1"}, "xautoclaim": {"%s", "g", "c", "0", "0-0"},
	"xgroup|create": {"%s", "g", "0"}, "xgroup|delconsumer": {"%s", "g", "c"},
	"xinfo|groups": {"%s"}, "xinfo|stream": {"%s"}, "xinfo|consumers": {"%s", "g"},
	"hset": {"%s", "f", "v"}, "hsetnx": {"%s", "f", "v"}, "hget": {"%s", "f"}, "hmget": {"%s", "f"}, "hgetall": {"%s"}, "hkeys": {"%s"},
	"hdel": {"%s", "f"}, "hincrby": {"%s", "f", "1"}, "sadd": {"%s", "m"}, "smembers": {"%s"},
	"zadd": {"%s", "0", "m"}, "zrem": {"%s", "m"}, "zcard": {"%s"}, "zscore": {"%s", "m"},
	"zrange": {"%s", "0", "1"}, "zrevrange": {"%s", "0", "1"}, "zrangebyscore": {"%s", "0", "1"}, "zremrangebyscore": {"%s", "0", "1"},
}

// needed returns the commands that an installation needs.
func needed(prefix string) []string {
	var names []string
	for rule := range strings.FieldsSeq(deploy.RedisACL("any", prefix)) {
		if name, ok := strings.CutPrefix(rule, "+"); ok {
			names = append(names, name)
		}
	}
	return names
}

// acl checks what the user of REDIS_URL may do: all that is needed and, better,
// no more.
func (e *examination) acl(ctx context.Context, a area) {
	user, err := e.Redis.Do(ctx, "ACL", "WHOAMI").Text()
	if err != nil {
		a.skip("acl", "this Redis, or this user's rights, don't let us ask (ACL WHOAMI)")
		return
	}
	e.aclEnough(ctx, a, user)
	e.aclNotMore(ctx, a, user)
}

func (e *examination) aclEnough(ctx context.Context, a area, user string) {
	var lacking []string
	for _, name := range needed(e.Keys.Prefix()) {
		reply, err := e.Redis.Do(ctx, e.dryRun(user, name)...).Text()
		if err != nil {
			a.skip("acl enough", "this Redis, or the rights of user %s, don't let us ask (ACL DRYRUN)", user)
			return
		}
		if reply != "OK" {
			lacking = append(lacking, name)
		}
	}
	if len(lacking) > 0 {
		a.fail("acl enough", fmt.Sprintf("user %s may not do %s on %s", user, strings.Join(lacking, ", "), e.Keys.Requests()),
			fmt.Sprintf("ACL SETUSER %s %s", user, e.grant(lacking)))
		return
	}
	a.ok("acl enough", "user %s may do all that is needed", user)
}

// dryRun asks whether a user may send a command.
func (e *examination) dryRun(user, name string) []any {
	command := []any{"ACL", "DRYRUN", user}
	for word := range strings.SplitSeq(name, "|") {
		command = append(command, word)
	}
	for _, arg := range examples[name] {
		if arg == "%s" {
			arg = e.Keys.Requests()
		}
		command = append(command, arg)
	}
	return command
}

func (e *examination) grant(commands []string) string {
	return "~" + e.Keys.Prefix() + ":* +" + strings.Join(commands, " +")
}

// aclNotMore warns of a user who may do everything: a slip, or a stolen password,
// then reaches everything that is in this Redis.
func (e *examination) aclNotMore(ctx context.Context, a area, user string) {
	if e.Local {
		a.skip("acl not more", "a local run asks nobody who they are")
		return
	}
	reply, err := e.Redis.Do(ctx, "ACL", "GETUSER", user).Result()
	if err != nil {
		a.skip("acl not more", "this Redis, or the rights of user %s, don't let us ask (ACL GETUSER)", user)
		return
	}
	rights := aclFields(reply)
	if strings.Contains(rights["flags"], "nopass") {
		tell := a.fail
		if isLoopback(e.Redis.Options().Addr) {
			tell = a.warn
		}
		tell("password", fmt.Sprintf("user %s needs no password", user), "set one: whoever reaches the port can read and change everything")
	}
	var more []string
	if strings.Contains(rights["commands"], "+@all") {
		more = append(more, "every command")
	}
	if strings.Contains(" "+rights["keys"]+" ", " ~* ") {
		more = append(more, "every key")
	}
	if len(more) > 0 {
		a.warn("acl not more", fmt.Sprintf("user %s may use %s", user, strings.Join(more, " and ")),
			fmt.Sprintf("give the installation a user of its own, for %s:* and the commands that it needs; where the service knows no ACL, a Redis of its own", e.Keys.Prefix()))
		return
	}
	a.ok("acl not more", "user %s is confined", user)
}

// aclFields reads the reply of ACL GETUSER, which is a map or a list of names and
// values, whose values are text or lists.
func aclFields(reply any) map[string]string {
	fields := map[string]string{}
	switch r := reply.(type) {
	case map[any]any:
		for k, v := range r {
			fields[fmt.Sprint(k)] = text(v)
		}
	case []any:
		for i := 0; i+1 < len(r); i += 2 {
			fields[fmt.Sprint(r[i])] = text(r[i+1])
		}
	}
	return fields
}

func text(v any) string { return strings.Trim(fmt.Sprint(v), "[]") }

// Bounds of how far two clocks may be apart. Redis's counts; a far-off one here
// makes times in lists and answers look wrong.
const (
	clocksApart    = 2 * time.Second
	clocksFarApart = time.Minute
)

func (e *examination) clock(ctx context.Context, a area) {
	before := e.Now()
	theirs, err := e.Redis.Time(ctx).Result()
	if err != nil {
		a.skip("clock", "Redis does not tell the time: %v", errText(err))
		return
	}
	after := e.Now()
	middle := before.Add(after.Sub(before) / 2)
	apart := theirs.Sub(middle).Abs()
	const remedy = "set the clocks by NTP: ages, deadlines and the rate limits go by the clock of Redis"
	switch detail := fmt.Sprintf("Redis and this machine are %v apart", apart.Round(time.Millisecond)); {
	case apart > clocksFarApart:
		a.fail("clock", detail, remedy)
	case apart > clocksApart:
		a.warn("clock", detail, remedy)
	default:
		a.ok("clock", "%s", detail)
	}
}

// errText is an error's text, in few words for what is common.
func errText(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return err.Error()
}
