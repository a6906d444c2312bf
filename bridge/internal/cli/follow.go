package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

const (
	// readBlock is how long one read waits for entries. go-redis doesn't end a
	// blocked read when its context is cancelled, so Ctrl-C may take as long.
	readBlock = 250 * time.Millisecond
	// readGrace is how much longer than readBlock a read may take.
	readGrace = 2 * time.Second
	// readPause is the time between two reads while Redis can't be read.
	readPause = 250 * time.Millisecond
	// readCount bounds the entries of each stream in one read.
	readCount = 100
)

// follower watches the status and responses streams for what becomes of one
// request. It reads them without a group, so that it takes nothing from anyone.
type follower struct {
	rdb     *redis.Client
	keys    tebra.Keys
	request tebra.Request

	seen    func(tebra.StatusUpdate) // called for each update but the last, which the answer repeats
	idle    func(context.Context)    // called after each read that brought nothing; may be nil
	trouble func(error)              // called when Redis can't be read, once until it can again

	status, response string // the IDs after which to read
}

// begin notes where the streams end. Called before the request is sent, so that
// nothing about it is missed, however fast the pipeline is.
func (f *follower) begin(ctx context.Context) error {
	var err error
	if f.status, err = f.lastID(ctx, f.keys.Status()); err != nil {
		return err
	}
	f.response, err = f.lastID(ctx, f.keys.Responses())
	return err
}

func (f *follower) lastID(ctx context.Context, stream string) (string, error) {
	last, err := f.rdb.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil {
		return "", fmt.Errorf("reading the end of %s: %w", stream, err)
	}
	if len(last) == 0 {
		return "0-0", nil
	}
	return last[0].ID, nil
}

// await returns the answer to the request, or the cause of ctx's end. It waits
// out that Redis can't be read: the request is on the stream, and its answer will
// be.
func (f *follower) await(ctx context.Context) (*tebra.Response, error) {
	healthy := true
	for ctx.Err() == nil {
		entries, err := f.read(ctx)
		if err == nil {
			healthy = true
			if answer, err := f.take(entries); answer != nil || err != nil {
				return answer, err
			}
			if len(entries) == 0 && f.idle != nil {
				f.idle(ctx)
			}
			continue
		}
		// The end of ctx shows as an error of Redis first.
		if pause(ctx, readPause) && healthy {
			f.trouble(err)
			healthy = false
		}
	}
	return nil, context.Cause(ctx)
}

// read returns what was added to both streams since the last read.
func (f *follower) read(ctx context.Context) ([]redis.XStream, error) {
	ctx, cancel := context.WithTimeout(ctx, readBlock+readGrace)
	defer cancel()
	streams, err := f.rdb.XRead(ctx, &redis.XReadArgs{
		Streams: []string{f.keys.Status(), f.keys.Responses(), f.status, f.response},
		Count:   readCount,
		Block:   readBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return streams, err
}

// take goes on to where the streams were read and returns the answer if it is
// among the entries. Updates are seen before the answer: Redis returns the
// streams in the order in which they were asked for.
func (f *follower) take(streams []redis.XStream) (*tebra.Response, error) {
	for _, s := range streams {
		for _, entry := range s.Messages {
			if s.Stream == f.keys.Status() {
				f.status = entry.ID
				f.takeStatus(entry)
				continue
			}
			f.response = entry.ID
			if answer, err := f.takeResponse(entry); answer != nil || err != nil {
				return answer, err
			}
		}
	}
	return nil, nil
}

// takeStatus leaves out what is not about this request, and what can't be read:
// the answer doesn't depend on it.
func (f *follower) takeStatus(entry redis.XMessage) {
	if !f.concerns(entry) {
		return
	}
	if update, err := tebra.ParseStatus(texts(entry)); err == nil && !update.State.Terminal() {
		f.seen(update)
	}
}

func (f *follower) takeResponse(entry redis.XMessage) (*tebra.Response, error) {
	if !f.concerns(entry) {
		return nil, nil
	}
	answer, err := tebra.ParseResponse(texts(entry))
	if err != nil {
		return nil, fmt.Errorf("entry %s of %s answers the request but can't be read: %w; was it written by another program?", entry.ID, f.keys.Responses(), err)
	}
	return &answer, nil
}

// concerns reports whether entry is about this request. Several requests may
// share a correlation ID, so the request ID has to fit as well.
func (f *follower) concerns(entry redis.XMessage) bool {
	return entry.Values["correlationId"] == f.request.CorrelationID && entry.Values["requestId"] == f.request.ID
}

// texts returns an entry's fields; Redis has only text in them.
func texts(entry redis.XMessage) map[string]string {
	fields := make(map[string]string, len(entry.Values))
	for name, value := range entry.Values {
		fields[name], _ = value.(string)
	}
	return fields
}

// pause waits for d and reports whether ctx outlived it.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
