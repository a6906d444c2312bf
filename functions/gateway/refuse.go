package gateway

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// refusal is the body of every answer but success.
type refusal struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// refusals are the codes that a gateway refuses with, those of its verifier
// included: what metrics may call them.
var refusals = []string{
	"token_missing", "token_invalid", "token_expired", "token_revoked", "token_wrong_project", "user_disabled", "user_unknown",
	"origin_not_allowed", "rate_limited", "too_many_streams", "unavailable", "stopping",
	string(tebra.Malformed), string(tebra.TooLarge), string(tebra.Duplicate),
	"unsupported_media_type", "bad_position", "method_not_allowed", "not_found",
}

// refuse answers with an error. The texts quote nothing that came from outside.
func refuse(w http.ResponseWriter, status int, code, message string) {
	telemetry.Refused(w, code)
	var body refusal
	body.Error.Code, body.Error.Message = code, message
	writeJSON(w, status, body)
}

// refuseFor refuses for a while: whoever asks should come again after it.
func refuseFor(w http.ResponseWriter, status int, code, message string, wait time.Duration) {
	seconds := max(1, int64(math.Ceil(wait.Seconds())))
	w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	refuse(w, status, code, message)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // whoever asked may be gone
}
