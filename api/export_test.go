package api

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"rouse/ident"
)

// WalkRoutes calls visit for every route chi knows.
func WalkRoutes(a *API, visit func(method, path string)) error {
	return chi.Walk(a.routes(), func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		visit(method, path)
		return nil
	})
}

// Operations lists method, path and operationId of the table.
func Operations(a *API) map[string]string {
	all := map[string]string{}
	for _, x := range a.table() {
		all[x.method+" "+x.path] = x.operation
	}
	return all
}

// CheckBody runs one operation's body through the contract.
func CheckBody(a *API, operation string, raw []byte) ([]byte, error) {
	return a.document.bodies[operation].check(raw)
}

// Waiting is the number of parked polls.
func Waiting(a *API) int { return a.parker.Waiting() }

// Present reports whether the node knows the device to be polling, here or elsewhere.
func Present(a *API, device ident.Device) bool { return a.present(device) }
