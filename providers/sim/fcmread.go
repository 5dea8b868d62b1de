package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// notJSON begins what FCM says of a body that it cannot read.
const notJSON = "Invalid JSON payload received. "

// violation is a mistake in a message, as google.rpc.BadRequest tells it. Field is
// empty for the message as a whole.
type violation struct {
	Field       string `json:"field,omitempty"`
	Description string `json:"description"`
}

// readMessage decodes strictly: unknown names and values of the wrong type are
// refused, all of them at once. What could be read of a bad body comes back all the same.
func readMessage(body []byte) (*sendBody, *answer) {
	var b sendBody
	if wrong := misfit(body); wrong != "" {
		ans := badForm([]violation{{Description: notJSON + wrong}})
		return &b, &ans
	}
	var f form
	plain := f.read("", bytes.TrimSpace(body), reflect.TypeFor[sendBody]())
	_ = json.Unmarshal(plain, &b) // what does not fit is among f.wrong
	if len(f.wrong) == 0 {
		return &b, nil
	}
	ans := badForm(f.wrong)
	return &b, &ans
}

// misfit says why a body is not one JSON object; empty if it is.
func misfit(body []byte) string {
	var whole json.RawMessage
	err := json.Unmarshal(body, &whole)
	at := (*json.SyntaxError)(nil)
	switch {
	case cutShort(body):
		return "The body ends before the JSON value does."
	case errors.As(err, &at):
		return fmt.Sprintf("Unexpected character at byte %d.", at.Offset)
	case err != nil || !isObject(body):
		return "The root must be an object."
	}
	return ""
}

// cutShort reports whether a body ends before its JSON value does.
func cutShort(body []byte) bool {
	var value json.RawMessage
	err := json.NewDecoder(bytes.NewReader(body)).Decode(&value)
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// form reads a body by the names and types of sendBody.
type form struct{ wrong []violation }

// read checks a value at path and returns it with the names that Go's decoder wants.
func (f *form) read(path string, value json.RawMessage, want reflect.Type) json.RawMessage {
	if string(value) == "null" {
		return value
	}
	switch want.Kind() {
	case reflect.Pointer:
		return f.read(path, value, want.Elem())
	case reflect.Struct, reflect.Map:
		if f.fits(path, value, "{", "an object") {
			return f.readMembers(path, value, want)
		}
	case reflect.String:
		f.fits(path, value, `"`, "a string")
	case reflect.Bool:
		f.fits(path, value, "tf", "true or false")
	default: // read by the phone alone
	}
	return value
}

// fits reports whether a value begins as its type does, and notes it if not.
func (f *form) fits(path string, value json.RawMessage, begins, needed string) bool {
	if strings.IndexByte(begins, value[0]) >= 0 {
		return true
	}
	f.wrong = append(f.wrong, violation{path, fmt.Sprintf("Invalid value at '%s': it must be %s, not %s", path, needed, excerpt(value))})
	return false
}

// readMembers reads an object: of a map every value, of a struct those it names.
// Names may be snake_case or camelCase, as at Google.
func (f *form) readMembers(path string, value json.RawMessage, want reflect.Type) json.RawMessage {
	var object map[string]json.RawMessage
	_ = json.Unmarshal(value, &object) // an object: fits has looked
	fields := fieldsOf(want)
	read := make(map[string]json.RawMessage, len(object))
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if want.Kind() == reflect.Map {
			read[name] = f.read(path, object[name], want.Elem())
			continue
		}
		snake := capital.ReplaceAllStringFunc(name, func(c string) string { return "_" + strings.ToLower(c) })
		if inner, known := fields[snake]; known {
			read[snake] = f.read(strings.TrimPrefix(path+"."+snake, "."), object[name], inner)
			continue
		}
		f.wrong = append(f.wrong, unknownName(path, name))
	}
	plain, _ := json.Marshal(read) // raw JSON under names that are text
	return plain
}

func unknownName(path, name string) violation {
	where := ""
	if path != "" {
		where = fmt.Sprintf(" at '%s'", path)
	}
	return violation{path, fmt.Sprintf("%sUnknown name %q%s: there is no such field.", notJSON, name, where)}
}

// fieldsOf are the types of a struct's fields by their JSON names; of anything else none.
func fieldsOf(of reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	if of.Kind() != reflect.Struct {
		return fields
	}
	for i := range of.NumField() {
		fields[of.Field(i).Tag.Get("json")] = of.Field(i).Type
	}
	return fields
}
