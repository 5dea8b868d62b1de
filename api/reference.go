package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"regexp"
	"slices"
	"strings"
)

// The reference page is made once, at start: no script runs in the reader's browser, and nothing is
// fetched from elsewhere.

//go:embed reference.html
var referenceHTML string

//go:embed reference.css
var referenceCSS string

// refPage is what the template shows.
type refPage struct {
	Style   template.CSS
	Title   string
	Version string
	About   template.HTML
	Groups  []refGroup
	Schemas []refSchema
}

type refGroup struct {
	Name  string
	About template.HTML
	Calls []refCall
}

type refCall struct {
	ID, Method, Path, Summary string
	About                     template.HTML
	Keys                      []string
	Parameters                []refField
	Body                      string
	Example                   string
	Answers                   []refAnswer
}

type refAnswer struct {
	Status string
	About  template.HTML
	Schema string
}

type refSchema struct {
	Name   string
	About  template.HTML
	Fields []refField
}

type refField struct {
	Name, In, Type string
	Required       bool
	About          template.HTML
	// Schema is the name of the schema it is or holds; empty for none.
	Schema string
}

// render makes the page and its policy.
func (d *document) render() error {
	info := object(d.tree, "info")
	page := refPage{Style: template.CSS(referenceCSS), Title: text(info, "title"), Version: text(info, "version"), About: prose(text(info, "description"))} //nolint:gosec // our own stylesheet, embedded
	tags, _ := d.tree["tags"].([]any)
	for _, t := range tags {
		tag, _ := t.(map[string]any)
		group := refGroup{Name: text(tag, "name"), About: prose(text(tag, "description"))}
		for _, op := range d.Operations {
			if list, _ := op.node["tags"].([]any); slices.Contains(list, any(group.Name)) {
				group.Calls = append(group.Calls, d.call(op))
			}
		}
		page.Groups = append(page.Groups, group)
	}
	schemas := object(object(d.tree, "components"), "schemas")
	for _, name := range sortedNames(schemas) {
		schema := object(schemas, name)
		page.Schemas = append(page.Schemas, refSchema{Name: name, About: d.about(schema), Fields: d.fields(schema)})
	}
	tmpl, err := template.New("reference").Parse(referenceHTML)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := tmpl.Execute(&out, page); err != nil {
		return err
	}
	d.page, d.policy = out.Bytes(), policyFor(referenceCSS)
	return nil
}

func (d *document) call(op operation) refCall {
	c := refCall{ID: op.ID, Method: op.Method, Path: op.Path, Summary: text(op.node, "summary"), About: prose(text(op.node, "description"))}
	if list, ok := op.node["security"].([]any); ok {
		for _, s := range list {
			c.Keys = append(c.Keys, sortedNames(s.(map[string]any))...)
		}
	}
	own, _ := op.node["parameters"].([]any)
	for _, p := range append(slices.Clone(op.shared), own...) {
		parameter := d.resolve(p)
		schema := d.resolve(parameter["schema"])
		required, _ := parameter["required"].(bool)
		c.Parameters = append(c.Parameters, refField{
			Name: text(parameter, "name"), In: text(parameter, "in"), Type: d.typeOf(schema), Required: required, About: prose(text(parameter, "description")),
		})
	}
	media := object(object(object(op.node, "requestBody"), "content"), "application/json")
	c.Body = nameOf(media["schema"])
	c.Example = exampleOf(media)
	answers := object(op.node, "responses")
	for _, status := range sortedNames(answers) {
		answer := d.resolve(answers[status])
		a := refAnswer{Status: status, About: prose(text(answer, "description"))}
		for _, m := range object(answer, "content") {
			a.Schema = nameOf(m.(map[string]any)["schema"])
		}
		c.Answers = append(c.Answers, a)
	}
	return c
}

func (d *document) fields(schema map[string]any) []refField {
	required, _ := schema["required"].([]any)
	properties := object(schema, "properties")
	var fields []refField
	for _, name := range sortedNames(properties) {
		property := object(properties, name)
		held := nameOf(property)
		for _, holder := range []string{"items", "additionalProperties"} {
			if held == "" {
				held = nameOf(property[holder])
			}
		}
		fields = append(fields, refField{
			Name: name, Type: d.typeOf(property), Required: slices.Contains(required, any(name)), About: d.about(property), Schema: held,
		})
	}
	return fields
}

func (d *document) about(schema map[string]any) template.HTML {
	return prose(text(schema, "description"))
}

// typeOf says a schema's type and bounds in few words.
func (d *document) typeOf(schema map[string]any) string {
	schema = d.resolve(schema)
	words := []string{text(schema, "type")}
	if words[0] == "" {
		words[0] = "any JSON"
	}
	if format := text(schema, "format"); format != "" {
		words = append(words, format)
	}
	if list, ok := schema["enum"].([]any); ok {
		words = append(words, "one of "+strings.Trim(fmt.Sprint(list), "[]"))
	}
	for _, bound := range []struct{ name, say string }{
		{"minimum", "at least %v"}, {"maximum", "at most %v"}, {"minLength", "%v characters or more"},
		{"maxLength", "%v characters or fewer"}, {"maxItems", "%v entries or fewer"}, {"default", "default %v"},
	} {
		if v, ok := schema[bound.name]; ok {
			if f, isNumber := v.(float64); isNumber {
				v = int64(f)
			}
			words = append(words, fmt.Sprintf(bound.say, v))
		}
	}
	return strings.Join(words, ", ")
}

// resolve follows one reference within the document.
func (d *document) resolve(v any) map[string]any {
	m, _ := v.(map[string]any)
	ref, ok := m["$ref"].(string)
	if !ok {
		return m
	}
	at := d.tree
	for _, name := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		at = object(at, name)
	}
	return at
}

func nameOf(v any) string {
	m, _ := v.(map[string]any)
	ref, _ := m["$ref"].(string)
	return strings.TrimPrefix(ref, "#/components/schemas/")
}

func exampleOf(media map[string]any) string {
	example, ok := media["example"]
	for _, name := range sortedNames(object(media, "examples")) {
		if !ok {
			example, ok = object(object(media, "examples"), name)["value"], true
		}
	}
	if !ok {
		return ""
	}
	raw, err := json.MarshalIndent(example, "", "  ")
	if err != nil {
		return ""
	}
	return string(raw)
}

func sortedNames(m map[string]any) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var (
	codeSpan = regexp.MustCompile("`([^`]*)`")
	strong   = regexp.MustCompile(`\*\*([^*]+)\*\*`)
)

// prose turns the little Markdown the contract uses into HTML: paragraphs, code and bold.
func prose(s string) template.HTML {
	var out strings.Builder
	for _, paragraph := range strings.Split(s, "\n\n") {
		if strings.TrimSpace(paragraph) == "" {
			continue
		}
		safe := html.EscapeString(paragraph)
		safe = codeSpan.ReplaceAllString(safe, "<code>$1</code>")
		safe = strong.ReplaceAllString(safe, "<strong>$1</strong>")
		out.WriteString("<p>" + safe + "</p>")
	}
	return template.HTML(out.String()) //nolint:gosec // escaped above
}
