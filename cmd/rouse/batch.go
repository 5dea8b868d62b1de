package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"rouse/client"
)

// ndjson is a document of JSON a line.
const ndjson = "application/x-ndjson"

// progressPause is how often the progress of a batch is told.
const progressPause = 2 * time.Second

// batch sends the messages of a file in one stream, and reads what became of each while it sends.
func (c *sendCmd) batch(ctx context.Context, term *terminal) error {
	if c.Text != "" || c.At != "" || c.Title != "" || c.Body != "" || c.CollapseKey != "" || c.CorrelationID != "" || c.Count != nil {
		return mistake("--batch takes each message as its line has it; of the other flags only --idempotency-key goes with it")
	}
	in, err := term.open(c.Batch)
	if err != nil {
		return fmt.Errorf("reading the messages: %w", err)
	}
	defer func() { _ = in.Close() }()
	api, err := c.client(term)
	if err != nil {
		return err
	}
	// No limit on the time it takes: however many there are, and however long the file's other end thinks.
	api.Client = &http.Client{}
	b := &bulk{output: c.output, term: term, key: c.IdempotencyKey}
	if b.key == "" {
		b.key = "cli-" + strings.ToLower(rand.Text())
	}
	err = b.send(ctx, api, in)
	b.sum()
	return err
}

// bulk is one stream of messages and of what became of them.
type bulk struct {
	output
	term *terminal
	key  string

	mu sync.Mutex
	// sent counts messages, lines are the numbers in the file of those whose result is still to come. Who writes the stream writes both.
	sent  int
	lines []int
	// stored and refused count results; who reads them writes both.
	stored, refused int
}

// send streams the messages and returns an error unless each of them was stored.
func (b *bulk) send(ctx context.Context, api *client.Client, in io.Reader) error {
	telling, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	fed := make(chan error, 1)
	// Nobody waits for it: it may be blocked in standard input for ever, and ends with the process.
	go func() {
		err := b.feed(in, w)
		_ = w.Close() // also after an error, so that what was read is stored and answered
		fed <- err
	}()
	var owned sync.WaitGroup
	owned.Go(func() { b.progress(telling) })
	err := b.exchange(ctx, api, r)
	_ = r.Close() // whatever is still being fed is not wanted
	cancel()
	owned.Wait()
	select {
	case file := <-fed:
		return b.verdict(err, file)
	default:
		return b.verdict(err, nil)
	}
}

// exchange makes the call and reads the results.
func (b *bulk) exchange(ctx context.Context, api *client.Client, body io.Reader) error {
	res, err := api.SendMessagesWithBody(ctx, &client.SendMessagesParams{IdempotencyKey: &b.key}, ndjson, body)
	if err != nil {
		return unreached(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		return client.Check(res, text)
	}
	results := json.NewDecoder(res.Body)
	for {
		var r client.MessageBatchResult
		if err := results.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the answer broke off: %w", err)
		}
		if err := b.result(r); err != nil {
			return err
		}
	}
}

// feed copies the messages into the stream, without empty lines.
func (b *bulk) feed(in io.Reader, out io.Writer) error {
	from := bufio.NewReaderSize(in, 64<<10)
	for number := 1; ; number++ {
		line, err := from.ReadBytes('\n')
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return fmt.Errorf("reading the messages: %w", err)
		}
		line = bytes.TrimSpace(line)
		if len(line) > 0 && !b.write(out, append(line, '\n'), number) || last {
			return nil
		}
	}
}

// write sends one message; false if nobody takes it any more, and whoever stopped knows why.
func (b *bulk) write(out io.Writer, line []byte, number int) bool {
	b.mu.Lock()
	b.sent++
	b.lines = append(b.lines, number) // before it is sent: its result may come at once
	b.mu.Unlock()
	_, err := out.Write(line)
	return err == nil
}

// lineResult is what became of a line of the file, the first of which is 1.
type lineResult struct {
	Line int `json:"line"`
	client.MessageBatchResult
}

// result counts what became of a message, and shows it: in JSON each, in words what was refused.
func (b *bulk) result(r client.MessageBatchResult) error {
	b.mu.Lock()
	number := 0
	if len(b.lines) > 0 {
		number, b.lines = b.lines[0], b.lines[1:]
	}
	refused := r.Message == nil
	if refused {
		b.refused++
	} else {
		b.stored++
	}
	b.mu.Unlock()
	switch {
	case b.Output == "json":
		return lines(b.term.out, []lineResult{{number, r}})
	case refused:
		fmt.Fprintf(harmless{b.term.out}, "line %d: %s\n", number, new(terminal).refusal(r.Error)) // of a line, not of flags
	}
	return nil
}

// progress tells how far it is, now and then, until ctx ends.
func (b *bulk) progress(ctx context.Context) {
	tick := time.NewTicker(progressPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.mu.Lock()
			sent, stored, refused := b.sent, b.stored, b.refused
			b.mu.Unlock()
			fmt.Fprintf(b.term.err, "%d sent, %d stored, %d refused\n", sent, stored, refused)
		case <-ctx.Done():
			return
		}
	}
}

// sum tells the end. In JSON the results are all there is.
func (b *bulk) sum() {
	out := b.term.out
	if b.Output == "json" {
		out = b.term.err
	}
	fmt.Fprintf(out, "%d stored, %d refused\n", b.stored, b.refused)
}

// verdict is why not all is well: the call failed, the file did, the answer ended early, or something was refused.
func (b *bulk) verdict(call, file error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	open := len(b.lines)
	var refusal *client.Error
	switch {
	case errors.As(call, &refusal) && b.stored+b.refused == 0:
		return fmt.Errorf("sending the batch: %w", call)
	case call != nil && open == 0:
		return fmt.Errorf("sending the batch: %w; what was sent is answered, and to go on send all again with --idempotency-key %s, which stores none twice", call, b.key)
	case open > 0:
		if call == nil {
			call = errors.New("the answer ended early")
		}
		return fmt.Errorf("sending the batch: %w; of %d messages nobody knows whether they were stored: send all again with --idempotency-key %s, which stores none twice", call, open, b.key)
	case file != nil:
		return fmt.Errorf("%w; what came before it was sent", file)
	case b.refused > 0:
		return fmt.Errorf("%d of %d messages were refused", b.refused, b.sent)
	}
	return nil
}
