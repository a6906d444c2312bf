package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// auditGroup is the consumer group that carries the audit stream away. All who do
// are one consumer of it: what one of them read and did not confirm, the next one
// that comes along reads again.
const (
	auditGroup    = "audit"
	auditConsumer = "bridges"
)

// Audited is one entry of the audit stream. Err says why it is no record.
type Audited struct {
	ID     string
	Record tebra.AuditRecord
	Err    error
}

// CarryAudit gives up to count entries of the audit stream that nobody has carried
// away, oldest first: those that somebody read at least idle ago and never
// confirmed, else new ones. Whoever has them where they belong calls
// [Stream.Carried]. It does not wait.
func (s *Stream) CarryAudit(ctx context.Context, idle time.Duration, count int) ([]Audited, error) {
	entries, err := s.carry(ctx, idle, count)
	if NoGroup(err) {
		err = s.rdb.XGroupCreateMkStream(ctx, s.keys.Audit(), auditGroup, "0").Err()
		if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") { // else somebody was quicker
			return nil, fmt.Errorf("creating group %s of %s: %w", auditGroup, s.keys.Audit(), err)
		}
		entries, err = s.carry(ctx, idle, count)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.keys.Audit(), err)
	}
	all := make([]Audited, len(entries))
	for i, e := range entries {
		fields := make(map[string]string, len(e.Values))
		for name, value := range e.Values {
			fields[name], _ = value.(string) // Redis has nothing else
		}
		all[i].ID = e.ID
		all[i].Record, all[i].Err = tebra.ParseAudit(fields)
	}
	return all, nil
}

func (s *Stream) carry(ctx context.Context, idle time.Duration, count int) ([]redis.XMessage, error) {
	left, _, err := s.rdb.XAutoClaim(ctx, &redis.XAutoClaimArgs{
		Stream: s.keys.Audit(), Group: auditGroup, Consumer: auditConsumer, MinIdle: idle, Start: "0", Count: int64(count),
	}).Result()
	if err != nil || len(left) > 0 {
		return left, err
	}
	read, err := s.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: auditGroup, Consumer: auditConsumer, Streams: []string{s.keys.Audit(), ">"}, Count: int64(count), Block: -1,
	}).Result()
	if errors.Is(err, redis.Nil) || len(read) == 0 {
		return nil, ignoreNil(err)
	}
	return read[0].Messages, nil
}

func ignoreNil(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

// Carried confirms that entries of the audit stream are where they belong.
func (s *Stream) Carried(ctx context.Context, entries []Audited) error {
	ids := make([]string, len(entries))
	for i, e := range entries {
		ids[i] = e.ID
	}
	if err := s.rdb.XAck(ctx, s.keys.Audit(), auditGroup, ids...).Err(); err != nil {
		return fmt.Errorf("confirming %d entries of %s: %w", len(ids), s.keys.Audit(), err)
	}
	return nil
}
