package providers

import "fmt"

// Unanswered is the finding of a check that got no answer of the provider's, for an Outcome's reason. whom is Apple or Google,
// host where it was asked.
func Unanswered(check, whom, host, reason string) Finding {
	f := Finding{Check: check, Status: FindingFail, Reason: reason}
	switch reason {
	case "connect_failed":
		f.Cause = fmt.Sprintf("%s could not be asked: there is no connection to %s.", whom, host)
		f.Cure = "Check DNS, firewall and routing of this server, and the endpoint in its settings."
	case "connect_timeout":
		f.Cause = fmt.Sprintf("%s could not be asked: connecting to %s took too long.", whom, host)
		f.Cure = "Check that a firewall lets this server connect to it, and the endpoint in its settings."
	case "untrusted_certificate":
		f.Cause = fmt.Sprintf("%s could not be asked: the certificate that %s shows is not trusted; somebody stands in between, or the configured CA is wrong.", whom, host)
		f.Cure = "Take the proxy that opens TLS out of the way, or put right the CA in this server's settings; check its clock, too."
	case "timeout", "token_timeout":
		f.Cause = fmt.Sprintf("%s could not be asked: %s took the connection and gave no answer in time.", whom, host)
		f.Cure = "Try again in a few minutes; if it stays so, look for a proxy or firewall in between."
	default:
		f.Cause = fmt.Sprintf("%s could not be asked: %s gave no usable answer (%s).", whom, host, reason)
		f.Cure = fmt.Sprintf("Try again in a few minutes; %s may have trouble of its own.", whom)
	}
	return f
}
