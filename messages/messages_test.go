package messages_test

import (
	"strings"
	"testing"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

const (
	phone = ident.Device("dev_06h0be35dpuar3je4p15tgeq7g")
	other = ident.Device("dev_06h0be35dpuar3je4p15tgeq7h")
)

func TestCursors(t *testing.T) {
	t.Parallel()
	for _, seq := range []messages.Seq{0, 1, 4711, 1<<63 - 1} {
		c := messages.NewCursor(phone, seq)
		if got, err := messages.ParseCursor(phone, string(c)); err != nil || got != seq {
			t.Errorf("%d came back as %d, %v", seq, got, err)
		}
		if _, err := messages.ParseCursor(other, string(c)); err != messages.ErrBadCursor {
			t.Errorf("another device's cursor: %v", err)
		}
		for i := range c {
			for _, x := range "Ab0_=/ " {
				typo := string(c[:i]) + string(x) + string(c[i+1:])
				if got, err := messages.ParseCursor(phone, typo); err == nil && typo != string(c) {
					t.Errorf("%q passes, as %d", typo, got)
				}
			}
		}
		for _, x := range []string{"\n", "\r", "\r\n"} { // base64 skips them
			for i := range len(c) + 1 {
				if _, err := messages.ParseCursor(phone, string(c[:i])+x+string(c[i:])); err != messages.ErrBadCursor {
					t.Errorf("%q passes at %d: %v", x, i, err)
				}
			}
		}
		if strings.Trim(string(c), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Errorf("%q needs escaping in a query", c)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add(string(phone), string(messages.NewCursor(phone, 1)))
	f.Add(string(other), "")
	f.Add(string(phone), string(messages.NewCursor(phone, 1))+"\n")
	f.Fuzz(func(t *testing.T, device, raw string) {
		seq, err := messages.ParseCursor(ident.Device(device), raw)
		if err != nil {
			if err != messages.ErrBadCursor || seq != 0 {
				t.Fatalf("%d %v", seq, err)
			}
			return
		}
		if seq < 0 || string(messages.NewCursor(ident.Device(device), seq)) != raw {
			t.Fatalf("%q is a second spelling of %d", raw, seq)
		}
	})
}

func send(change func(*messages.Send)) messages.Send {
	s := messages.Send{To: messages.Target{Device: phone}, Data: []byte("1"), TTL: time.Hour, CreatedAt: time.Unix(0, 0)}
	if change != nil {
		change(&s)
	}
	return s
}

func TestNewMessage(t *testing.T) {
	t.Parallel()
	s, err := messages.New(send(nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ident.ParseMessage(string(s.ID)); err != nil {
		t.Errorf("id %q: %v", s.ID, err)
	}
	if !s.ExpiresAt().Equal(time.Unix(3600, 0)) {
		t.Errorf("expires at %s", s.ExpiresAt())
	}
	full := strings.Repeat("x", messages.MaxData)
	for name, c := range map[string]struct {
		change  func(*messages.Send)
		pointer string
	}{
		"everything at its limit": {func(s *messages.Send) {
			s.Data, s.TTL = []byte(full), messages.MaxTTL
			s.To = messages.Target{User: strings.Repeat("u", messages.MaxUser)}
			s.CollapseKey, s.CorrelationID = strings.Repeat("c", messages.MaxCollapseKey), strings.Repeat("c", messages.MaxCorrelationID)
		}, ""},
		"no life":        {func(s *messages.Send) { s.TTL = 0 }, ""},
		"nobody":         {func(s *messages.Send) { s.To = messages.Target{} }, "/to"},
		"two":            {func(s *messages.Send) { s.To.User = "anna" }, "/to"},
		"long user":      {func(s *messages.Send) { s.To = messages.Target{User: strings.Repeat("u", 257)} }, "/to/user_id"},
		"deep data":      {func(s *messages.Send) { s.Data = nested(messages.MaxDepth + 1) }, "/data"},
		"very deep data": {func(s *messages.Send) { s.Data = nested(30000) }, "/data"},
		"deep objects": {func(s *messages.Send) {
			s.Data = []byte(strings.Repeat(`{"\\\"":[`, 51) + strings.Repeat("]}", 51))
		}, "/data"},
		"data just so deep":   {func(s *messages.Send) { s.Data = nested(messages.MaxDepth) }, ""},
		"wide data":           {func(s *messages.Send) { s.Data = []byte("[" + strings.Repeat("[],{},", 300) + "0]") }, ""},
		"brackets in strings": {func(s *messages.Send) { s.Data = []byte(`["` + strings.Repeat(`\"[{`, 300) + `\\"]`) }, ""},
		"no data":             {func(s *messages.Send) { s.Data = nil }, "/data"},
		"negative life":       {func(s *messages.Send) { s.TTL = -1 }, "/ttl"},
		"long life":           {func(s *messages.Send) { s.TTL = messages.MaxTTL + 1 }, "/ttl"},
		"long collapse key":   {func(s *messages.Send) { s.CollapseKey = strings.Repeat("c", 65) }, "/collapse_key"},
		"long correlation id": {func(s *messages.Send) { s.CorrelationID = strings.Repeat("c", 129) }, "/correlation_id"},
	} {
		_, err := messages.New(send(c.change))
		if c.pointer == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if e := fault.From(err); e == nil || e.Kind != fault.Invalid || len(e.Fields) != 1 || e.Fields[0].Pointer != c.pointer {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = messages.New(send(func(s *messages.Send) { s.Data = []byte(full + "x") }))
	if e := fault.From(err); e.Kind != fault.TooLarge || e.Code != "data_too_large" {
		t.Errorf("large data: %v", err)
	}
}

func nested(depth int) []byte {
	return []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth))
}

func TestUrgency(t *testing.T) {
	t.Parallel()
	for word, c := range map[string]struct {
		u     messages.Urgency
		class messages.Class
	}{
		"very-low": {messages.VeryLow, messages.NoWake}, "low": {messages.Low, messages.NoWake},
		"normal": {messages.Normal, messages.NormalWake}, "high": {messages.High, messages.HighWake},
	} {
		u, err := messages.ParseUrgency(word)
		if err != nil || u != c.u || u.String() != word || u.Class() != c.class {
			t.Errorf("%s: %v %v %v", word, u, u.Class(), err)
		}
	}
	if u, err := messages.ParseUrgency(""); err != nil || u != messages.High {
		t.Errorf("the default is %v, %v", u, err)
	}
	if _, err := messages.ParseUrgency("HIGH"); err == nil {
		t.Error("HIGH passes")
	}
}

func TestStatesAndMarks(t *testing.T) {
	t.Parallel()
	pending := 0
	for _, s := range messages.States() {
		if !s.Final() {
			pending++
		}
	}
	if len(messages.States()) != 8 || pending != 3 {
		t.Errorf("%d states, %d pending", len(messages.States()), pending)
	}
	var m messages.Marks
	m = m.Raise(messages.HighWake, 5).Raise(messages.HighWake, 3).Raise(messages.NormalWake, 9).Raise(messages.NoWake, 100)
	if m.Of(messages.HighWake) != 5 || m.Of(messages.NormalWake) != 9 || m.Of(messages.NoWake) != 0 || m.Max() != 9 {
		t.Errorf("%+v", m)
	}
}

func TestLaddersClimb(t *testing.T) {
	t.Parallel()
	for class, rungs := range map[messages.Class]int{messages.HighWake: 5, messages.NormalWake: 3, messages.NoWake: 0} {
		ladder := class.Ladder()
		if len(ladder) != rungs {
			t.Errorf("class %d has %d rungs", class, len(ladder))
		}
		for i := 1; i < len(ladder); i++ {
			if ladder[i] <= ladder[i-1] {
				t.Errorf("class %d does not climb: %v", class, ladder)
			}
		}
	}
}
