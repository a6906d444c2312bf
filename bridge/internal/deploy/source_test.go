package deploy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// deployed are the directories of what runs under the ACL: the programs, and what
// operators do with the same user. The doctor is not among them: it says what it may
// not look at.
var deployed = []string{"bridge", "functions", "functions/gateway", "pkg",
	"bridge/internal/cli", "bridge/internal/inspect", "bridge/internal/deadletters", "bridge/internal/console"}

// deployedFiles calls do with every source file of what is deployed, tests left out.
func deployedFiles(t *testing.T, do func(path, text string)) {
	t.Helper()
	for _, dir := range deployed {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := entry.Name()
			if entry.IsDir() && (name == "internal" || name == "peertest" || name == "cmd" || name == "testdata" || name == "client") {
				return filepath.SkipDir
			}
			if entry.IsDir() || strings.HasSuffix(name, "_test.go") || filepath.Ext(name) != ".go" && filepath.Ext(name) != ".lua" {
				return nil
			}
			text, err := os.ReadFile(path)
			do(path, string(text))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

var scriptCall = regexp.MustCompile(`redis\.p?call\(\s*['"]([A-Za-z]+)['"](?:\s*,\s*['"]([A-Z]+)['"])?`)

// subcommands are the commands that a rule names together with the word after them.
var subcommands = []string{"xinfo", "xgroup", "script"}

// scriptCommands returns the commands that Lua scripts call, and where.
func scriptCommands(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	deployedFiles(t, func(path, text string) {
		for _, m := range scriptCall.FindAllStringSubmatch(text, -1) {
			command := strings.ToLower(m[1])
			if slices.Contains(subcommands, command) {
				command += "|" + strings.ToLower(m[2])
			}
			found[command] = path
		}
	})
	return found
}

// sends maps the client's methods to what they send. Those whose names other types
// have as well are left to the run under the ACL.
var sends = map[string]string{
	"XAdd": "xadd", "XLen": "xlen", "XRange": "xrange", "XRangeN": "xrange", "XRevRange": "xrevrange", "XRevRangeN": "xrevrange",
	"XRead": "xread", "XReadGroup": "xreadgroup", "XAck": "xack", "XClaim": "xclaim", "XAutoClaim": "xautoclaim", "XDel": "xdel",
	"XGroupCreate": "xgroup|create", "XGroupCreateMkStream": "xgroup|create", "XGroupDelConsumer": "xgroup|delconsumer",
	"XPending": "xpending", "XPendingExt": "xpending", "XTrimMinID": "xtrim", "XTrimMinIDApprox": "xtrim", "XTrimMaxLen": "xtrim",
	"XInfoStream": "xinfo|stream", "XInfoGroups": "xinfo|groups", "XInfoConsumers": "xinfo|consumers",
	"ZAdd": "zadd", "ZAddNX": "zadd", "ZRem": "zrem", "ZCard": "zcard", "ZScore": "zscore", "ZRange": "zrange",
	"ZRevRangeWithScores": "zrevrange", "ZRemRangeByScore": "zremrangebyscore",
	"ZRangeWithScores": "zrange", "ZRangeByScore": "zrangebyscore", "ZRangeArgs": "zrange", "ZRangeByScoreWithScores": "zrangebyscore",
	"HSet": "hset", "HSetNX": "hsetnx", "HGet": "hget", "HMGet": "hmget", "HGetAll": "hgetall", "HDel": "hdel", "HIncrBy": "hincrby",
	"SAdd": "sadd", "SMembers": "smembers", "PExpire": "pexpire", "SetNX": "set", "ScriptLoad": "script|load",
	"TxPipeline": "multi", "TxPipelined": "multi",
}

// ambiguous are methods of the client's that are often somebody else's.
var ambiguous = []string{"Append", "Command", "Copy", "Del", "Do", "Eval", "EvalSha", "Exists", "Get", "Info", "Keys", "Move", "Ping", "Pipeline",
	"Pipelined", "Process", "Publish", "Rename", "Save", "Scan", "Set", "Sort", "Time", "Type", "Wait", "Watch"}

// codeMethods returns the client's methods that Go code calls, and where.
func codeMethods(t *testing.T) map[string]string {
	t.Helper()
	client := map[string]bool{}
	for i := range reflect.TypeFor[redis.Cmdable]().NumMethod() {
		client[reflect.TypeFor[redis.Cmdable]().Method(i).Name] = true
	}
	found := map[string]string{}
	deployedFiles(t, func(path, text string) {
		if filepath.Ext(path) != ".go" || !strings.Contains(text, "go-redis") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if ok && client[method.Sel.Name] && !slices.Contains(ambiguous, method.Sel.Name) {
				found[method.Sel.Name] = path
			}
			return true
		})
	})
	return found
}

func TestEveryCommandThatIsSentIsGranted(t *testing.T) {
	t.Parallel()
	scripts, methods := scriptCommands(t), codeMethods(t)
	for command, path := range scripts {
		if !slices.Contains(commands, command) {
			t.Errorf("a script in %s calls %s, which the ACL refuses: add it to commands", path, command)
		}
	}
	for method, path := range methods {
		if command := sends[method]; command == "" || !slices.Contains(commands, command) {
			t.Errorf("%s calls the client's %s: say in sends which command that is, and grant it in commands", path, method)
		}
	}
	if len(scripts) < 20 || len(methods) < 20 {
		t.Errorf("found %d commands in scripts and %d methods in code: the search does not see them any more", len(scripts), len(methods))
	}
}

// unseen are the commands that no search of the source finds, and who sends them.
var unseen = map[string]string{
	"ping":        "the client, of an idle connection, and the local run",
	"select":      "the client, for a URL with a database",
	"info":        "the bridge, which reads the eviction policy",
	"multi":       "transactions",
	"exec":        "transactions",
	"watch":       "the ledger, for replicas: so the client holds on to a connection",
	"unwatch":     "the ledger, for replicas",
	"eval":        "scripts that the server does not have yet",
	"evalsha":     "scripts",
	"script|load": "the stream, before it calls its scripts",
	"wait":        "the ledger, for replicas",
	"get":         "the bridge, which reads the epoch",
	"xreadgroup":  "the stream, which reads replies by itself",
}

func TestNoCommandIsGrantedThatNobodySends(t *testing.T) {
	t.Parallel()
	scripts, methods := scriptCommands(t), codeMethods(t)
	sent := map[string]bool{}
	for method := range methods {
		sent[sends[method]] = true
	}
	for _, command := range commands {
		if scripts[command] == "" && !sent[command] && unseen[command] == "" {
			t.Errorf("the ACL grants %s, which nobody sends: take it out of commands", command)
		}
	}
}
