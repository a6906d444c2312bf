package peertest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestPeersDieWithTheTestBinary(t *testing.T) {
	t.Parallel()
	RealRedis(t)
	script, err := filepath.Abs("testdata/router.php")
	if err != nil {
		t.Fatal(err)
	}
	PHP(t, script)

	helper := exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), helperVariable+"="+t.TempDir(), "PEERTEST_SCRIPT="+script)
	stdin, err := helper.StdinPipe() // held open until the helper is killed
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	killErr := helper.Process.Kill()
	_ = helper.Wait() // killed
	addrs := strings.Fields(line)
	if readErr != nil || killErr != nil || len(addrs) != 2 {
		t.Fatalf("the helper printed %q, %v, and its kill gave %v; want two addresses", line, readErr, killErr)
	}
	for _, addr := range addrs {
		Eventually(t, testTimeout, "the end of the peer at "+addr, func() bool { return dial(t.Context(), addr) != nil })
	}
}
