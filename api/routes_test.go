package api_test

import (
	"maps"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"rouse"
	"rouse/api"
)

// TestRoutesAndContractAgree walks both ways: no route the contract does not name, no operation without a
// route, and the same operationId on both sides.
func TestRoutesAndContractAgree(t *testing.T) {
	t.Parallel()
	a := newWorld(t).api
	doc, err := openapi3.NewLoader().LoadFromData([]byte(rouse.Contract()))
	if err != nil {
		t.Fatal(err)
	}
	promised := map[string]string{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			promised[method+" "+path] = op.OperationID
		}
	}
	if have := api.Operations(a); !maps.Equal(have, promised) {
		t.Errorf("the table and the contract differ:\n%v\n%v", have, promised)
	}
	mounted := map[string]bool{}
	if err := api.WalkRoutes(a, func(method, path string) { mounted[method+" "+path] = true }); err != nil {
		t.Fatal(err)
	}
	for op := range promised {
		if !mounted[op] {
			t.Errorf("%s is in the contract and has no route", op)
		}
	}
	for op := range mounted {
		if promised[op] == "" {
			t.Errorf("%s has a route and is not in the contract", op)
		}
	}
}
