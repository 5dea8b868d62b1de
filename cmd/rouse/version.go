package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker in release builds and never written otherwise.
var version string

type versionCmd struct{}

// Run prints version, commit and toolchain.
func (versionCmd) Run(term *terminal) error {
	fmt.Fprintf(term.out, "rouse %s (%s, %s/%s)\n", versionString(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
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
