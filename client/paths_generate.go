//go:build ignore

package main

import (
	"log"
	"os"
	"regexp"
)

// path is where the generated client makes one out of names: pathOf is to do it.
var path = regexp.MustCompile(`operationPath := fmt\.Sprintf\((.*%s.*)\)\n`)

func main() {
	const file = "gen.go"
	code, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	if !path.Match(code) {
		log.Fatal("client: no path takes a name any more: look at what oapi-codegen makes of it")
	}
	code = path.ReplaceAll(code, []byte("operationPath, err := pathOf($1)\n\tif err != nil {\n\t\treturn nil, err\n\t}\n"))
	if err := os.WriteFile(file, code, 0o600); err != nil {
		log.Fatal(err)
	}
}
