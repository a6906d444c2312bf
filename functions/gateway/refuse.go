package gateway

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"
)

// refusal is the body of every answer but success.
type refusal struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// refuse answers with an error. The texts quote nothing that came from outside.
func refuse(w http.ResponseWriter, status int, code, message string) {
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
