package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"

	"rouse"
)

// document is the contract, in the forms in which it is read and given out. It does not change.
type document struct {
	yaml, json, page []byte
	// policy is the page's Content-Security-Policy: its own style and nothing else.
	policy string
	etag   string
	// tree is the contract as encoding/json would decode it.
	tree map[string]any
	// Operations in the order of the contract.
	Operations []operation
	// bodies are those of operations that take one, by operationId.
	bodies map[string]*body
}

// carried is the contract that this binary carries. All APIs of a process share it: to read it takes some 30 ms of a processor.
var carried = sync.OnceValues(func() (document, error) { return readDocument(rouse.Contract()) })

// operation is one call of the contract.
type operation struct {
	ID     string
	Method string
	Path   string
	// bodySchema is the JSON pointer of its request body's schema, as a URL fragment; empty for none.
	bodySchema string
	node       map[string]any
	shared     []any
}

var methods = []string{"get", "put", "post", "patch", "delete"}

// readDocument prepares all forms of the contract.
func readDocument(contract string) (document, error) {
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(contract), &root); err != nil {
		return document{}, err
	}
	var out bytes.Buffer
	if err := writeJSON(&out, &root); err != nil {
		return document{}, err
	}
	d := document{yaml: []byte(contract), json: out.Bytes()}
	if err := json.Unmarshal(d.json, &d.tree); err != nil {
		return document{}, err
	}
	paths := child(root.Content[0], "paths")
	if paths == nil {
		return document{}, fmt.Errorf("there are no paths")
	}
	for i := 0; i < len(paths.Content); i += 2 {
		d.addPath(paths.Content[i].Value)
	}
	if err := d.render(); err != nil {
		return document{}, err
	}
	var err error
	if d.bodies, err = compileBodies(d); err != nil {
		return document{}, err
	}
	digest := sha256.Sum256(append(slices.Clone(d.yaml), d.page...)) // the page has a style of its own
	d.etag = `"` + hex.EncodeToString(digest[:8]) + `"`
	return d, nil
}

func (d *document) addPath(path string) {
	item := object(object(d.tree, "paths"), path)
	shared, _ := item["parameters"].([]any)
	for _, method := range methods {
		node, ok := item[method].(map[string]any)
		if !ok {
			continue
		}
		op := operation{ID: text(node, "operationId"), Method: strings.ToUpper(method), Path: path, node: node, shared: shared}
		if object(node, "requestBody") != nil {
			op.bodySchema = "#/paths/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(path) +
				"/" + method + "/requestBody/content/application~1json/schema"
		}
		d.Operations = append(d.Operations, op)
	}
}

// writeJSON writes a YAML node as JSON and keeps the order of its fields.
func writeJSON(out *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.DocumentNode:
		return writeJSON(out, n.Content[0])
	case yaml.MappingNode:
		return writeList(out, n, '{', '}')
	case yaml.SequenceNode:
		return writeList(out, n, '[', ']')
	case yaml.ScalarNode:
		return writeScalar(out, n)
	}
	return fmt.Errorf("line %d: this kind of YAML has no JSON", n.Line)
}

func writeList(out *bytes.Buffer, n *yaml.Node, begin, end byte) error {
	out.WriteByte(begin)
	for i, item := range n.Content {
		isKey := n.Kind == yaml.MappingNode && i%2 == 0
		switch {
		case n.Kind == yaml.MappingNode && !isKey:
			out.WriteByte(':')
		case i > 0:
			out.WriteByte(',')
		}
		if isKey { // '200' and on are names, whatever YAML makes of them
			item = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: item.Value}
		}
		if err := writeJSON(out, item); err != nil {
			return err
		}
	}
	out.WriteByte(end)
	return nil
}

func writeScalar(out *bytes.Buffer, n *yaml.Node) error {
	var v any = n.Value
	switch n.ShortTag() {
	case "!!int", "!!float", "!!bool", "!!null":
		if err := n.Decode(&v); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	out.Write(raw)
	return nil
}

func child(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func object(m map[string]any, name string) map[string]any {
	v, _ := m[name].(map[string]any)
	return v
}

func text(m map[string]any, name string) string {
	v, _ := m[name].(string)
	return strings.TrimSpace(v)
}

// serveDocument answers with one form of the contract.
func (a *API) serveDocument(kind string, form func(document) []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Etag", a.document.etag)
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Security-Policy", a.document.policy)
		if slices.Contains(r.Header.Values("If-None-Match"), a.document.etag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		// The client may be gone; there is nobody else to tell.
		_, _ = w.Write(form(a.document))
	}
}

// policyFor allows one inline style and forbids all else.
func policyFor(style string) string {
	digest := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
