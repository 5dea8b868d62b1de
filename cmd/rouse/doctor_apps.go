package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"rouse/ident"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
)

const (
	// verifyLimit bounds the questions to a provider about one credential.
	verifyLimit = 11 * time.Second
	// verifyAtOnce is how many credentials are asked about at once: Apple minds many bad ones from one address.
	verifyAtOnce = 8
	// leastAsk is how much time must be left to begin with one: an answer that was cut off would be told as the provider's fault.
	leastAsk = 10 * time.Second
	// expiresSoon is how long before its end a credential is told of.
	expiresSoon = 30 * 24 * time.Hour
	appPage     = 500
	// sealed is the reason of what does not open.
	sealed = "sealed"
)

// tenant is an app as the database has it.
type tenant struct {
	app tokens.App
	// stored is what was found without asking anybody.
	stored []found
	// uses is the providers that it has credentials for, open those that can be used.
	uses []tokens.Provider
	open []tokens.Credential
}

// tenants reads the apps that were asked for. One that cannot be read is a finding of an app without a name.
func (e examination) tenants(ctx context.Context, i *store.Inspection) []tenant {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	apps, err := e.chosen(ctx, i)
	if err != nil {
		return []tenant{{stored: []found{broken("apps", "unreadable", "The apps cannot be read: "+err.Error()+".", "See the findings on the database.")}}}
	}
	if len(apps) == 0 && e.app != "" {
		return []tenant{{stored: []found{broken("apps", "app_not_found", fmt.Sprintf("There is no app with the id or the name %q.", e.app), "rouse apps list tells which there are.")}}}
	}
	if len(apps) == 0 {
		return []tenant{{stored: []found{doubtful("apps", "none", "There is no app yet, so nobody can send.", "rouse apps create makes one.")}}}
	}
	list := make([]tenant, 0, len(apps))
	for _, app := range apps {
		list = append(list, examine(ctx, i, app, time.Now()))
	}
	return list
}

// chosen lists the apps that were asked for.
func (e examination) chosen(ctx context.Context, i *store.Inspection) (apps []tokens.App, err error) {
	var after ident.App
	for {
		page, err := i.Apps(ctx, after, appPage)
		if err != nil {
			return nil, err
		}
		for _, app := range page {
			if e.app == "" || e.app == string(app.ID) || e.app == app.Name {
				apps = append(apps, app)
			}
			after = app.ID
		}
		if len(page) < appPage {
			return apps, nil
		}
	}
}

// examine reads what the database says of an app.
func examine(ctx context.Context, i *store.Inspection, app tokens.App, now time.Time) tenant {
	p := tenant{app: app}
	list, err := i.Credentials(ctx, app.ID)
	if err == nil {
		for _, c := range list {
			p.uses = append(p.uses, c.Provider)
			opened, err := i.Credential(ctx, app.ID, c.Provider)
			p.stored = append(p.stored, credentialFinding(c, err, now))
			if err == nil {
				p.open = append(p.open, opened)
			}
		}
		if len(list) == 0 {
			p.stored = append(p.stored, doubtful("credentials", "no_credentials", "The app has no credential, so no phone of it is woken by a push.", "rouse credentials put gives it one; without, its phones must poll."))
		}
		err = errors.Join(p.circuits(ctx, i, now), p.webhooks(ctx, i), p.identity(ctx, i))
	}
	if err != nil {
		p.stored = append(p.stored, broken("credentials", "unreadable", "What is stored of the app cannot be read: "+err.Error()+".", "See the findings on the database."))
	}
	for n := range p.stored {
		p.stored[n].App, p.stored[n].AppName = string(app.ID), app.Name
	}
	return p
}

// credentialFinding says whether a stored credential opens, and until when it is good; opening is why it does not.
func credentialFinding(c tokens.Credential, opening error, now time.Time) found {
	check := string(c.Provider) + "_credential"
	end := c.ExpiresAt
	switch {
	case opening != nil:
		return broken(check, sealed, "The stored credential does not open with the master keys at hand, so nothing can be pushed with it.",
			"Give the master key that sealed it (see master_keys); if that is lost, put the credential again.")
	case end.IsZero():
		return fine(check, "The credential opens, and it has no end.")
	case !now.Before(end):
		return broken(check, "expired", fmt.Sprintf("The credential ran out on %s.", at(end)), "Make a new one in the Apple developer account and put it.")
	case end.Sub(now) < expiresSoon:
		return doubtful(check, "expires_soon", fmt.Sprintf("The credential runs out on %s, %s.", at(end), until(end, now)),
			"Make a new one in the Apple developer account and put it before that day.")
	}
	return fine(check, "The credential opens, and it is good until %s.", at(end))
}

