package api

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"

	"rouse/fault"
)

// topFields is how many fields a body may have at its top: no call knows as many, and whoever sends a million must not have each of
// them looked at.
const topFields = 100

// split takes an object of JSON apart. Nothing may be named twice, but in what is not looked into here: JSON does not say which of the
// two counts, and who checked the request before may have read the other one.
func (b *body) split(raw []byte) (map[string]json.RawMessage, error) {
	if !json.Valid(raw) {
		var v any
		return nil, notAnObject(raw, json.Unmarshal(raw, &v))
	}
	w := walk{raw: raw}
	if w.peek() != '{' {
		return nil, notAnObject(raw, errors.New("not an object"))
	}
	fields := map[string]json.RawMessage{}
	err := w.each(func(name string) error {
		if _, twice := fields[name]; twice {
			return namedTwice(name)
		}
		if len(fields) == topFields {
			return invalidBody().At("", "must have at most "+strconv.Itoa(topFields)+" fields")
		}
		begin := w.at
		if !b.looksInto(name) {
			w.skip()
		} else if err := w.unique(name); err != nil {
			return err
		}
		fields[name] = raw[begin:w.at]
		return nil
	})
	return fields, err
}

// looksInto reports whether the content of a field is checked with the body.
func (b *body) looksInto(name string) bool {
	_, later := b.lists[name]
	return !later && slices.Contains(b.fields, name) && !slices.Contains(b.opaque, name)
}

func namedTwice(path ...string) *fault.Error {
	return invalidBody().At(pointerTo(path...), "is there twice; give it once")
}

// walk reads JSON that is known to be valid. Its methods but peek begin at a value and end behind it.
type walk struct {
	raw []byte
	at  int
	// path leads to where unique is.
	path []string
}

// peek goes to the next byte that is no space.
func (w *walk) peek() byte {
	for {
		switch c := w.raw[w.at]; c {
		case ' ', '\t', '\r', '\n':
			w.at++
		default:
			return c
		}
	}
}

// each calls do at each value of an object or array. do goes behind it.
func (w *walk) each(do func(name string) error) error {
	object := w.raw[w.at] == '{'
	w.at++
	for i := 0; ; i++ {
		switch w.peek() {
		case '}', ']':
			w.at++
			return nil
		case ',':
			w.at++
			w.peek()
		}
		name := strconv.Itoa(i) // an entry's, unless it has one
		if object {
			name = w.name()
		}
		if err := do(name); err != nil {
			return err
		}
	}
}

// name reads a field's name, and goes to its value.
func (w *walk) name() (name string) {
	begin := w.at
	w.skip()
	_ = json.Unmarshal(w.raw[begin:w.at], &name) // a string of JSON is one of Go
	w.peek()
	w.at++ // the colon
	w.peek()
	return name
}

// unique passes a value, and fails if something in it is named twice; name is the value's own.
func (w *walk) unique(name string) error {
	into := w.unique
	switch w.raw[w.at] {
	case '{':
		seen := map[string]bool{}
		into = func(name string) error {
			if seen[name] {
				return namedTwice(append(w.path, name)...)
			}
			seen[name] = true
			return w.unique(name)
		}
	case '[':
	default:
		w.skip()
		return nil
	}
	w.path = append(w.path, name)
	err := w.each(into)
	w.path = w.path[:len(w.path)-1]
	return err
}

// skip passes a value.
func (w *walk) skip() {
	for depth := 0; ; {
		switch w.peek() {
		case '{', '[':
			depth++
			w.at++
		case '}', ']':
			depth--
			w.at++
		case ',', ':':
			w.at++
		case '"':
			w.text()
		default:
			w.word()
		}
		if depth == 0 {
			return
		}
	}
}

// text passes a string.
func (w *walk) text() {
	for w.at++; w.raw[w.at] != '"'; w.at++ {
		if w.raw[w.at] == '\\' {
			w.at++ // whatever follows is not its end
		}
	}
	w.at++
}

// word passes a number, true, false or null; something always follows.
func (w *walk) word() {
	for {
		switch w.raw[w.at] {
		case ' ', '\t', '\r', '\n', ',', ']', '}':
			return
		}
		w.at++
	}
}
