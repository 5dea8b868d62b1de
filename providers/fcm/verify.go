package fcm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"rouse/providers"
)

// verifyLimit bounds a verification.
const verifyLimit = 9 * time.Second

// The checks of Verify.
const (
	checkAccess = "fcm_access_token"
	checkSend   = "fcm_send"
)

// nobody is a token of no device, and plainly none.
const nobody = "rouse-verify"

// Verify asks Google whether it takes the credential, within 9 seconds: it fetches an access token and sends one message that
// is only validated, to a token of nobody; a refusal of that token means yes. The findings are called fcm_access_token and,
// if there is one, fcm_send.
func (c *Client) Verify(ctx context.Context) []providers.Finding {
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	if _, _, err := c.access.token(ctx); err != nil {
		return []providers.Finding{c.noAccess(ofAccess(err))}
	}
	return []providers.Finding{
		{Check: checkAccess, Status: providers.FindingOK, Cause: "Google gives access tokens for the service account."},
		c.ask(ctx),
	}
}

// ask sends to nobody, and once more if the connection or an old access token was at fault.
func (c *Client) ask(ctx context.Context) providers.Finding {
	a, out := c.tryOut(ctx)
	if out.Verdict == providers.ConnectionLost {
		a, out = c.tryOut(ctx)
	}
	return c.finding(a, out)
}

// tryOut sends one message that is only validated.
func (c *Client) tryOut(ctx context.Context) (answer, providers.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	now := time.Now()
	rec := &record{}
	_, _ = c.sdk.SendDryRun(rec.in(ctx), message(providers.Push{Token: nobody, Kind: providers.Background, ExpiresAt: now}, c.placeholder, now))
	return read(rec.reply.Status, rec.reply.Body), c.judge(rec, "")
}

func finding(check string, status providers.FindingStatus, reason, cause, cure string) providers.Finding {
	return providers.Finding{Check: check, Status: status, Reason: reason, Cause: cause, Cure: cure}
}

// noAccess puts into words why there is no access token.
func (c *Client) noAccess(e *accessError) providers.Finding {
	const anew = "Make a new key under Project settings, Service accounts in the Firebase console, and put the credential again."
	switch {
	case e.bad && e.skew.Abs() >= minSkew:
		return finding(checkAccess, providers.FindingFail, e.reason,
			fmt.Sprintf("Google refuses the service account's signature (%s), and this server's clock is %s of Google's.", e.reason, apart(e.skew)), "Set the clock, best by NTP.")
	case e.bad && e.reason == "invalid_grant":
		return finding(checkAccess, providers.FindingFail, e.reason, "Google does not take the service account's key: the key or the account was deleted or disabled.", anew)
	case e.bad:
		return finding(checkAccess, providers.FindingFail, e.reason, fmt.Sprintf("Google refuses the service account (%s).", e.reason), anew)
	}
	reason := e.reason
	if e.way != "" {
		reason = e.way
	}
	return providers.Unanswered(checkAccess, "Google", c.tokenHost, reason)
}

// apart says how far off a clock is.
func apart(skew time.Duration) string {
	side := "ahead"
	if skew < 0 {
		side = "behind"
	}
	return fmt.Sprintf("%v %s", skew.Abs().Round(time.Second), side)
}

// finding puts the answer to the message into words.
func (c *Client) finding(a answer, out providers.Outcome) providers.Finding {
	taken := a.known || a.name != ""
	switch {
	case out.Verdict == providers.Accepted, out.Verdict == providers.TokenSuspect, out.Verdict == providers.TokenDead:
		return finding(checkSend, providers.FindingOK, "", fmt.Sprintf("Google's FCM takes messages for the project %s.", c.project), "")
	case out.Verdict == providers.CredentialBad:
		cause, cure := c.refused(out.Reason)
		return finding(checkSend, providers.FindingFail, out.Reason, cause, cure)
	case out.Verdict == providers.AppThrottled, out.Verdict == providers.DeviceThrottled:
		return finding(checkSend, providers.FindingWarn, out.Reason, "Google took the credential, and says that the project sends too much for now.",
			"Wait a few minutes; if it stays so, look at the FCM quota of the project in the Google Cloud console.")
	case taken && a.status == 404:
		return finding(checkSend, providers.FindingFail, out.Reason, fmt.Sprintf("Google knows no project %s.", c.project),
			"Check that the Firebase project was not deleted, and put a key of the one the app belongs to.")
	case out.Verdict == providers.Rejected && taken:
		return finding(checkSend, providers.FindingWarn, out.Reason, fmt.Sprintf("Google took the credential, and refused the test message itself (%s).", out.Reason), "Send a real push and look at its timeline.")
	case a.status != 0 && !taken && a.status < 500:
		return finding(checkSend, providers.FindingFail, out.Reason, fmt.Sprintf("%s answered, but not as Google does (%s).", c.host, out.Reason),
			"Check the endpoint in this server's settings, and whether a proxy answers in Google's place.")
	}
	return providers.Unanswered(checkSend, "Google", c.host, out.Reason)
}

// refused says why Google refuses a credential, and what helps.
func (c *Client) refused(reason string) (cause, cure string) {
	switch {
	case reason == "SERVICE_DISABLED":
		return fmt.Sprintf("The Firebase Cloud Messaging API is switched off in the project %s.", c.project),
			"Switch on fcm.googleapis.com under APIs & Services in the Google Cloud console, and wait a few minutes."
	case reason == "UNAUTHENTICATED" || strings.HasPrefix(reason, "http_401"):
		return "Google gives an access token and refuses it twice at FCM.", "Check that the service account is enabled, make a new key for it, and put the credential again."
	case reason == "PERMISSION_DENIED" || reason == "IAM_PERMISSION_DENIED":
		return fmt.Sprintf("The service account may not send messages for the project %s.", c.project),
			"Give it the role Firebase Cloud Messaging API Admin in the Google Cloud console, or put a key of the project's own account."
	default:
		return fmt.Sprintf("Google refuses to send for the project %s (%s).", c.project, reason), "Look at the project and its billing in the Google Cloud console."
	}
}
