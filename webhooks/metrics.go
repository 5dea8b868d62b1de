package webhooks

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/messages"
)

type metrics struct {
	posts          *prometheus.CounterVec
	lost, disabled prometheus.Counter
}

func newMetrics(r prometheus.Registerer, p *Poster) (*metrics, error) {
	m := &metrics{
		posts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rouse_webhook_posts_total", Help: "Events posted to webhooks, by result: taken, refused (by a status), unanswered.",
		}, []string{"result"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rouse_webhook_events_given_up_total", Help: "Events that a webhook did not take for " + days(messages.EventPatience) + " while it took others.",
		}),
		disabled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rouse_webhooks_disabled_total", Help: "Webhooks that were disabled because they took nothing for " + days(messages.WebhookPatience) + ", or wanted nothing any more.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, result := range []string{"taken", "refused", "unanswered"} {
		m.posts.WithLabelValues(result) // an alarm sees only a series that is there
	}
	lag := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rouse_webhook_lag_seconds", Help: "Age of the oldest event that waits to be posted in its turn, of the webhook that is furthest behind. 0 on nodes that do not post.",
	}, func() float64 { return p.lag(time.Now()).Seconds() })
	paused := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rouse_webhooks_paused", Help: "Webhooks that are left alone for a while, because they take nothing or asked for it.",
	}, func() float64 { return float64(p.paused()) })
	var errs []error
	for _, c := range []prometheus.Collector{m.posts, m.lost, m.disabled, lag, paused} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// lag is how long the oldest event waits.
func (p *Poster) lag(now time.Time) (longest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.couriers {
		if at := c.oldest.Load(); at != 0 {
			longest = max(longest, now.Sub(time.UnixMilli(at)))
		}
	}
	return longest
}

func (p *Poster) paused() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.couriers {
		if c.paused.Load() {
			n++
		}
	}
	return n
}
