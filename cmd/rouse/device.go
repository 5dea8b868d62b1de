package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"rouse/client"
	"rouse/providers/sim"
)

type deviceCmd struct {
	Provider string   `enum:"apns,fcm,none" default:"fcm" help:"Who wakes it: apns (an iPhone), fcm (an Android phone) or none (it waits on a long poll)."`
	Name     string   `help:"The phone's name; the same name is the same phone. Left out, the provider's."`
	User     string   `help:"Bind it to a user of the demo app."`
	Topic    []string `help:"Subscribe it to a topic. Several: again, or with commas."`
	Report   string   `enum:",displayed,opened,dismissed" default:"" placeholder:"WORD" help:"Report this of each message: displayed, opened or dismissed."`
}

// Run is a phone until ctx ends.
func (c *deviceCmd) Run(ctx context.Context, term *terminal) error {
	if c.Name == "" {
		c.Name = c.Provider
	}
	if strings.ContainsAny(c.Name, `/\.`) {
		return mistake("--name is %q; it must be good for a file's name", c.Name)
	}
	p, err := term.profile()
	if err != nil {
		return err
	}
	h := &handset{term: term, profile: p, radio: newRadio(p.ControlURL), provider: c.Provider, told: c.Report, user: c.User, topics: c.Topic}
	if h.file, err = p.loadPhone(c.Name); err != nil {
		return err
	}
	if h.file.Provider != "" && h.file.Provider != c.Provider {
		return mistake("the phone %q is of provider %s; give the new one another --name", c.Name, h.file.Provider)
	}
	if err = h.live(ctx); ctx.Err() == nil {
		return err
	}
	fmt.Fprintln(term.out, "switched off")
	return nil
}

// handset is a phone in a terminal: it remembers who it is in a file.
type handset struct {
	term     *terminal
	profile  profile
	radio    *radio
	provider string
	file     phoneFile
	phone    *phone
	// user and topics are whose it shall be and what it shall subscribe to; settled says that it did.
	user    string
	topics  []string
	settled bool
	// heard is the number of the last push of the token.
	heard int
	// demoted says that the last push of high priority came with less.
	demoted bool
	// told is what the phone reports of each message, empty for nothing.
	told string
}

// live switches the phone on, and then sleeps and wakes until ctx ends.
func (h *handset) live(ctx context.Context) error {
	if err := h.switchOn(ctx); err != nil {
		return err
	}
	if h.provider == "none" {
		return h.poll(ctx)
	}
	if err := h.fetch(ctx, time.Time{}); err != nil {
		return err
	}
	return h.sleep(ctx)
}

// switchOn makes the server know the phone, whose it is and its topics; one that it forgot becomes all that anew.
func (h *handset) switchOn(ctx context.Context) error {
	if err := h.register(ctx); err != nil || h.settled {
		return err
	}
	if h.user != "" {
		if err := h.bind(ctx, h.user); err != nil {
			return err
		}
	}
	err := h.join(ctx, h.topics)
	h.settled = err == nil
	return err
}

// register registers the phone, or refreshes the token of one that registered before.
func (h *handset) register(ctx context.Context) (err error) {
	if err := h.tune(ctx); err != nil {
		return err
	}
	if h.file.Device != "" {
		if err := h.returnHome(ctx); err == nil || !isGone(err) {
			return err
		}
		h.say("the server no longer knows this phone: it was unregistered, or its user was erased. It registers anew")
		h.settled = false
		defer func() {
			if err == nil && h.user == "" {
				h.say("belongs to nobody; --user USER binds it to a user")
			}
		}()
	}
	h.file.Installation = "terminal-" + strings.ToLower(rand.Text())
	h.phone, err = enrol(ctx, enrolment{
		url: h.profile.URL, publishableKey: h.profile.PublishableKey,
		installation: h.file.Installation, provider: h.provider, token: h.file.Token,
	})
	if err != nil {
		return err
	}
	h.file.Device, h.file.Secret, h.file.Provider = h.phone.device, h.phone.secret, h.provider
	h.say("registered as %s, provider %s", h.phone.device, h.provider)
	return h.save()
}

