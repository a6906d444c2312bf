package bridge

import "testing"

func TestWhatCameBeforeTheFirstStartIsServed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	ids := b.add(300, "quick")
	ids = append(ids, b.add(20, "slow")...)
	ids = append(ids, b.add(50, "change")...)
	b.start()
	b.checkPromises(ids)
}
