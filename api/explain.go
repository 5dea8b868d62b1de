package api

import (
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"rouse/fault"
)

// mostFields bounds the list of what is wrong with one body.
const mostFields = 20

// explain turns a schema's complaint into pointers and sentences. The sentences never
// repeat a value: it may be a token or a private key.
func explain(err error) error {
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return fault.New(fault.Internal, "internal", "something went wrong on our side").Because(err)
	}
	e := invalidBody()
	for _, leaf := range leaves(invalid) {
		for _, f := range fieldsOf(leaf) {
			if len(e.Fields) < mostFields {
				e = e.At(f.Pointer, f.Detail)
			}
		}
	}
	return e
}

func leaves(v *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(v.Causes) == 0 {
		return []*jsonschema.ValidationError{v}
	}
	var all []*jsonschema.ValidationError
	for _, cause := range v.Causes {
		all = append(all, leaves(cause)...)
	}
	return all
}

func fieldsOf(v *jsonschema.ValidationError) []fault.Field {
	at := pointerTo(v.InstanceLocation...)
	var fields []fault.Field
	switch k := v.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			fields = append(fields, fault.Field{Pointer: at + pointerTo(name), Detail: "is required"})
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			fields = append(fields, fault.Field{Pointer: at + pointerTo(name), Detail: "is not a field of this call; is it misspelt?"})
		}
	default:
		fields = []fault.Field{{Pointer: at, Detail: sentence(k)}}
	}
	return fields
}

// sentence says what a value must be.
func sentence(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return "must be of type " + strings.Join(k.Want, " or ")
	case *kind.Enum:
		return "must be one of " + strings.Trim(fmt.Sprint(k.Want), "[]")
	case *kind.Format:
		return "must be a time with its zone, such as 2030-01-02T08:00:00Z"
	case *kind.Pattern:
		return "must match " + k.Want
	case *kind.MinLength:
		return fmt.Sprintf("must have at least %d characters", k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("must have at most %d characters", k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("must have at least %d entries", k.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %d entries", k.Want)
	case *kind.MinProperties:
		return fmt.Sprintf("must have at least %d fields", k.Want)
	case *kind.MaxProperties:
		return fmt.Sprintf("must have at most %d fields", k.Want)
	case *kind.Minimum:
		return "must be at least " + whole(k.Want)
	case *kind.Maximum:
		return "must be at most " + whole(k.Want)
	case *kind.UniqueItems:
		return "must not repeat an entry"
	default:
		return "is not as the contract says"
	}
}

func whole(r *big.Rat) string { return strings.TrimSuffix(r.FloatString(0), ".") }

// pointerTo writes an RFC 6901 pointer. A name may come from the client: one that is long, or begins like a
// key, may be a secret in the wrong place, and is not repeated.
func pointerTo(names ...string) string {
	const most = 40
	var b strings.Builder
	for _, name := range names {
		if len(name) > most || looksLikeKey(name) {
			name = "..."
		}
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
	}
	return b.String()
}
