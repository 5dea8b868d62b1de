package worker

import (
	"testing"
	"time"
)

func TestBreaker(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	type step struct {
		n, bad int // answers, bad ones spread among them
		gap    time.Duration
	}
	for name, c := range map[string]struct {
		steps   []step
		tripped bool
	}{
		"too few to judge":                    {[]step{{n: 49, bad: 49}}, false},
		"fifty, all of them":                  {[]step{{n: 50, bad: 50}}, true},
		"a fifth is life":                     {[]step{{n: 50, bad: 10}}, false},
		"more than a fifth is none":           {[]step{{n: 50, bad: 11}}, true},
		"thirty of a hundred":                 {[]step{{n: 100, bad: 30}}, true},
		"spread over hours":                   {[]step{{n: 20, bad: 20, gap: 11 * time.Minute}, {n: 20, bad: 20, gap: 11 * time.Minute}, {n: 20, bad: 20}}, false},
		"a good hour does not hide a bad one": {[]step{{n: 10_000, gap: time.Hour}, {n: 50, bad: 50}}, true},
		"many good ones do":                   {[]step{{n: 10_000, gap: time.Minute}, {n: 50, bad: 50}}, false},
		"it heals when it is as it should be": {[]step{{n: 50, bad: 50, gap: time.Minute}, {n: 50, bad: 5}}, false},
		"it does not heal early":              {[]step{{n: 50, bad: 50, gap: time.Minute}, {n: 49}}, true},
		"nor while it goes on":                {[]step{{n: 50, bad: 50, gap: time.Minute}, {n: 50, bad: 6, gap: 24 * time.Hour}, {n: 49}}, true},
		"nor by waiting":                      {[]step{{n: 50, bad: 50, gap: 1000 * time.Hour}, {n: 1, bad: 1}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b breaker
			now := start
			for _, s := range c.steps {
				for i := range s.n {
					b.note(i*s.bad/s.n != (i+1)*s.bad/s.n, now)
				}
				now = now.Add(s.gap)
			}
			if b.tripped != c.tripped {
				t.Errorf("tripped %v, want %v", b.tripped, c.tripped)
			}
		})
	}
}
