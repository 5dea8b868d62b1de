package bus

import (
	"bytes"
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
	w := make([]byte, 0, min(limit, headRoom+hintRoom*len(b.hints)))
	w = append(w, wireVersion+" "+b.node+" "...)
	w = strconv.AppendUint(w, b.number, 36)
	if b.lost {
		w = append(w, " l"...)
	}
	head := len(w)
	var app ident.App
	for i := range b.hints {
		before := len(w)
		w = appendHint(w, &b.hints[i], app, now)
		if len(w) > limit {
			w = w[:before]
			if before > head {
				return string(w), i
			}
			continue
		}
		app = b.hints[i].App
	}
	return string(w), len(b.hints)
}

// headRoom and hintRoom are about what a head and a hint measure, in bytes.
const (
	headRoom = 64
	hintRoom = 64
)

// appendHint adds a hint's line to w.
func appendHint(w []byte, h *messages.Hint, before ident.App, now time.Time) []byte {
	w = append(w, '\n')
	w = strconv.AppendInt(w, int64(h.Kind), 10)
	w = appendName(append(w, ' '), string(h.Device))
	if w = append(w, ' '); h.App == before {
		w = append(w, '=')
	} else {
		w = appendName(w, string(h.App))
	}
	w = strconv.AppendInt(append(w, ' '), int64(h.Class), 10)
	w = strconv.AppendInt(append(w, ' '), int64(h.Seq), 36)
	w = append(w, ' ')
	if h.Parked {
		w = append(w, 'p')
	}
	if h.More {
		w = append(w, 'm')
	}
	if w = append(w, ' '); !h.Until.IsZero() {
		w = strconv.AppendInt(w, bounded(h.Until.Sub(now)).Milliseconds(), 36)
	}
	w = appendName(append(w, ' '), h.Provider)
	if w = append(w, ' '); h.Age != 0 {
		w = strconv.AppendInt(w, bounded(h.Age).Milliseconds(), 36)
	}
	return bytes.TrimRight(w, " ")
}

// appendName adds a name, escaped where it must be: hardly one is.
func appendName(w []byte, name string) []byte {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '%' || c == '+' || c == '=' {
			return append(w, url.QueryEscape(name)...)
		}
	}
	return append(w, name...)
}

// bounded is d, as far as a time may be told.
func bounded(d time.Duration) time.Duration { return max(-farthest, min(d, farthest)) }

// decode reads a batch; false if it is of a version this node does not know, or no batch at all.
func decode(payload string) (batch, bool) { return decodeAt(payload, time.Now()) }

// decodeAt is decode at a moment of the receiver's clock.
func decodeAt(payload string, now time.Time) (batch, bool) {
	head, rest, _ := strings.Cut(payload, "\n")
	var f [4]string
	fields(head, f[:])
	if f[0] != wireVersion || f[1] == "" {
		return batch{}, false
	}
	number, err := strconv.ParseUint(f[2], 36, 64)
	if err != nil {
		return batch{}, false
	}
	b := batch{node: strings.Clone(f[1]), number: number, lost: strings.Contains(f[3], "l")}
	var app ident.App
	for line := range strings.SplitSeq(rest, "\n") {
		h, ok := decodeHint(line, app, now)
		if ok {
			if b.hints == nil {
				b.hints = make([]messages.Hint, 0, strings.Count(rest, "\n")+1)
			}
			b.hints = append(b.hints, h)
		}
		app = h.App
	}
	return b, true
}

// decodeHint reads one line; not ok passes it over. The app is read whatever the kind is, as the next line may refer to it.
func decodeHint(line string, before ident.App, now time.Time) (h messages.Hint, ok bool) {
	var f [9]string
	fields(line, f[:])
	if h.App = before; f[2] != "=" {
		h.App = ident.App(name(f[2]))
	}
	kind, err := strconv.ParseUint(f[0], 10, 8)
	if err != nil || !messages.HintKind(kind).Known() {
		return h, false
	}
	h.Kind, h.Device, h.Provider = messages.HintKind(kind), ident.Device(name(f[1])), name(f[7])
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
	if s == "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 36, 64)
	if err != nil {
		return 0, false
	}
	return time.Duration(max(-farthest.Milliseconds(), min(n, farthest.Milliseconds()))) * time.Millisecond, true
}

// fields splits a line into as many fields as f has; missing ones are empty, and more are left out.
func fields(line string, f []string) {
	for i := range f {
		f[i], line, _ = strings.Cut(line, " ")
	}
}

// name reads a name; one that was written wrongly is no name we know. It is a copy: whoever remembers it for long
// does not remember the whole payload.
func name(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return strings.Clone(s)
	}
	unescaped, err := url.QueryUnescape(s)
	if err != nil {
		return ""
	}
	return unescaped
}
