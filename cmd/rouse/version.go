package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version is set by the linker in release builds and never written otherwise.
var version string

type versionCmd struct {
	output
}

// Run prints version, commit and toolchain.
func (c *versionCmd) Run(term *terminal) error {
	told := map[string]string{"version": versionString(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH}
	return c.print(term, told, func(w io.Writer) {
		fmt.Fprintf(w, "rouse %s (%s, %s/%s)\n", told["version"], told["go"], told["os"], told["arch"])
	})
}

// versionString is the released version, else the commit the program was built from, else "dev".
func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "dev-" + s.Value[:12]
			}
		}
	}
	return "dev"
}
