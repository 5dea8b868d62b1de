package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// listing is how much of a list is wanted.
type listing struct {
	After string `help:"Only what comes behind this cursor, which -o json prints with a page." placeholder:"CURSOR"`
	Limit int    `default:"50" help:"How many at most."`
	All   bool   `help:"All, to the end. With -o json then a line each."`
}

// maxAsk is the most entries that the server gives in one page.
const maxAsk = 100

// list is a list that comes in pages, and how it is shown.
type list[T any] struct {
	listing
	output
	// name is the list's in JSON, none what is said of an empty one, head the columns' names.
	name, none, head string
	// ask reads one page of at most limit entries behind a cursor, nil for the beginning.
	ask  func(ctx context.Context, after *string, limit *int) (page[T], error)
	line func(w io.Writer, item T)
}

// page is one page as the server gave it. It may be empty and still have more behind it.
type page[T any] struct {
	items  []T
	cursor *string
	more   bool
}

// print reads as much as is wanted and shows it: in words, as one document, or, of all, as a line of JSON each.
func (l list[T]) print(ctx context.Context, term *terminal) error {
	if l.Limit < 1 {
		return mistake("--limit is %d; it is 1 or more", l.Limit)
	}
	if l.Output == "json" && !l.All {
		return l.document(ctx, term)
	}
	shown := 0
	rest, err := l.read(ctx, func(items []T) error {
		shown += len(items)
		if l.Output == "json" {
			return lines(term.out, items)
		}
		return l.table(term, items, shown == len(items))
	})
	if err != nil || l.Output == "json" {
		return err
	}
	if shown == 0 && !rest.more {
		fmt.Fprintln(term.out, l.none)
	}
	if rest.more && rest.cursor != nil {
		fmt.Fprintf(term.err, "there are more: --after %s goes on, --all lists them all\n", *rest.cursor)
	}
	return nil
}

// read hands over page by page until there are enough; rest is where it stopped.
func (l list[T]) read(ctx context.Context, each func([]T) error) (rest page[T], err error) {
	if l.After != "" {
		rest.cursor = &l.After
	}
	for left := l.Limit; ; {
		limit := maxAsk
		if !l.All {
			limit = min(left, maxAsk)
		}
		next, err := l.ask(ctx, rest.cursor, &limit)
		if err != nil {
			return rest, err
		}
		if next.cursor == nil {
			next.cursor = rest.cursor
		}
		rest = page[T]{cursor: next.cursor, more: next.more}
		left -= len(next.items)
		if err := each(next.items); err != nil || !next.more || !l.All && left <= 0 {
			return rest, err
		}
	}
}

// document prints what was read as one object of JSON, with the cursor to go on at.
func (l list[T]) document(ctx context.Context, term *terminal) error {
	all := []T{}
	rest, err := l.read(ctx, func(items []T) error {
		all = append(all, items...)
		return nil
	})
	if err != nil {
		return err
	}
	doc := map[string]any{l.name: all, "more": rest.more}
	if rest.cursor != nil {
		doc["cursor"] = *rest.cursor
	}
	return l.output.print(term, doc, nil)
}

func (l list[T]) table(term *terminal, items []T, first bool) error {
	if len(items) == 0 {
		return nil
	}
	w := columns(term.out)
	if first && l.head != "" {
		fmt.Fprintln(w, l.head)
	}
	for _, item := range items {
		l.line(w, item)
	}
	return w.Flush()
}

// lines prints a line of JSON each.
func lines[T any](w io.Writer, items []T) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, item := range items {
		if err := enc.Encode(item); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
	}
	return nil
}

// columns lines up what is parted by tabs, and writes it when it is flushed.
func columns(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(harmless{w}, 0, 0, 2, ' ', 0)
}

// harmless keeps from the terminal what would steer it: names and errors come from phones and strangers.
type harmless struct{ w io.Writer }

// Write writes b with a question mark for each control character but tab and line feed.
func (h harmless) Write(b []byte) (int, error) {
	if _, err := h.w.Write(bytes.Map(withoutControl, b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

func withoutControl(r rune) rune {
	if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
		return '?'
	}
	return r
}