// until says in how many whole days an end comes.
func until(end, now time.Time) string {
	switch days := int(end.Sub(now) / (24 * time.Hour)); {
	case days == 0 && end.UTC().YearDay() == now.UTC().YearDay():
		return "today"
	case days == 0:
		return "tomorrow"
	case days == 1:
		return "in 1 day"
	default:
		return fmt.Sprintf("in %d days", days)
	}
}

// gatherSealed makes one finding of all credentials that do not open: with the wrong master keys none does.
func gatherSealed(tenants []tenant) []tenant {
	credentials, apps := 0, 0
	for n, p := range tenants {
		before := len(p.stored)
		p.stored = slices.DeleteFunc(p.stored, func(f found) bool { return f.Reason == sealed })
		if shut := before - len(p.stored); shut > 0 {
			credentials, apps = credentials+shut, apps+1
		}
		tenants[n] = p
	}
	if credentials == 0 {
		return tenants
	}
	one := broken("credentials", sealed, fmt.Sprintf("%s of %s cannot be opened with the master keys at hand, so nothing can be pushed with them.",
		counted(credentials, "credential"), counted(apps, "app")), "Do what the finding on master_keys says; if the key that sealed them is lost, put the credentials again.")
	return append([]tenant{{stored: []found{one}}}, tenants...)
}

// counted writes a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// circuits adds a finding for each way to phones that is not as it should be, or that all are.
func (p *tenant) circuits(ctx context.Context, i *store.Inspection, now time.Time) error {
	list, err := i.Circuits(ctx, p.app.ID)
	if err != nil {
		return err
	}
	for _, c := range list {
		f := circuitFinding(c, now)
		if c.Cause == tokens.CauseMassDeath {
			if states, err := i.TokenStates(ctx, p.app.ID, c.Provider); err == nil {
				f.Cause += " " + tokenCount(states)
			}
		}
		p.stored = append(p.stored, f)
	}
	if len(list) == 0 && len(p.uses) > 0 {
		p.stored = append(p.stored, fine("circuits", "No way to the app's phones is held back."))
	}
	return nil
}

// tokenCount writes how many tokens are in which state.
func tokenCount(states map[tokens.TokenState]int) string {
	total := 0
	for _, n := range states {
		total += n
	}
	return fmt.Sprintf("Of the %d devices registered there, %d have a good token, %d one in doubt and %d a dead one.",
		total, states[tokens.TokenActive], states[tokens.TokenSuspect], states[tokens.TokenDead])
}

// carriers is what the providers are called.
var carriers = map[tokens.Provider]string{tokens.APNs: "Apple", tokens.FCM: "Google"}

// wayOf names an outlet in words.
func wayOf(o tokens.Outlet) string {
	who := carriers[o.Provider]
	if o.Environment != "" {
		who += " (" + string(o.Environment) + ")"
	}
	switch o.Onward {
	case tokens.OnwardApple:
		who += ", for devices that it reaches through Apple,"
	case tokens.OnwardWeb:
		who += ", for browsers,"
	}
	return who
}

