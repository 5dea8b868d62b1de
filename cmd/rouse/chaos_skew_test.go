package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// skewVariable holds by how many seconds the clock of a skewedBinary is ahead.
const skewVariable = "ROUSE_TEST_SKEW_SECONDS"

func skewEnv(by time.Duration) string { return fmt.Sprintf("%s=%d", skewVariable, int(by.Seconds())) }

// What is put in place of one line of the standard library's time.Now, and beside it.
const (
	truthfulNow = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	skewedNow   = truthfulNow + "\tsec += skew\n"
	skewSource  = `package time

import "syscall"

var skew = func() int64 {
	text, _ := syscall.Getenv("` + skewVariable + `")
	n, _ := atoi(text)
	return int64(n)
}()
`
)

// skewedBinary is the program with a clock that is wrong, built once: another time.Now is laid over the standard library's, so that
// the program itself needs no hook. Building it is building everything anew.
var skewedBinary = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(out)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	changed := strings.Replace(string(source), truthfulNow, skewedNow, 1)
	if changed == string(source) {
		return "", fmt.Errorf("time.Now of this Go does not begin as it is known to: mend truthfulNow")
	}
	overlay := map[string]map[string]string{"Replace": {}}
	for name, text := range map[string]string{original: changed, filepath.Join(filepath.Dir(original), "skew.go"): skewSource} {
		ours := filepath.Join(scratch, "skewed_"+filepath.Base(name))
		if err := os.WriteFile(ours, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay["Replace"][name] = ours
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	listed, path := filepath.Join(scratch, "overlay.json"), filepath.Join(scratch, "rouse-skewed")
	if err := os.WriteFile(listed, list, 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-overlay", listed, "-tags", "disable_grpc_modules", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build -overlay: %w\n%s", err, out)
	}
	return path, nil
})
