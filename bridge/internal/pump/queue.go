package pump

import (
	"container/heap"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// delivery is one message in one subscription.
type delivery struct {
	message   *pubsubpb.PubsubMessage // shared between subscriptions, never changed
	published time.Time
	size      int64
	attempt   int       // deliveries so far
	leased    bool      // in somebody's hands
	due       time.Time // when it may be delivered, or when its lease runs out
	order     uint64    // decides between equal times: first published, first served
	index     int       // in the queue that it is in
	window    *window   // of the stream that has it, or nil
}

// never is longer than anything here is waited for.
const never = 1000 * time.Hour

// queue orders deliveries by when there is something to do about them. It is used
// through its methods only.
type queue struct{ items byDue }

func (q *queue) add(d *delivery, due time.Time) {
	d.due = due
	heap.Push(&q.items, d)
}

// until returns how long after now the first delivery is due: never, for an empty
// queue.
func (q *queue) until(now time.Time) time.Duration {
	if d := q.first(); d != nil {
		return d.due.Sub(now)
	}
	return never
}

// first returns the delivery that is due first, or nil.
func (q *queue) first() *delivery {
	if len(q.items) == 0 {
		return nil
	}
	return q.items[0]
}

// move gives d another time.
func (q *queue) move(d *delivery, due time.Time) {
	d.due = due
	heap.Fix(&q.items, d.index)
}

func (q *queue) remove(d *delivery) { heap.Remove(&q.items, d.index) }

// byDue is a [heap.Interface] whose elements know where they are.
type byDue []*delivery

func (b byDue) Len() int { return len(b) }

func (b byDue) Less(i, j int) bool {
	if c := b[i].due.Compare(b[j].due); c != 0 {
		return c < 0
	}
	return b[i].order < b[j].order
}

func (b byDue) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].index, b[j].index = i, j
}

func (b *byDue) Push(x any) {
	d := x.(*delivery)
	d.index = len(*b)
	*b = append(*b, d)
}

func (b *byDue) Pop() any {
	last := len(*b) - 1
	d := (*b)[last]
	(*b)[last] = nil // so that the array doesn't keep the message
	*b = (*b)[:last]
	return d
}

// window is what one streaming pull may have unacknowledged; 0 is no limit.
type window struct {
	maxMessages, maxBytes int64
	messages, bytes       int64
}

// full reports whether no more may be sent. A nil window is never full.
func (w *window) full() bool {
	if w == nil {
		return false
	}
	return w.maxMessages > 0 && w.messages >= w.maxMessages || w.maxBytes > 0 && w.bytes >= w.maxBytes
}

// hold counts d as being in w.
func (w *window) hold(d *delivery) {
	if w == nil {
		return
	}
	d.window = w
	w.messages++
	w.bytes += d.size
}

// letGo counts d as being in no window.
func (d *delivery) letGo() {
	if d.window == nil {
		return
	}
	d.window.messages--
	d.window.bytes -= d.size
	d.window = nil
}