// circuitFinding says why a way to phones is not as it should be, until when, and what opens it.
func circuitFinding(c tokens.Circuit, now time.Time) found {
	words := []string{string(c.Provider)}
	for _, w := range []string{string(c.Environment), string(c.Onward)} {
		if w != "" {
			words = append(words, w)
		}
	}
	check := strings.Join(words, "_") + "_circuit"
	since, next := at(c.OpenedAt), nextTry(c, now)
	put := "rouse credentials put " + string(c.Provider)
	switch {
	case c.Cause == tokens.CauseCredential && c.Reason == "no_credentials":
		return broken(check, c.Reason, fmt.Sprintf("Devices of the app are registered for %s, and it has no credential there since %s.", carriers[c.Provider], since), put+" gives it one, and wakes what waits.")
	case c.Cause == tokens.CauseCredential && c.Onward == tokens.OnwardApple:
		return broken(check, c.Reason, fmt.Sprintf("%s refuses the pushes since %s; %s.", wayOf(c.Outlet), since, next),
			"Upload the APNs key of the app to its Firebase project (Cloud Messaging, Apple app configuration), then "+put+".")
	case c.Cause == tokens.CauseCredential:
		return broken(check, c.Reason, fmt.Sprintf("%s refuses the app's credential since %s; %s.", wayOf(c.Outlet), since, next),
			"What the provider says when asked is among these findings; put the right credential with "+put+", which tries again at once.")
	case c.Cause == tokens.CauseThrottled && c.Reason == "TooManyProviderTokenUpdates":
		return doubtful(check, c.Reason, fmt.Sprintf("%s saw too many new provider tokens of the app's team since %s; %s.", wayOf(c.Outlet), since, next),
			"It passes by itself; if it happens again, see who else signs with the team's keys, and how often servers start or verify.")
	case c.Cause == tokens.CauseThrottled:
		return doubtful(check, c.Reason, fmt.Sprintf("%s asks the app to slow down since %s; %s.", wayOf(c.Outlet), since, next),
			"It passes by itself; if it comes often, send fewer messages or have the quota raised.")
	case c.Cause == tokens.CauseMassDeath && c.State == tokens.CircuitWatching:
		return doubtful(check, c.Reason, fmt.Sprintf("Since %s too many tokens were refused by %s at once to be believed; pushes flow again, and no token is given up yet.", since, carriers[c.Provider]),
			"Nothing, if pushes are accepted again; else see that the credential is of this app, its project and its environment.")
	case c.Cause == tokens.CauseMassDeath:
		return broken(check, c.Reason, fmt.Sprintf("Since %s too many tokens were refused by %s at once to be believed; none is given up, and %s.", since, carriers[c.Provider], next),
			"See that the credential is of this app, its project and its environment, then "+put+".")
	}
	return doubtful(check, c.Reason, fmt.Sprintf("%s is %s since %s; %s.", wayOf(c.Outlet), c.State, since, next), "See docs/operations.md, Circuits.")
}

// nextTry says when a push is tried next.
func nextTry(c tokens.Circuit, now time.Time) string {
	if now.Before(c.RetryAt) {
		return "nothing is sent before " + at(c.RetryAt)
	}
	return "one push at a time is tried"
}

// examineApps asks the providers about the credentials that open, and returns all findings on apps, in the order of the tenants.
func (e examination) examineApps(ctx context.Context, tenants []tenant) (all []found) {
	asked := make([][][]found, len(tenants))
	turns := make(chan struct{}, verifyAtOnce)
	var wg sync.WaitGroup
	for n, p := range tenants {
		asked[n] = make([][]found, len(p.open))
		if e.offline {
			continue
		}
		for k, c := range p.open {
			wg.Go(func() { asked[n][k] = e.verified(ctx, turns, p.app, c) })
		}
	}
	wg.Wait()
	for n, p := range tenants {
		all = append(all, p.stored...)
		for _, answer := range asked[n] {
			all = append(all, answer...)
		}
	}
	return all
}

// verified asks a provider about a credential once it is this one's turn.
func (e examination) verified(ctx context.Context, turns chan struct{}, app tokens.App, c tokens.Credential) (all []found) {
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-ctx.Done():
	}
	var list []providers.Finding
	if end, limited := ctx.Deadline(); ctx.Err() != nil || limited && time.Until(end) < leastAsk {
		list = append(list, doubtful(string(c.Provider)+"_verify", "not_asked", "There was no time left to ask "+carriers[c.Provider]+" about the credential.",
			"Look at this app alone: rouse doctor --app "+string(app.ID)+".").Finding)
	} else {
		ctx, cancel := context.WithTimeout(ctx, verifyLimit)
		defer cancel()
		list = verify(ctx, e.open, c)
	}
	for _, f := range list {
		all = append(all, found{App: string(app.ID), AppName: app.Name, Finding: f})
	}
	return all
}
