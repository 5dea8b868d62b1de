package bus

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/ident"
	"rouse/messages"
)

// moment is when the batches of these tests are written and read.
var moment = time.UnixMilli(1_790_000_000_123)

// allKinds is a batch with everything a hint can hold.
func allKinds() batch {
	app, until := ident.NewApp(), moment.Add(50*time.Second)
	d := ident.NewDevice()
	return batch{node: "n1", number: 77, lost: true, hints: []messages.Hint{
		{Kind: messages.HintNew, App: app, Device: d, Class: messages.HighWake, Seq: 1 << 40},
		{Kind: messages.HintPolling, App: app, Device: d, Until: until},
		{Kind: messages.HintServed, Device: d, Seq: 3, Parked: true, More: true},
		{Kind: messages.HintSeen, App: ident.NewApp(), Device: d, Seq: 3, Class: messages.NormalWake},
		{Kind: messages.HintIdle, Device: d},
		{Kind: messages.HintAcked, Device: d, Seq: -1},
		{Kind: messages.HintToken, App: app, Device: d},
		{Kind: messages.HintCredential, App: app, Provider: "a provider\nwith =odd %signs ü"},
		{Kind: messages.HintGone, App: "=", Device: d},
		{Kind: messages.HintDue, Device: d, Class: messages.HighWake, Seq: 9, Until: moment.Add(-time.Second), Age: time.Minute},
		{Kind: messages.HintTaken, Device: d, Class: messages.HighWake, Seq: 9, Until: moment},
		{Kind: messages.HintCircuit, App: app, Provider: "fcm"},
		{Kind: messages.HintNodes},
	}}
}

func TestBatchesArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	sent := allKinds()
	payload, taken := sent.encodeAt(notifyLimit, moment)
	if taken != len(sent.hints) {
		t.Fatalf("took %d hints of %d", taken, len(sent.hints))
	}
	got, ok := decodeAt(payload, moment)
	if diff := cmp.Diff(sent, got, cmp.AllowUnexported(batch{})); !ok || diff != "" {
		t.Errorf("decoded %v: %s", ok, diff)
	}
}

func TestTheWireFormStays(t *testing.T) {
	t.Parallel()
	b := batch{node: "n1", number: 40, hints: []messages.Hint{
		{Kind: messages.HintNew, App: "app_1", Device: "dev_1", Class: messages.HighWake, Seq: 37},
		{Kind: messages.HintServed, App: "app_1", Device: "dev_2", Seq: 9, Parked: true, More: true},
		{Kind: messages.HintCredential, App: "app_2", Provider: "apns"},
		{Kind: messages.HintPolling, App: "app_2", Device: "dev_1", Until: moment.Add(1295 * time.Millisecond)},
		{Kind: messages.HintDue, App: "app_2", Device: "dev_1", Class: messages.NormalWake, Seq: 1, Age: 37 * time.Millisecond},
	}}
	want := "1 n1 14\n1 dev_1 app_1 2 11\n3 dev_2 = 0 9 pm\n8  app_2 0 0   apns\n2 dev_1 = 0 0  zz\n10 dev_1 = 1 1    11"
	if got, _ := b.encodeAt(notifyLimit, moment); got != want {
		t.Errorf("the form changed; nodes of two versions speak to each other:\n%q, want\n%q", got, want)
	}
}

// A clock that is ten minutes ahead says how long, not until when.
func TestATimeIsToldToAnotherClock(t *testing.T) {
	t.Parallel()
	ahead := moment.Add(10 * time.Minute)
	for until, want := range map[time.Time]time.Time{
		ahead.Add(50 * time.Second):  moment.Add(50 * time.Second),
		ahead:                        moment,
		ahead.Add(-time.Millisecond): moment.Add(-time.Millisecond),
		ahead.AddDate(1000, 0, 0):    moment.Add(farthest),
		{}:                           {},
	} {
		payload, _ := batch{node: "n1", hints: []messages.Hint{{Kind: messages.HintPolling, Device: "dev_1", Until: until}}}.encodeAt(notifyLimit, ahead)
		got, ok := decodeAt(payload, moment)
		if !ok || len(got.hints) != 1 || !got.hints[0].Until.Equal(want) {
			t.Errorf("%s came as %+v, want %s", until, got.hints, want)
		}
	}
}

