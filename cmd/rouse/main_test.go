package main

import (
	"fmt"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { os.Exit(testAll(m)) }

// testAll runs the tests and then looks for goroutines that one of them left behind.
func testAll(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "rouse-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if code := m.Run(); code != exitOK {
		return code
	}
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines were left behind:", err)
		return exitFailed
	}
	return exitOK
}
