package peertest

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// call posts body to url and returns the answer's status and body.
func call(url, body string) (int, string, error) {
	client := http.Client{Timeout: 15 * time.Second}
	defer client.CloseIdleConnections()
	response, err := client.Post(url, "text/plain", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

func TestPHPRoutesEveryPathToTheScript(t *testing.T) {
	t.Parallel()
	server := PHP(t, "testdata/router.php")
	status, got, err := call(server.URL()+"/any/path?q=1", "body")
	if want := "POST /any/path?q=1 body"; err != nil || status != http.StatusOK || got != want {
		t.Errorf("POST = %d %q, %v, want 200 %q", status, got, err, want)
	}
}

func TestPHPServesAsManyAtATimeAsItHasWorkers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "go")
	server := PHP(t, "testdata/router.php", "PHP_CLI_SERVER_WORKERS=2", "PEERTEST_FILE="+file)
	waited := make(chan int, 1)
	go func() {
		status, _, _ := call(server.URL()+"/wait", "") // a failed call has status 0
		waited <- status
	}()
	// A busy worker may accept a connection that it then leaves waiting, so one
	// call more than there are workers could still miss the free one.
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			if _, _, err := call(server.URL()+"/go", ""); err != nil {
				t.Errorf("another call: %v", err)
			}
		})
	}
	calls.Wait()
	if got := <-waited; got != http.StatusOK {
		t.Errorf("the first call's status = %d, want %d", got, http.StatusOK)
	}
}

func TestWarningsOfAPHPScriptGoToTheLogOnly(t *testing.T) {
	t.Parallel()
	server := PHP(t, "testdata/router.php")
	_, got, err := call(server.URL()+"/warn", "")
	if want := "after"; err != nil || got != want {
		t.Errorf("POST = %q, %v, want %q", got, err, want)
	}
	log, err := server.process.log()
	if err != nil || !strings.Contains(log, "a warning of the script") {
		t.Errorf("the log is %q, %v, want the warning in it", log, err)
	}
}
