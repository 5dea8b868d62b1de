package sim_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rouse/providers/sim"
)

// inFlight is how many requests the benchmarks keep under way.
const inFlight = 500

// BenchmarkAPNs is the loop that provider benchmarks measure against: one
// connection, 500 streams, with and without latency. The processor time is that
// of client and simulator together.
func BenchmarkAPNs(b *testing.B) {
	for name, latency := range map[string]time.Duration{"at_once": 0, "50ms": 50 * time.Millisecond} {
		b.Run(name, func(b *testing.B) {
			s := start(b, sim.Options{})
			key := s.NewAPNsKey(team, keyID)
			bearer := "bearer " + sign(b, key, jwt.SigningMethodES256, keyID, team, time.Now())
			token := s.NewAPNsToken(topic, false)
			client := h2Client(b, s)
			push := func() error {
				r, err := http.NewRequest(http.MethodPost, s.APNsURL()+"/3/device/"+token, strings.NewReader(body))
				if err != nil {
					return err
				}
				r.Header = http.Header{"Authorization": {bearer}, "Apns-Topic": {topic}, "Apns-Push-Type": {"alert"}, "Apns-Priority": {"10"}}
				resp, err := client.Do(r)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				_, err = io.Copy(io.Discard, resp.Body)
				return err
			}
			if err := push(); err != nil { // the first opens the connection alone
				b.Fatal(err)
			}
			s.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Delay: latency}})
			flood(b, push)
			if n := s.Stats().APNs.ConnectionsOpened; n != 1 {
				b.Errorf("%d connections", n)
			}
		})
	}
}

// flood runs b.N pushes, inFlight at a time, and reports rate and processor time.
func flood(b *testing.B, push func() error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	before := processorTime()
	b.ResetTimer()
	for range inFlight {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := push(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
	b.ReportMetric(float64(processorTime()-before)/float64(b.N)/1000, "cpu-us/push")
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
