package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"rouse"
)

// document is the contract as an independent reader understands it.
var document = sync.OnceValue(func() *openapi3.T {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(rouse.Contract()))
	if err == nil {
		err = doc.Validate(context.Background())
	}
	if err != nil {
		panic(err)
	}
	// A schema without a type takes null in 3.1; this validator reads it as 3.0 did, so it is told.
	doc.Components.Schemas["InboxMessage"].Value.Properties["data"].Value.Type = &openapi3.Types{"null", "boolean", "number", "string", "array", "object"}
	return doc
})

// contract finds an operation.
var contract = sync.OnceValue(func() routers.Router {
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", decodeLines)
	router, err := gorillamux.NewRouter(document())
	if err != nil {
		panic(err)
	}
	return router
})

// decodeLines holds every line of a stream of results to the schema that the contract names in words.
func decodeLines(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
	all, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	one := document().Components.Schemas["MessageBatchResult"].Value
	for line := range bytes.Lines(all) {
		var v any
		if err := json.Unmarshal(line, &v); err != nil {
			return nil, err
		}
		if err := one.VisitJSON(v); err != nil {
			return nil, err
		}
		if line[len(line)-1] != '\n' {
			return nil, errors.New("the last line has no end")
		}
	}
	return string(all), nil
}

// client is the one way tests call the server: it checks every answer against the contract.
type client struct {
	t    testing.TB
	base string
	http *http.Client
}

// call is one request; body may be nil, a string sent as it is, or anything that marshals.
type call struct {
	method, path, key string
	body              any
	header            map[string]string
}

// answer is what came back.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
}

func (c *client) do(x call) answer {
	c.t.Helper()
	a, err := c.try(c.t.Context(), x)
	if err != nil {
		c.t.Fatalf("%s %s: %v", x.method, x.path, err)
	}
	return a
}

func (c *client) try(ctx context.Context, x call) (answer, error) {
	c.t.Helper()
	var body io.Reader
	switch b := x.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		body = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, x.method, c.base+x.path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if x.key != "" {
		r.Header.Set("Authorization", "Bearer "+x.key)
	}
	for name, value := range x.header {
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
	}
	response, err := c.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{t: c.t, status: response.StatusCode, header: response.Header, body: raw}
	c.validate(r, a)
	return a, nil
}

// validate checks an answer against the contract; a path or method that is not in it must be a problem all the same.
func (c *client) validate(r *http.Request, a answer) {
	c.t.Helper()
	if a.header.Get("X-Request-Id") == "" {
		c.t.Errorf("%s %s: no X-Request-Id", r.Method, r.URL.Path)
	}
	if a.status >= 400 {
		a.checkProblem()
	}
	route, params, err := contract().FindRoute(r)
	if err != nil {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
			c.t.Errorf("%s %s is not in the contract and answered %d", r.Method, r.URL.Path, a.status)
		}
		return
	}
	if a.status == http.StatusMethodNotAllowed {
		return
	}
	options := &openapi3filter.Options{
		IncludeResponseStatus: true, MultiError: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
		// These two are looked at elsewhere; the validator would parse them.
		ExcludeResponseBody: strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || a.header.Get("Content-Type") == "application/yaml",
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route, Options: options},
		Status:                 a.status, Header: a.header, Options: options,
	}
	input.SetBodyBytes(a.body)
	if err := openapi3filter.ValidateResponse(c.t.Context(), input); err != nil {
		c.t.Errorf("%s %s answered %d against the contract: %v\n%s", r.Method, r.URL.Path, a.status, err, a.body)
	}
}

// problem is the part of a problem document tests look at.
type problem struct {
	Type, Title, Detail, Code string
	Status                    int
	RequestID                 string `json:"request_id"`
	Errors                    []struct{ Pointer, Detail string }
}

func (a answer) problem() problem {
	a.t.Helper()
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		a.t.Fatalf("not a problem: %s", a.body)
	}
	return p
}

// checkProblem holds every failure to what all of them promise.
func (a answer) checkProblem() {
	a.t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("status %d with Content-Type %q: %s", a.status, got, a.body)
		return
	}
	p := a.problem()
	if p.Status != a.status || p.RequestID != a.header.Get("X-Request-Id") || p.Code == "" || p.Detail == "" || p.Title == "" || p.Type != "urn:rouse:problem:"+p.Code {
		a.t.Errorf("status %d: an incomplete problem: %s", a.status, a.body)
	}
	if !strings.Contains(errorsPage(), "`"+p.Code+"`") {
		a.t.Errorf("docs/errors.md does not explain %q", p.Code)
	}
	if a.status == http.StatusUnauthorized != (a.header.Get("WWW-Authenticate") != "") {
		a.t.Errorf("status %d with WWW-Authenticate %q", a.status, a.header.Get("WWW-Authenticate"))
	}
	if (a.status == 429 || a.status == 503) != (a.header.Get("Retry-After") != "") {
		a.t.Errorf("status %d with Retry-After %q", a.status, a.header.Get("Retry-After"))
	}
}

// want stops the test unless the status is as wanted; it returns the answer for chaining.
func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("got status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// refused stops the test unless the answer is the problem wanted.
func (a answer) refused(status int, code string) answer {
	a.t.Helper()
	a.want(status)
	if got := a.problem().Code; got != code {
		a.t.Fatalf("got code %q, want %q: %s", got, code, a.body)
	}
	return a
}

// points reports whether the problem points there.
func (a answer) points(pointer string) answer {
	a.t.Helper()
	for _, e := range a.problem().Errors {
		if e.Pointer == pointer {
			return a
		}
	}
	a.t.Fatalf("nothing points at %q: %s", pointer, a.body)
	return a
}

// into decodes the answer, and refuses fields the type does not know.
func (a answer) into(v any) {
	a.t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		a.t.Fatalf("%v in %s", err, a.body)
	}
}

// decode decodes what the type knows of the answer.
func (a answer) decode(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%v in %s", err, a.body)
	}
}

func (a answer) text(name string) string {
	a.t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		a.t.Fatalf("%v in %s", err, a.body)
	}
	s, _ := m[name].(string)
	return s
}
