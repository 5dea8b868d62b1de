package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What Options.Delivery and Settings.Delivery say.
const (
	// DeliveryInstant hands every accepted push to its phone at once.
	DeliveryInstant = "instant"
	// DeliveryReal models what lies between acceptance and the phone.
	DeliveryReal = "real"
)

// Settings are what can be changed while the Sim runs.
type Settings struct {
	// Strict is Options.Strict.
	Strict bool `json:"strict"`
	// Throttle4xx and ThrottleErrors are those of Options.
	Throttle4xx    bool `json:"throttle_4xx"`
	ThrottleErrors int  `json:"throttle_errors"`
	// AccessTokenLife is that of Options. In JSON a string such as "59m59s".
	AccessTokenLife time.Duration `json:"-"`
	// APNsLatency, FCMLatency and TokenLatency are those of Options.
	APNsLatency  Latency `json:"apns_latency"`
	FCMLatency   Latency `json:"fcm_latency"`
	TokenLatency Latency `json:"token_latency"`
	// Delivery is DeliveryInstant or DeliveryReal. Going back to DeliveryInstant hands over all that is held.
	Delivery string `json:"delivery"`
}

// What Options that are 0 or empty mean.
const (
	usualTokenLife      = 3599 * time.Second
	usualThrottleErrors = 100
)

// settings are those that the Sim begins with.
func (o Options) settings() Settings {
	return Settings{
		Strict: o.Strict, Throttle4xx: o.Throttle4xx, ThrottleErrors: o.ThrottleErrors, AccessTokenLife: o.AccessTokenLife,
		APNsLatency: o.APNsLatency, FCMLatency: o.FCMLatency, TokenLatency: o.TokenLatency, Delivery: o.Delivery,
	}.usual()
}

// usual fills in what was left open.
func (c Settings) usual() Settings {
	if c.AccessTokenLife <= 0 {
		c.AccessTokenLife = usualTokenLife
	}
	if c.ThrottleErrors == 0 {
		c.ThrottleErrors = usualThrottleErrors
	}
	if c.Delivery == "" {
		c.Delivery = DeliveryInstant
	}
	return c
}

// check says all that is wrong with the settings.
func (c Settings) check() error {
	var wrong []string
	for name, l := range map[string]Latency{"apns_latency": c.APNsLatency, "fcm_latency": c.FCMLatency, "token_latency": c.TokenLatency} {
		if err := l.check(); err != nil {
			wrong = append(wrong, name+": "+err.Error())
		}
	}
	slices.Sort(wrong)
	if c.ThrottleErrors < 0 {
		wrong = append(wrong, "throttle_errors must not be negative")
	}
	if c.Delivery != DeliveryInstant && c.Delivery != DeliveryReal {
		wrong = append(wrong, fmt.Sprintf("delivery is %q, not instant or real", c.Delivery))
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// latency is the time that a provider usually takes.
func (c *Settings) latency(provider string) Latency {
	switch provider {
	case APNs:
		return c.APNsLatency
	case FCM:
		return c.FCMLatency
	}
	return c.TokenLatency
}

// plainSettings is Settings without its methods.
type plainSettings Settings

// wireSettings is how Settings look in JSON.
type wireSettings struct {
	plainSettings
	AccessTokenLife string `json:"access_token_life"`
}

// MarshalJSON writes AccessTokenLife as a string such as "59m59s".
func (c Settings) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireSettings{plainSettings(c), c.AccessTokenLife.String()})
}

// UnmarshalJSON changes what data names, leaves the rest, and refuses unknown fields.
func (c *Settings) UnmarshalJSON(data []byte) error {
	w := wireSettings{plainSettings(*c), c.AccessTokenLife.String()}
	if err := decodeStrict(data, &w); err != nil {
		return err
	}
	life, err := time.ParseDuration(w.AccessTokenLife)
	if err != nil || life <= 0 {
		return fmt.Errorf("access_token_life is %q, not a duration over 0 such as \"5s\"", w.AccessTokenLife)
	}
	*c = Settings(w.plainSettings)
	c.AccessTokenLife = life
	return nil
}

// Settings returns what is in force.
func (s *Sim) Settings() Settings { return *s.settings.Load() }

// Adjust changes what is in force for requests from now on. The error says all
// that is wrong with the new settings; nothing has changed then.
func (s *Sim) Adjust(c Settings) error {
	c = c.usual()
	if err := c.check(); err != nil {
		return fmt.Errorf("simulator settings: %w", err)
	}
	s.settings.Store(&c)
	s.phones.model(c.Delivery == DeliveryReal)
	return nil
}
