package console

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/pkg/tebra"
)

// redisTimeout bounds what Redis may take for one act.
const redisTimeout = 10 * time.Second

// send puts a request on the stream, in the name of the user that the form says.
func (c *Console) send(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Action string          `json:"action"`
		UserID string          `json:"userId"`
		Params json.RawMessage `json:"params"`
	}
	if !read(w, r, &asked) {
		return
	}
	request := tebra.Request{Action: asked.Action, UserID: asked.UserID, Params: asked.Params, Timestamp: tebra.FormatTime(c.deps.Now())}
	request.Identify(c.deps.NewID)
	fields := []string{
		"id", request.ID, "action", request.Action, "params", string(request.Params), "userId", request.UserID,
		"timestamp", request.Timestamp, "correlationId", request.CorrelationID,
	}
	if _, err := tebra.DecodeEntry(fields, math.MaxInt); err != nil { // by the rules that a bridge will read it by
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), redisTimeout)
	defer cancel()
	entry, err := c.deps.Redis.XAdd(ctx, &redis.XAddArgs{Stream: c.deps.Keys.Requests(), Values: fields}).Result()
	if err != nil {
		c.deps.Log.Warn("a request could not be put on the stream", "error", err)
		refuse(w, http.StatusBadGateway, "Redis did not confirm the request; it may have been sent or not: look whether it shows up, under ID "+request.ID)
		return
	}
	answer(w, map[string]string{"requestId": request.ID, "entry": entry})
}

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
