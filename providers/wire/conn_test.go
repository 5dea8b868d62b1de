package wire

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
)

// unwatched is a connection that nobody is told about.
func unwatched() *watchedConn { return &watchedConn{tell: func(EventKind, string) {}, kick: func() {}} }

// stream is what a server says before it goes away for the reason.
func stream(t testing.TB, debug string) []byte {
	t.Helper()
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	for _, err := range []error{
		fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}),
		fr.WriteSettingsAck(),
		fr.WriteData(1, false, bytes.Repeat([]byte{7}, 300)),
		fr.WriteGoAway(0, http2.ErrCodeNo, []byte(debug)),
		fr.WritePing(false, [8]byte{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestScanFindsGoAwayHoweverItIsCut(t *testing.T) {
	t.Parallel()
	for debug, want := range map[string]string{
		`{"reason":"BadCertificate"}`: "BadCertificate",
		``:                            "",
		`no json`:                     "",
		string(bytes.Repeat([]byte{' '}, 2000)) + `{}`: "",
	} {
		all := stream(t, debug)
		for size := 1; size <= len(all); size += 1 + size/7 {
			w := unwatched()
			for rest := all; len(rest) > 0; {
				n := min(size, len(rest))
				w.scan(rest[:n])
				rest = rest[n:]
			}
			if got := w.goAway.Load(); got == nil || *got != want {
				t.Fatalf("debug %.20q in pieces of %d: got %v, want %q", debug, size, got, want)
			}
		}
	}
	w := unwatched()
	w.scan(stream(t, "")[:300])
	if w.goAway.Load() != nil {
		t.Error("a GOAWAY was seen before it came")
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte{}, 1)
	f.Add([]byte{0xff, 0xff, 0xff, 7, 0, 0, 0, 0, 0, 1}, 3)
	f.Add(stream(f, `{"reason":"x"}`), 5)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if size < 1 {
			return
		}
		whole, cut := unwatched(), unwatched()
		whole.scan(b)
		for len(b) > 0 {
			n := min(size, len(b))
			cut.scan(b[:n])
			b = b[n:]
		}
		one, two := whole.goAway.Load(), cut.goAway.Load()
		if (one == nil) != (two == nil) || one != nil && *one != *two {
			t.Errorf("whole %v, cut %v", one, two)
		}
		if cap(whole.payload) > 2*maxGoAway {
			t.Errorf("kept %d bytes", cap(whole.payload))
		}
	})
}
