package ledger

import (
	_ "embed"

	"github.com/redis/go-redis/v9"
)

// The scripts' KEYS, ARGV and returns are described at the head of each file.
//
// Every script checks before it writes, and writes the answer to the streams
// before the record: a script that Redis refuses for lack of memory is refused
// at its first write, so that it happens as a whole or not at all.
//
// What a script is made of comes in the order in which it is needed: it pays for
// each function that it defines, called or not, so most claims return before what
// only others need.
var (
	//go:embed lua/clock.lua
	clockLua string
	//go:embed lua/epoch.lua
	epochLua string
	//go:embed lua/delivery.lua
	deliveryLua string
	//go:embed lua/answer.lua
	answerLua string
	//go:embed lua/admit.lua
	admitLua string
	//go:embed lua/claim.lua
	claimLua string
	//go:embed lua/known.lua
	knownLua string
	//go:embed lua/start.lua
	startLua string
	//go:embed lua/unstart.lua
	unstartLua string
	//go:embed lua/complete.lua
	completeLua string
	//go:embed lua/release.lua
	releaseLua string
	//go:embed lua/return.lua
	returnLua string
	//go:embed lua/reject.lua
	rejectLua string
	//go:embed lua/replay.lua
	replayLua string

	admitScript    = redis.NewScript(clockLua + epochLua + admitLua)
	replayScript   = redis.NewScript(clockLua + epochLua + replayLua)
	claimScript    = redis.NewScript(clockLua + deliveryLua + claimLua + answerLua + knownLua)
	startScript    = redis.NewScript(clockLua + deliveryLua + startLua)
	unstartScript  = redis.NewScript(clockLua + deliveryLua + unstartLua)
	completeScript = redis.NewScript(clockLua + deliveryLua + answerLua + completeLua)
	releaseScript  = redis.NewScript(clockLua + deliveryLua + releaseLua)
	rejectScript   = redis.NewScript(clockLua + deliveryLua + answerLua + rejectLua)
	returnScript   = redis.NewScript(clockLua + deliveryLua + returnLua)
)
