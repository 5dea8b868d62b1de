package tokens

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"rouse/fault"
)

// Limits on what a device says of itself, in bytes.
const (
	MaxInstallation = 128
	MaxAppVersion   = 64
	MaxLocale       = 35
)

// CheckRegistration checks r, whose Token is as it came, and returns it with the token in its
// canonical spelling and the environment filled in. Errors are fault.Invalid
// "invalid_registration" with a pointer for each wrong field, and never repeat the token.
func CheckRegistration(r Registration) (Registration, error) {
	var c complaint
	c.code, c.detail = "invalid_registration", "the registration is not acceptable; see errors"
	if n := len(r.Installation); n == 0 || n > MaxInstallation || !isWord(r.Installation) {
		c.at("/installation_id", "1 to 128 printable ASCII characters without spaces")
	}
	switch r.Platform {
	case Android, IOS, MacOS, Web, Other:
	default:
		c.at("/platform", "one of android, ios, macos, web, other")
	}
	switch {
	case r.Provider != FCM && r.Provider != APNs && r.Provider != NoProvider:
		c.at("/provider", "one of fcm, apns, none")
	case r.Provider == APNs && r.Platform != IOS && r.Platform != MacOS:
		c.at("/provider", "apns wakes ios and macos only")
	default:
		r.Token = c.token(r.Provider, r.Token)
	}
	r.Environment = c.environment(r.Provider, r.Environment)
	c.facts(&r.AppVersion, &r.Locale)
	return r, c.fault()
}

// CheckPatch checks a change to a device of the provider, whose Token is as it came, and returns it
// with the token in its canonical spelling. Errors are as CheckRegistration's.
func CheckPatch(provider Provider, p Patch) (Patch, error) {
	var c complaint
	c.code, c.detail = "invalid_registration", "the change is not acceptable; see errors"
	if p.Token != nil {
		token := c.token(provider, *p.Token)
		p.Token = &token
	}
	if p.Environment != nil {
		if p.Token == nil {
			c.at("/environment", "send it together with the token it belongs to")
		}
		environment := c.environment(provider, *p.Environment)
		p.Environment = &environment
	}
	c.facts(p.AppVersion, p.Locale)
	return p, c.fault()
}

// complaint gathers what is wrong with a body.
type complaint struct {
	code, detail string
	err          *fault.Error
}

func (c *complaint) at(pointer, detail string) {
	if c.err == nil {
		c.err = fault.New(fault.Invalid, c.code, "%s", c.detail)
	}
	c.err = c.err.At(pointer, detail)
}

func (c *complaint) fault() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

// token accepts no token: an app may get it only later.
func (c *complaint) token(p Provider, raw Token) Token {
	if raw == "" {
		return ""
	}
	token, err := ParseToken(p, string(raw))
	if err != nil {
		c.at("/token", err.Error())
	}
	return token
}

func (c *complaint) environment(p Provider, e Environment) Environment {
	switch {
	case p == APNs && e == "":
		return Production
	case p == APNs && e != Production && e != Sandbox:
		c.at("/environment", "production or sandbox")
	case p != APNs && e != "":
		c.at("/environment", "only devices of provider apns have one; leave it out")
	}
	return e
}

func (c *complaint) facts(version, locale *string) {
	if version != nil && (len(*version) > MaxAppVersion || hasControl(*version)) {
		c.at("/app_version", "at most 64 bytes without control characters")
	}
	if locale != nil && (len(*locale) > MaxLocale || *locale != "" && !isWord(*locale)) {
		c.at("/locale", "a BCP 47 tag such as de-AT, at most 35 characters")
	}
}

// isWord reports whether s is printable ASCII without spaces.
func isWord(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// hasControl finds controls, those that turn the direction of a text too: what is shown of it would be another text.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) })
}

// CheckUser checks an app's own id of a user. The error is fault.Invalid "invalid_user".
func CheckUser(user string) error {
	const most = 256 // as UserForm says
	if user == "" || len(user) > most || hasControl(user) || !utf8.ValidString(user) {
		return fault.New(fault.Invalid, "invalid_user", "a user id is %s", UserForm)
	}
	return nil
}
