// Package contract is openapi.yaml in Go: the types of every body, and the one method
// an operation that api implements. All but this file is generated.
package contract

//go:generate go tool -modfile=../../tools.mod oapi-codegen -config oapi.yaml ../../openapi.yaml
