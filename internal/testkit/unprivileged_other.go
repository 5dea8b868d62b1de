//go:build !unix

package testkit

import "os/exec"

// unprivileged does nothing: the keeper needs a shell, so a server of one's own is for Unix.
func unprivileged(*exec.Cmd, string) error { return nil }
