package cluster

import "time"

// skewLimit is from when on the clocks differ too much.
const skewLimit = 5 * time.Second

// measure compares this node's clock with the database's: half of what the answer took is taken off.
func (c *Cluster) measure(sent, answered, now time.Time) {
	skew := sent.Add(answered.Sub(sent) / 2).Sub(now)
	c.metrics.skew.Set(skew.Seconds())
	skewed := skew.Abs() > skewLimit
	if skewed == c.skewed {
		return
	}
	c.skewed = skewed
	if skewed {
		c.o.Log.Warn("this node's clock and the database's differ: lives, ages and pauses are off by as much; set the clocks by NTP",
			"ahead", skew.Round(time.Millisecond))
		return
	}
	c.o.Log.Info("this node's clock and the database's agree again", "ahead", skew.Round(time.Millisecond))
}
