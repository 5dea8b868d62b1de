package store

import (
	"context"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
)

func BenchmarkWriter(b *testing.B) {
	s := openFile(b, "", func(o *Options) { o.InboxMessages = 1 << 30; o.InboxBytes = 1 << 40 })
	stop := start(b, s)
	app, _ := populate(b, s)
	var devices []ident.Device
	for range 2000 {
		devices = append(devices, another(b, s, app))
	}
	s.connection(b)("synchronous = off")
	var ta, ts, tw time.Duration
	n := 0
	for b.Loop() {
		k := (n * 64) % (2000 - 64)
		ds := devices[k : k+64]
		ops := acceptEach(app, ds)
		t0 := time.Now()
		inOneBatch(b, s, ops)
		ta += time.Since(t0)
		t0 = time.Now()
		for _, d := range ds {
			s.Waiting(context.Background(), d, time.Now())
		}
		tw += time.Since(t0)
		ops = settleEach(b, s, ds)
		t0 = time.Now()
		inOneBatch(b, s, ops)
		ts += time.Since(t0)
		n++
	}
	b.ReportMetric(float64(ta.Nanoseconds())/float64(n*64), "ns/accept")
	b.ReportMetric(float64(tw.Nanoseconds())/float64(n*64), "ns/waiting")
	b.ReportMetric(float64(ts.Nanoseconds())/float64(n*64), "ns/settle")
	stop()
	_ = messages.Seq(0)
}
