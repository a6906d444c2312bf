package stream

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// maxAudit bounds the audit stream, roughly: some hundred bytes each, and more
// than operators do in a year. Nobody trims it otherwise.
const maxAudit = 100_000

// Audit writes down what an operator is about to do, all of it or nothing, and
// returns once Redis has it. Where it fails, the act must not be done. It must not be
// sent again after a lost reply: the records would be there twice.
func (s *Stream) Audit(ctx context.Context, records ...tebra.AuditRecord) error {
	_, err := s.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, r := range records {
			p.XAdd(ctx, &redis.XAddArgs{Stream: s.keys.Audit(), MaxLen: maxAudit, Approx: true, Values: r.Fields()})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing %d records to %s: %w", len(records), s.keys.Audit(), err)
	}
	return nil
}