// tune makes sure that the provider knows the phone's token; a simulator that was restarted does not.
func (h *handset) tune(ctx context.Context) error {
	if h.provider == "none" {
		return nil
	}
	if h.file.Token != "" {
		pushes, err := h.radio.pushes(ctx, h.file.Token, 0, 0)
		if err == nil && len(pushes) > 0 {
			h.heard = pushes[len(pushes)-1].N
		}
		if !errors.Is(err, errUnknownToken) {
			return err
		}
	}
	token, err := h.radio.token(ctx, h.provider, h.profile)
	h.file.Token, h.heard = token, 0
	return err
}

// returnHome is a known phone that tells the server its token of now.
func (h *handset) returnHome(ctx context.Context) (err error) {
	if h.phone, err = knownPhone(h.profile.URL, h.file.Device, h.file.Secret); err != nil {
		return err
	}
	if h.provider != "none" {
		if err := h.phone.refresh(ctx, h.file.Token); err != nil {
			return err
		}
	}
	known, err := answer[client.Device](h.phone.api.GetOwnDevice(ctx))
	if err != nil {
		return err
	}
	h.say("back as %s, provider %s: it is the phone %q, registered before; another --name makes another", h.file.Device, h.provider, h.file.Name)
	if known.UserId != nil && *known.UserId != "" && h.user == "" {
		h.say("belongs to user %s, as before", *known.UserId)
	}
	return h.save()
}

func (h *handset) save() error {
	h.file.UsedAt = time.Now()
	return h.profile.savePhone(h.file)
}

// bind does what the app's backend would do after a login.
func (h *handset) bind(ctx context.Context, user string) error {
	backend, err := newClient(h.profile.URL, h.profile.SecretKey)
	if err != nil {
		return err
	}
	if _, err := answer[nothing](backend.BindUserDevice(ctx, user, h.phone.device)); err != nil {
		return fmt.Errorf("binding the phone to %s: %w", user, err)
	}
	h.say("belongs to user %s", user)
	return nil
}

// join subscribes the phone to topics, as the app on it does with the phone's own key.
func (h *handset) join(ctx context.Context, topics []string) error {
	for _, topic := range topics {
		if _, err := answer[nothing](h.phone.api.SubscribeOwnTopic(ctx, topic)); err != nil {
			return fmt.Errorf("subscribing to %s: %w", topic, err)
		}
		h.say("subscribed to %s", topic)
	}
	return nil
}

// patience is how long the phone waits before it tries again what did not answer.
const patience = time.Second

// sleepWait is how long one listening call lasts, in seconds.
const sleepWait = 50

// sleep waits for pushes and handles each, until ctx ends. A server or simulator that is away is waited for.
func (h *handset) sleep(ctx context.Context) error {
	h.say("asleep; Ctrl-C switches it off")
	away := false
	for ctx.Err() == nil {
		err := h.turn(ctx, away)
		switch {
		case ctx.Err() != nil:
		case err == nil && away:
			h.say("the server is back")
			away = false
		case err != nil:
			if !away {
				h.say("%v; trying again", err)
				away = true
			}
			wait(ctx, patience)
		}
	}
	return ctx.Err()
}

// turn is one nap. After trouble it is a short one, behind which the server itself is asked, so that it shows at once when all is well again.
func (h *handset) turn(ctx context.Context, trouble bool) error {
	held := sleepWait
	if trouble {
		held = 0
	}
	err := h.nap(ctx, held)
	if err == nil && trouble {
		_, err = answer[client.Device](h.phone.api.GetOwnDevice(ctx))
	}
	if errors.Is(err, errUnknownToken) || isGone(err) {
		err = h.switchOn(ctx)
	}
	return err
}

// nap is one listening call of so many seconds, and the waking up if a push came.
func (h *handset) nap(ctx context.Context, held int) error {
	pushes, err := h.radio.pushes(ctx, h.file.Token, h.heard, held)
	if err != nil {
		return err
	}
	for _, push := range pushes {
		h.say("woken: %s push%s, %d bytes", push.Kind, demotion(push), len(push.Body))
		if err := h.fetch(ctx, push.At); err != nil {
			return err
		}
		// Only now: if the fetch failed, the push is heard again.
		h.heard = push.N
		h.report(ctx, push)
	}
	return nil
}