func TestPayloadsKeepTheirLimitAndLoseNothing(t *testing.T) {
	t.Parallel()
	b := batch{node: "n1"}
	for range 1000 {
		b.hints = append(b.hints, messages.Hint{Kind: messages.HintNew, App: ident.NewApp(), Device: ident.NewDevice(), Seq: 1 << 50})
	}
	var got []messages.Hint
	for rest := b; len(rest.hints) > 0; {
		payload, taken := rest.encode(notifyLimit)
		if len(payload) > notifyLimit {
			t.Fatalf("a payload of %d bytes", len(payload))
		}
		read, ok := decode(payload)
		if !ok || taken == 0 {
			t.Fatalf("decoded %v, took %d", ok, taken)
		}
		got, rest.hints = append(got, read.hints...), rest.hints[taken:]
	}
	if diff := cmp.Diff(b.hints, got); diff != "" {
		t.Error(diff)
	}
}

func TestAHintTooLargeForAnyPayloadIsPassedOver(t *testing.T) {
	t.Parallel()
	b := batch{node: "n1", hints: []messages.Hint{hint(1), {Kind: messages.HintCredential, Provider: strings.Repeat("x", notifyLimit)}, hint(2)}}
	first, taken := b.encode(notifyLimit)
	b.hints = b.hints[taken:]
	second, taken := b.encode(notifyLimit)
	if taken != len(b.hints) {
		t.Fatalf("%d hints remain", len(b.hints)-taken)
	}
	one, _ := decode(first)
	two, _ := decode(second)
	if diff := cmp.Diff([]messages.Hint{hint(1), hint(2)}, append(one.hints, two.hints...)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsUnknownIsPassedOver(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string][]messages.Hint{
		"1 n 1 lz extra\n1 dev_x app_a 0 1 pz 0 p 0 more": {{Kind: messages.HintNew, App: "app_a", Device: "dev_x", Seq: 1, Parked: true, Until: moment, Provider: "p"}},
		"1 n 1\n99 dev_y app_b 0 1\n1 dev_x = 0 1":        {{Kind: messages.HintNew, App: "app_b", Device: "dev_x", Seq: 1}},
		"1 n 1\n2 dev_x app_b 0 1  1y2p0ij32e8e7":         {{Kind: messages.HintPolling, App: "app_b", Device: "dev_x", Seq: 1, Until: moment.Add(farthest)}},
		"1 n 1\n\n0\nx\n1 dev_x\n1 dev_x = 0 ?":           nil,
	} {
		got, ok := decodeAt(payload, moment)
		if diff := cmp.Diff(want, got.hints); !ok || diff != "" {
			t.Errorf("%q: decoded %v: %s", payload, ok, diff)
		}
	}
	for _, payload := range []string{"", "2 n 1\n1 dev_x = 0 1", "1  1", "1 n", "1 n ?", "{}"} {
		if b, ok := decode(payload); ok {
			t.Errorf("%q was read as %v", payload, b)
		}
	}
}

// FuzzDecode: whatever arrives, what was understood of it can be sent again and is the same.
func FuzzDecode(f *testing.F) {
	payload, _ := allKinds().encode(notifyLimit)
	f.Add(payload)
	f.Add("1 n 1\n99 dev_y app_b 0 1\n1 dev_x = 0 1")
	f.Fuzz(func(t *testing.T, payload string) {
		b, ok := decodeAt(payload, moment)
		if !ok {
			return
		}
		again, taken := b.encodeAt(1<<30, moment)
		got, ok := decodeAt(again, moment)
		if !ok || taken != len(b.hints) {
			t.Fatalf("%q: decoded %v, took %d of %d", again, ok, taken, len(b.hints))
		}
		if diff := cmp.Diff(b, got, cmp.AllowUnexported(batch{})); diff != "" {
			t.Error(diff)
		}
	})
}
