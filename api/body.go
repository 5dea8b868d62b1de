package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"rouse/fault"
)

const (
	// maxBody is the largest request body, in bytes.
	maxBody = 128 << 10
	// maxBatch is that of a batch.
	maxBatch = 8 << 20
	// maxCredential is that of a credential: a certificate and the placeholder in a hundred languages, escaped.
	maxCredential = 512 << 10
)

// body checks the request bodies of one operation against the contract.
type body struct {
	schema *jsonschema.Schema
	// fields are the names the contract knows at the top.
	fields []string
	// opaque are those whose content is not looked into.
	opaque []string
	// lists are those whose entries are looked into later, each by itself; and how many there may be.
	lists map[string]int
	// most is the largest body, in bytes.
	most int64
}

// compileBodies prepares every operation that takes a body, by operationId.
func compileBodies(d document) (map[string]*body, error) {
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.RegisterFormat(&jsonschema.Format{Name: "date-time", Validate: checkTime})
	compiler.AssertFormat()
	const url = "rouse:openapi.json"
	if err := compiler.AddResource(url, d.tree); err != nil {
		return nil, err
	}
	bodies := map[string]*body{}
	for _, op := range d.Operations {
		if op.bodySchema == "" {
			continue
		}
		schema, err := compiler.Compile(url + op.bodySchema)
		if err != nil {
			return nil, fmt.Errorf("operation %s: %w", op.ID, err)
		}
		for schema.Ref != nil {
			schema = schema.Ref
		}
		b := &body{schema: schema, most: mostOf(op.ID), lists: map[string]int{}}
		for name, property := range schema.Properties {
			b.fields = append(b.fields, name)
			if property.Types == nil && property.Ref == nil && property.Enum == nil {
				b.opaque = append(b.opaque, name)
			}
			if items := property.Items2020; items != nil && property.MaxItems != nil && items.AdditionalProperties == true {
				b.lists[name] = *property.MaxItems
			}
		}
		slices.Sort(b.fields)
		bodies[op.ID] = b
	}
	return bodies, nil
}

// checkTime refuses what cannot be decoded as a time later.
func checkTime(v any) error {
	text, ok := v.(string)
	if !ok {
		return nil // its type is looked at elsewhere
	}
	var t time.Time
	return t.UnmarshalText([]byte(text))
}

// mostOf is the largest body of an operation, in bytes.
func mostOf(operation string) int64 {
	switch operation {
	case "putApnsCredential", "putFcmCredential":
		return maxCredential
	case "sendMessages":
		return maxBatch
	}
	return maxBody
}

// take reads and checks the body, and puts in its place one object with only the fields the
// contract knows, each once: what is decoded later is what was checked here.
func (b *body) take(w http.ResponseWriter, r *http.Request) error {
	if err := checkMediaType(r.Header); err != nil {
		return err
	}
	raw, err := b.read(w, r)
	if err != nil {
		return err
	}
	known, err := b.check(raw)
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(known))
	r.ContentLength = int64(len(known))
	return nil
}

// read reads the whole body.
func (b *body) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, b.most))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, fault.New(fault.TooLarge, "body_too_large", "the body is over %d bytes", b.most)
	case err != nil:
		return nil, fault.New(fault.Malformed, "malformed_json", "the body ended early").Because(err)
	}
	return raw, nil
}

// refuseBody holds a GET to have no body: while one is unread, the server does not notice that its client left, and a
// poll would wait for nobody.
func refuseBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	w.Header().Set("Connection", "close") // or the answer waits until the body has come
	return fault.New(fault.Malformed, "unexpected_body", "a GET takes no body; leave out Content-Length and Transfer-Encoding")
}

func checkMediaType(h http.Header) error {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || kind != "application/json" || !plain(h) {
		return fault.New(fault.Invalid, "unsupported_media_type", "send JSON with Content-Type: application/json and no Content-Encoding")
	}
	return nil
}

// plain reports whether a body is not compressed.
func plain(h http.Header) bool {
	encoding := h.Get("Content-Encoding")
	return encoding == "" || strings.EqualFold(encoding, "identity")
}

// storable refuses a text with U+0000, which not every database can store: it may not be changed, or two names could become one.
func storable(pointer, text string) error {
	if strings.IndexByte(text, 0) < 0 {
		return nil
	}
	return invalidBody().At(pointer, "must not hold the character U+0000")
}

// check returns the body rebuilt from the fields that are known.
func (b *body) check(raw []byte) ([]byte, error) {
	fields, err := b.checked(raw)
	if err != nil {
		return nil, err
	}
	return b.rebuild(fields), nil
}

// checked returns the fields of a body that fits the contract, the unknown ones too where it lets them pass.
func (b *body) checked(raw []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(raw) {
		return nil, fault.New(fault.Malformed, "malformed_json", "the body is not UTF-8")
	}
	fields, err := b.split(raw)
	if err != nil {
		return nil, err
	}
	tree := make(map[string]any, len(fields))
	for name, value := range fields {
		if tree[name], err = b.content(name, value); err != nil {
			return nil, err
		}
	}
	if err := b.schema.Validate(tree); err != nil {
		return nil, explain(err)
	}
	return fields, nil
}

// content is what the contract is held against of a field: no more than it takes.
func (b *body) content(name string, value []byte) (v any, err error) {
	if most, ok := b.lists[name]; ok {
		if n, ok := countEntries(value, most); ok {
			return slices.Repeat([]any{map[string]any{}}, n), nil
		}
		return notAList(value[0]), nil
	}
	if !b.looksInto(name) {
		return nil, nil
	}
	// Numbers become float64 on purpose: exact arithmetic on 1e999999 is a way to stop a server.
	if err := json.Unmarshal(value, &v); err != nil {
		return nil, invalidBody().At(pointerTo(name), "holds a number that is out of range")
	}
	return v, nil
}

// notAList is a value of the type that one beginning so has, however large that is.
func notAList(begin byte) any {
	switch begin {
	case '{':
		return map[string]any{}
	case '"':
		return ""
	case 't', 'f':
		return false
	case 'n':
		return nil
	}
	return 0.0
}

// countEntries counts those of an array of JSON, up to one more than most; ok is false for what is no array.
func countEntries(list []byte, most int) (n int, ok bool) {
	d := json.NewDecoder(bytes.NewReader(list))
	if begin, err := d.Token(); err != nil || begin != json.Delim('[') {
		return 0, false
	}
	for ; n <= most && d.More(); n++ {
		var skipped json.RawMessage
		if err := d.Decode(&skipped); err != nil {
			return 0, false
		}
	}
	return n, true
}

func (b *body) rebuild(fields map[string]json.RawMessage) []byte {
	var out bytes.Buffer
	for _, name := range b.fields {
		value, ok := fields[name]
		if !ok {
			continue
		}
		out.WriteByte(',')
		fmt.Fprintf(&out, "%q:", name)
		out.Write(value)
	}
	known := out.Bytes()
	if len(known) == 0 {
		return []byte("{}")
	}
	known[0] = '{'
	return append(known, '}')
}

// notAnObject tells a syntax error, with its place, from JSON of another type.
func notAnObject(raw []byte, err error) error {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return invalidBody().At("", "must be an object")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return fault.New(fault.Malformed, "malformed_json", "the body is empty; send a JSON object")
	}
	before := raw[:min(max(int(syntax.Offset)-1, 0), len(raw))]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fault.New(fault.Malformed, "malformed_json", "the body is not JSON: %s at line %d, column %d", syntax.Error(), line, column)
}

func invalidBody() *fault.Error {
	return fault.New(fault.Invalid, "invalid_body", "the body does not fit; see errors")
}
