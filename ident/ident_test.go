package ident_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rouse/ident"
)

func TestIDsSortByAgeAndAreOfTheirKind(t *testing.T) {
	t.Parallel()
	var made []string
	for range 1000 {
		made = append(made, string(ident.NewMessage()))
	}
	if !slices.IsSorted(made) {
		t.Error("ids made one after the other do not sort so")
	}
	if len(slices.Compact(slices.Clone(made))) != len(made) {
		t.Error("an id came twice")
	}
	id := string(ident.NewDevice())
	if _, err := ident.ParseDevice(id); err != nil {
		t.Error(err)
	}
	for name, parse := range map[string]func(string) error{
		"app":     func(s string) error { _, err := ident.ParseApp(s); return err },
		"message": func(s string) error { _, err := ident.ParseMessage(s); return err },
		"key":     func(s string) error { _, err := ident.ParseKey(s); return err },
	} {
		if parse(id) == nil {
			t.Errorf("a device's id passes for that of a %s", name)
		}
	}
	for _, bad := range []string{"", "dev_", id[:len(id)-1], id + "0", strings.ToUpper(id), "dev_" + strings.Repeat("w", 26), " " + id[1:]} {
		if _, err := ident.ParseDevice(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
	for made, err := range map[string]error{
		string(ident.NewApp()): second(ident.ParseApp(string(ident.NewApp()))), string(ident.NewKey()): second(ident.ParseKey(string(ident.NewKey()))),
	} {
		if err != nil {
			t.Errorf("%s: %v", made, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzParseDevice(f *testing.F) {
	f.Add(string(ident.NewDevice()))
	f.Add("dev_")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ident.ParseDevice(s)
		if err == nil && (string(id) != s || len(s) != len(ident.DevicePrefix)+ident.Width) || err != nil && id != "" {
			t.Fatalf("%q: %q %v", s, id, err)
		}
	})
}

func TestAnEventTellsWhenItWasMade(t *testing.T) {
	t.Parallel()
	before := time.Now().Truncate(time.Millisecond)
	at, err := ident.NewEvent().Time()
	if err != nil || at.Before(before) || at.After(time.Now()) {
		t.Errorf("made at %v, %v", at, err)
	}
	if _, err := ident.Event("evt_nonsense").Time(); err == nil {
		t.Error("nonsense has a time")
	}
}
