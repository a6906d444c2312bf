package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/tebra"
)

// redisTimeout bounds what Redis may take for one act.
const redisTimeout = 10 * time.Second

// step is a step of a request's life, as the page takes it.
type step struct {
	At        time.Time       `json:"at"`
	Event     inspect.Event   `json:"event"`
	State     tebra.State     `json:"status,omitempty"`
	Attempt   int             `json:"attempt,omitempty"`
	ErrorCode tebra.ErrorCode `json:"errorCode,omitempty"`
	Meaning   string          `json:"meaning,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	Error     string          `json:"error,omitempty"`
}

// trace tells what became of a request. Its payloads are shown only when they are
// asked for, and on record.
func (c *Console) trace(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		ID       string `json:"id"`
		UserID   string `json:"userId"`
		Payloads bool   `json:"payloads"`
	}
	if !read(w, r, &asked) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*redisTimeout)
	defer cancel()
	traces, err := c.deps.Inspector.Trace(ctx, inspect.TraceQuery{ID: asked.ID, UserID: asked.UserID, Payloads: asked.Payloads})
	if err != nil {
		c.deps.Log.Warn("a request could not be traced", "error", err)
		refuse(w, http.StatusBadGateway, "Redis could not be read; try again")
		return
	}
	if asked.Payloads {
		if err := c.recordShown(ctx, traces); err != nil {
			c.deps.Log.Warn("contents were not shown", "error", err)
			refuse(w, http.StatusBadGateway, "nothing is shown, because that can't be put on record; try again")
			return
		}
	}
	steps := []step{}
	for _, t := range traces {
		for _, s := range t.Steps {
			steps = append(steps, step{
				At: s.At, Event: s.Event, State: s.State, Attempt: s.Attempt, ErrorCode: s.ErrorCode, Meaning: s.ErrorCode.Meaning(),
				Params: s.Params, Data: s.Data, Error: s.Error,
			})
		}
	}
	answer(w, map[string]any{"steps": steps})
}

// recordShown puts on record that the contents of requests are about to be shown.
func (c *Console) recordShown(ctx context.Context, traces []inspect.Trace) error {
	if len(traces) == 0 {
		return nil
	}
	if c.cfg.Operator == "" {
		return errors.New("nobody is named as the operator")
	}
	records := make([]tebra.AuditRecord, 0, len(traces))
	for _, t := range traces {
		records = append(records, tebra.AuditRecord{
			At: c.deps.Now(), Operator: c.cfg.Operator, Operation: tebra.PayloadsShown,
			RequestID: t.RequestID, CorrelationID: t.CorrelationID, Action: t.Action, UserID: t.UserID,
			Decision: tebra.Allowed, Reason: "console",
		})
	}
	return c.deps.Auditor.Audit(ctx, records...)
}
