//go:build linux || darwin

package main

import (
	"io/fs"
	"syscall"
)

// space returns how many bytes may still be written in a folder.
func space(dir string) (free uint64, known bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return s.Bavail * uint64(s.Bsize), true
}

// Modes of access.
const (
	mayRead  = 4
	mayWrite = 2
)

// may reports why this user may not use a path so; nil if it may. It opens nothing.
func may(path string, mode uint32) error { return syscall.Access(path, mode) }

// owner returns whose a file is.
func owner(info fs.FileInfo) (uid int, known bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(s.Uid), true
}
