package peertest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// identity calls a method of the emulator's admin API and returns its answer.
func identity(t *testing.T, host, project, method, body string) string {
	t.Helper()
	url := fmt.Sprintf("http://%s/identitytoolkit.googleapis.com/v1/projects/%s/%s", host, project, method)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer owner")
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: 15 * time.Second}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s = %s %s, %v, want 200", method, response.Status, text, err)
	}
	return string(text)
}

func TestFirebaseAuthKeepsUsersByProject(t *testing.T) {
	t.Parallel()
	emulator := FirebaseAuth(t)
	one, two := emulator.Project(), emulator.Project()
	identity(t, emulator.Host(), one, "accounts", `{"localId":"ann"}`)
	if got := identity(t, emulator.Host(), one, "accounts:lookup", `{"localId":["ann"]}`); !strings.Contains(got, "ann") {
		t.Errorf("accounts:lookup in the user's project = %s, want ann", got)
	}
	if got := identity(t, emulator.Host(), two, "accounts:lookup", `{"localId":["ann"]}`); strings.Contains(got, "ann") {
		t.Errorf("accounts:lookup in another project = %s, want nobody", got)
	}
}
