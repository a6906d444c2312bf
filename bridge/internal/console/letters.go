package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"tebraproxy/bridge/internal/deadletters"
	"tebraproxy/pkg/ledger"
)

// letter is a dead letter as the page takes it.
type letter struct {
	ID            string           `json:"id"`
	PublishedAt   time.Time        `json:"publishedAt"`
	Kind          deadletters.Kind `json:"kind"`
	Reason        string           `json:"reason"`
	Meaning       string           `json:"meaning"`
	Problem       string           `json:"problem,omitempty"`
	Bytes         int              `json:"bytes"`
	RequestID     string           `json:"requestId"`
	CorrelationID string           `json:"correlationId"`
	Action        string           `json:"action"`
	UserID        string           `json:"userId"`
}

func asLetter(l deadletters.Letter) letter {
	return letter{
		ID: l.ID, PublishedAt: l.PublishedAt, Kind: l.Kind, Reason: l.Reason, Meaning: deadletters.Meaning(l.Reason), Problem: l.Problem, Bytes: l.Bytes,
		RequestID: l.Envelope.RequestID, CorrelationID: l.Envelope.CorrelationID, Action: l.Envelope.Action, UserID: l.Envelope.UserID,
	}
}

// result is what became of a letter, or would.
type result struct {
	ID      string              `json:"id"`
	Outcome deadletters.Outcome `json:"outcome"`
	Refusal ledger.Refusal      `json:"refusal,omitempty"`
	Why     string              `json:"why,omitempty"`
}

func asResult(r deadletters.Result) result {
	return result{ID: r.Letter.ID, Outcome: r.Outcome, Refusal: r.Refusal, Why: r.Why}
}

// hasLetters refuses and returns false where it is not known where dead letters are.
func (c *Console) hasLetters(w http.ResponseWriter) bool {
	if c.deps.Letters == nil {
		refuse(w, http.StatusNotFound, "it is not known where the dead letters are: give --project")
	}
	return c.deps.Letters != nil
}

func (c *Console) listLetters(w http.ResponseWriter, r *http.Request) {
	if !c.hasLetters(w) {
		return
	}
	found, err := c.deps.Letters.List(r.Context(), deadletters.Filter{})
	if err != nil {
		c.refuseAct(w, err)
		return
	}
	letters := make([]letter, 0, len(found.Letters))
	for _, l := range found.Letters {
		letters = append(letters, asLetter(l))
	}
	answer(w, map[string]any{"letters": letters, "more": found.More})
}

func (c *Console) showLetter(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		ID       string `json:"id"`
		Payloads bool   `json:"payloads"`
	}
	if !c.hasLetters(w) || !read(w, r, &asked) {
		return
	}
	detail, err := c.deps.Letters.Show(r.Context(), asked.ID, asked.Payloads)
	if err != nil {
		c.refuseAct(w, err)
		return
	}
	body := map[string]any{"letter": asLetter(detail.Letter), "forecast": asResult(detail.Forecast)}
	if p := detail.Payload; p != nil {
		body["payload"] = map[string]any{"params": orNull(p.Params), "metadata": orNull(p.Metadata), "fields": p.Fields, "data": string(p.Data)}
	}
	answer(w, body)
}

// orNull makes JSON of what is not there.
func orNull(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	return raw
}

func (c *Console) replayLetters(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		IDs   []string `json:"ids"`
		Force bool     `json:"force"`
	}
	if !c.hasLetters(w) || !read(w, r, &asked) {
		return
	}
	if len(asked.IDs) == 0 { // to the queue that would mean all
		refuse(w, http.StatusBadRequest, "no letter is named that should be replayed")
		return
	}
	report, err := c.deps.Letters.Replay(r.Context(), deadletters.Filter{IDs: asked.IDs}, deadletters.ReplayOptions{Force: asked.Force})
	c.report(w, report, err)
}

func (c *Console) dropLetters(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		IDs []string `json:"ids"`
	}
	if !c.hasLetters(w) || !read(w, r, &asked) {
		return
	}
	report, err := c.deps.Letters.Drop(r.Context(), asked.IDs)
	c.report(w, report, err)
}

// report answers with what became of letters; of an act that failed midway, too.
func (c *Console) report(w http.ResponseWriter, report deadletters.Report, err error) {
	if err != nil && len(report.Results) == 0 {
		c.refuseAct(w, err)
		return
	}
	results := make([]result, 0, len(report.Results))
	for _, r := range report.Results {
		results = append(results, asResult(r))
	}
	body := map[string]any{"results": results}
	if err != nil {
		body["error"] = err.Error()
	}
	answer(w, body)
}

func (c *Console) refuseAct(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, context.Canceled): // the page left
	case errors.Is(err, deadletters.ErrNotFound):
		refuse(w, http.StatusNotFound, err.Error())
	default:
		c.deps.Log.Warn("dead letters could not be handled", "error", err)
		refuse(w, http.StatusBadGateway, err.Error())
	}
}