// demotion is what to say of a push that Google demoted.
func demotion(push sim.Delivered) string {
	if push.Demoted {
		return " (sent as high, and demoted)"
	}
	return ""
}

// report tells the server of a demoted push, and of the first one after it that came as it was sent. One that does not get
// through is no loss: the next one tells the same.
func (h *handset) report(ctx context.Context, push sim.Delivered) {
	if push.Provider != sim.FCM || !push.Demoted && (!h.demoted || push.Kind != "high") {
		return
	}
	if err := h.phone.reportPush(ctx, push.Demoted); err != nil {
		h.say("the server was not told how the push arrived: %v", err)
		return
	}
	h.demoted = push.Demoted
	h.say("told the server how it arrived")
}

// fetch reads and acks everything that waits. pushed is when the push came, zero if none did.
func (h *handset) fetch(ctx context.Context, pushed time.Time) error {
	n, err := h.phone.empty(ctx, func(m fetched) {
		h.show(m, pushed)
		h.receipt(ctx, m.Id)
	})
	if err != nil {
		return fmt.Errorf("fetching: %w", err)
	}
	if n == 0 {
		h.say("nothing waits")
	} else {
		h.say("%d fetched and acked; asleep again", n)
	}
	return nil
}

// poll is a phone without a provider: it waits on its long poll until ctx ends.
func (h *handset) poll(ctx context.Context) error {
	h.say("waiting on its long poll; Ctrl-C switches it off")
	for {
		err := h.phone.receive(ctx,
			func(m fetched) {
				h.show(m, time.Time{})
				h.receipt(ctx, m.Id)
			},
			func(err error) { h.outlast(ctx, err) })
		if ctx.Err() != nil || !isGone(err) {
			return err
		}
		if err := h.switchOn(ctx); err != nil {
			return err
		}
		wait(ctx, patience) // were it forgotten again and again
	}
}

// outlast tells of trouble once and waits until the server answers again, or ctx ends. A parked
// poll would notice only when a message comes, or after a minute.
func (h *handset) outlast(ctx context.Context, trouble error) {
	if ctx.Err() != nil {
		return
	}
	h.say("%v; trying again", trouble)
	for ctx.Err() == nil {
		wait(ctx, patience)
		_, err := answer[client.Device](h.phone.api.GetOwnDevice(ctx))
		if err == nil {
			h.say("the server is back")
		}
		var refused *client.Error
		if err == nil || errors.As(err, &refused) && !refused.Temporary() {
			return // a refusal is for the poll to meet and to end with
		}
	}
}

// show prints a message and how long each part of its way took.
func (h *handset) show(m fetched, pushed time.Time) {
	way := fmt.Sprintf("accepted -> here %s", ms(m.at.Sub(m.CreatedAt)))
	if !pushed.IsZero() && pushed.After(m.CreatedAt) {
		way = fmt.Sprintf("accepted -> push %s, push -> fetched %s", ms(pushed.Sub(m.CreatedAt)), ms(m.at.Sub(pushed)))
	}
	h.say("%s  %s  (%s, attempt %d)", m.Id, m.Data, way, m.Attempt)
}

// receipt reports what the user did with a message, if the phone was told to. One that does not get through is lost, as an app may lose it.
func (h *handset) receipt(ctx context.Context, id string) {
	if h.told == "" {
		return
	}
	body := client.Receipts{Receipts: []client.ReceiptReport{{MessageId: id, Event: client.ReceiptReportEvent(h.told)}}}
	if _, err := answer[client.ReceiptsRecorded](h.phone.api.ReportReceipts(ctx, body)); err != nil {
		h.say("%s was not reported: %v", h.told, err)
		return
	}
	h.say("reported %s as %s", id, h.told)
}

func (h *handset) say(format string, args ...any) {
	fmt.Fprintf(h.term.out, "%s  %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
