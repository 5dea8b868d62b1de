// Package client speaks to a Rouse server: a generated method for every operation of the
// contract, and Receiver, the loop that an app or a box without a push provider runs to get its messages. Names that
// would make another operation of a path (empty, "." and "..") are refused before anything is sent.
package client

//go:generate go tool -modfile=../tools.mod oapi-codegen -config oapi.yaml ../openapi.yaml
//go:generate go run paths_generate.go
