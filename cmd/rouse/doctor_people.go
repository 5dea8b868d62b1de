package main

import (
	"context"
	"errors"
	"fmt"

	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

// webhooks adds a finding for each webhook that does not take what it gets, or that all do.
func (p *tenant) webhooks(ctx context.Context, i *store.Inspection) error {
	list, err := i.Webhooks(ctx, p.app.ID)
	if err != nil {
		return err
	}
	well := 0
	for _, h := range list {
		f := webhookFinding(h)
		if f != nil {
			p.stored = append(p.stored, *f)
		} else if h.DisabledAt.IsZero() {
			well++
		}
	}
	if well > 0 {
		p.stored = append(p.stored, fine("webhooks", "Of the app's webhooks, %d are in use and take what they get.", well))
	}
	return nil
}

// webhookFinding says why a webhook gets no events, nil if it does, or if somebody wants it so. The path of its URL may be a secret, so it goes by its id.
func webhookFinding(h messages.Webhook) *found {
	var f found
	switch {
	case h.DisabledReason == messages.WebhookManual:
		return nil
	case !h.DisabledAt.IsZero():
		f = broken("webhook", h.DisabledReason, fmt.Sprintf("The webhook %s was disabled on %s, because it took nothing for days; its last error: %s.", h.ID, at(h.DisabledAt), orNone(h.LastError)),
			fmt.Sprintf("Mend the receiver, then rouse webhooks test %s, and rouse webhooks set %s --enable: it goes on where it stopped, as far back as events are kept.", h.ID, h.ID))
	case !h.FailingSince.IsZero():
		f = doubtful("webhook", "failing", fmt.Sprintf("The webhook %s takes nothing since %s; its last error: %s.", h.ID, at(h.FailingSince), orNone(h.LastError)),
			fmt.Sprintf("rouse webhooks test %s tries it now. What happens meanwhile waits for it.", h.ID))
	case h.Retrying > 0:
		f = doubtful("webhook", "retrying", fmt.Sprintf("The webhook %s takes events, but not %d of them, which come again; its last error: %s.", h.ID, h.Retrying, orNone(h.LastError)),
			fmt.Sprintf("See in the receiver's log why it refuses them; rouse webhooks show %s tells how it goes on.", h.ID))
	default:
		return nil
	}
	return &f
}

func orNone(words string) string {
	if words == "" {
		return "none"
	}
	return words
}

// identity adds a finding if the app wants user tokens that nobody can check.
func (p *tenant) identity(ctx context.Context, i *store.Inspection) error {
	keys, err := i.IdentityKeys(ctx, p.app.ID)
	switch {
	case errors.Is(err, tokens.ErrSealed):
		return nil // the finding on master_keys says it for everything that is sealed
	case err != nil:
		return err
	case len(keys) == 0 && p.app.Registration == tokens.RegistrationToken:
		p.stored = append(p.stored, broken("identity_keys", "none", "The app registers devices with user tokens alone, and has no key to check them with: no device can register itself.",
			"rouse identity-keys put gives it one; rouse apps set --registration open registers devices without."))
	}
	return nil
}
