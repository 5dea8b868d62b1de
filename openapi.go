package rouse

import _ "embed"

//go:embed openapi.yaml
var contract string

// Contract returns the API's contract, openapi.yaml, as it was when the program was built.
func Contract() string { return contract }
