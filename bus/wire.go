package bus

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// A batch travels as lines of text, so that PostgreSQL can carry it. The first is the head,
//
//	1 <node> <number> <marks>
//
// and each further one a hint,
//
//	<kind> <device> <app> <class> <seq> <marks> <until> <provider> <age>
//
// numbers in base 36, `=` for the app of the line before, empty fields at the end left out. Marks are letters: `l` in the
// head says that hints were lost before these, `p` and `m` of a hint are Parked and More. Age is milliseconds, Until milliseconds from the
// moment of writing, and counts from the moment of reading: clocks of nodes may differ by minutes. A node passes over the
// versions, kinds, marks and fields it does not know: another version of Rouse may speak beside it.
const wireVersion = "1"

// farthest bounds how far from now a time may lie that is told.
const farthest = 366 * 24 * time.Hour

// batch is what one node tells the others at once. Its hints may be none: then it shows that the node is there.
type batch struct {
	// node names the sending process, number counts its batches: a number left out is a batch that was lost.
	node   string
	number uint64
	// lost says that the sender itself had to drop hints before these.
	lost  bool
	hints []messages.Hint
}

// encode writes as many of the hints as limit has room for, and returns how many those are. One that would not fit
// alone is passed over.
func (b batch) encode(limit int) (payload string, taken int) { return b.encodeAt(limit, time.Now()) }

// encodeAt is encode at a moment of the sender's clock.
func (b batch) encodeAt(limit int, now time.Time) (payload string, taken int) {
	var w strings.Builder
	w.WriteString(wireVersion + " " + b.node + " " + strconv.FormatUint(b.number, 36))
	if b.lost {
		w.WriteString(" l")
	}
	head := w.Len()
	var app ident.App
	for i, h := range b.hints {
		line := encodeHint(h, app, now)
		if w.Len()+len(line) > limit {
			if w.Len() > head {
				return w.String(), i
			}
			continue
		}
		w.WriteString(line)
		app = h.App
	}
	return w.String(), len(b.hints)
}

func encodeHint(h messages.Hint, before ident.App, now time.Time) string {
	app := url.QueryEscape(string(h.App))
	if h.App == before {
		app = "="
	}
	marks, until := "", ""
	if h.Parked {
		marks += "p"
	}
	if h.More {
		marks += "m"
	}
	if !h.Until.IsZero() {
		until = strconv.FormatInt(bounded(h.Until.Sub(now)).Milliseconds(), 36)
	}
	age := ""
	if h.Age != 0 {
		age = strconv.FormatInt(bounded(h.Age).Milliseconds(), 36)
	}
	line := strings.Join([]string{strconv.Itoa(int(h.Kind)), url.QueryEscape(string(h.Device)), app, strconv.Itoa(int(h.Class)),
		strconv.FormatInt(int64(h.Seq), 36), marks, until, url.QueryEscape(h.Provider), age}, " ")
	return "\n" + strings.TrimRight(line, " ")
}

// bounded is d, as far as a time may be told.
func bounded(d time.Duration) time.Duration { return max(-farthest, min(d, farthest)) }

// decode reads a batch; false if it is of a version this node does not know, or no batch at all.
func decode(payload string) (batch, bool) { return decodeAt(payload, time.Now()) }

// decodeAt is decode at a moment of the receiver's clock.
func decodeAt(payload string, now time.Time) (batch, bool) {
	head, rest, _ := strings.Cut(payload, "\n")
	f := fields(head, 4)
	if f[0] != wireVersion || f[1] == "" {
		return batch{}, false
	}
	number, err := strconv.ParseUint(f[2], 36, 64)
	if err != nil {
		return batch{}, false
	}
	b := batch{node: f[1], number: number, lost: strings.Contains(f[3], "l")}
	var app ident.App
	for line := range strings.SplitSeq(rest, "\n") {
		h, ok := decodeHint(line, app, now)
		if ok {
			b.hints = append(b.hints, h)
		}
		app = h.App
	}
	return b, true
}

// decodeHint reads one line; not ok passes it over. The app is read whatever the kind is, as the next line may refer to it.
func decodeHint(line string, before ident.App, now time.Time) (h messages.Hint, ok bool) {
	f := fields(line, 9)
	if h.App = before; f[2] != "=" {
		h.App = ident.App(unescape(f[2]))
	}
	kind, err := strconv.ParseUint(f[0], 10, 8)
	if err != nil || !messages.HintKind(kind).Known() {
		return h, false
	}
	h.Kind, h.Device, h.Provider = messages.HintKind(kind), ident.Device(unescape(f[1])), unescape(f[7])
	class, err := strconv.ParseInt(f[3], 10, 8)
	if err != nil {
		return h, false
	}
	seq, err := strconv.ParseInt(f[4], 36, 64)
	if err != nil {
		return h, false
	}
	h.Class, h.Seq = messages.Class(class), messages.Seq(seq)
	h.Parked, h.More = strings.Contains(f[5], "p"), strings.Contains(f[5], "m")
	if until, told := span(f[6]); told {
		h.Until = now.Add(until)
	}
	h.Age, _ = span(f[8])
	return h, true
}

// span reads milliseconds; false if there are none.
func span(s string) (time.Duration, bool) {
	n, err := strconv.ParseInt(s, 36, 64)
	if err != nil {
		return 0, false
	}
	return time.Duration(max(-farthest.Milliseconds(), min(n, farthest.Milliseconds()))) * time.Millisecond, true
}

// fields splits a line into at least n fields, the missing ones empty.
func fields(line string, n int) []string {
	f := strings.Split(line, " ")
	for len(f) < n {
		f = append(f, "")
	}
	return f
}

// unescape reads a name; one that was written wrongly is no name we know.
func unescape(s string) string {
	name, err := url.QueryUnescape(s)
	if err != nil {
		return ""
	}
	return name
}
