package api_test

import (
	"maps"
	"strings"
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

// TestEveryCallNeedsAKey calls every operation of the contract with every wrong kind of key.
func TestEveryCallNeedsAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	device := w.newPhone(app)
	keys := map[string]string{"adminKey": adminKey, "secretKey": app.sk, "publishableKey": app.pk, "deviceKey": device.key}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(rouse.Contract()))
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("{app_id}", app.id, "{device_id}", device.id, "{user}", "anna",
		"{key_id}", "key_00000000000000000000000000", "{message_id}", "msg_00000000000000000000000000")
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.Security == nil {
				continue
			}
			right := map[string]bool{}
			for _, requirement := range *op.Security {
				for name := range requirement {
					right[name] = true
				}
			}
			at := fill.Replace(path)
			w.do(call{method, at, "", nil, nil}).refused(401, "unauthenticated")
			for name, key := range keys {
				if !right[name] {
					w.do(call{method, at, key, nil, nil}).refused(403, "wrong_key_kind")
				}
			}
			if len(right) == 0 {
				t.Errorf("%s %s names no key", method, path)
			}
		}
	}
}
