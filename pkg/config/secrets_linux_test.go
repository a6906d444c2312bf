package config

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// keeper, set in the environment, makes the test binary a process that keeps its
// secrets and tells what became of it.
const keeper = "CONFIG_TEST_KEEP_SECRETS"

func TestMain(m *testing.M) {
	if os.Getenv(keeper) == "" {
		os.Exit(m.Run())
	}
	if err := KeepSecrets(); err != nil {
		fmt.Println(err)
	}
	dumpable, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_GET_DUMPABLE, 0, 0)
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_CORE, &limit)
	fmt.Println("dumpable", dumpable, "core", limit.Cur, limit.Max, err)
}

func TestAProcessThatKeepsSecretsCantBeDumped(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{keeper + "=1"}
	out, err := cmd.CombinedOutput()
	if want := "dumpable 0 core 0 0 <nil>\n"; err != nil || string(bytes.TrimLeft(out, " ")) != want {
		t.Errorf("it says %q, %v, want %q", out, err, want)
	}
}
