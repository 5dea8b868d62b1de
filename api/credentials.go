package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"rouse/api/contract"
	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
)

// PutApnsCredential stores what an app gave us for Apple.
func (n nouns) PutApnsCredential(ctx context.Context, r contract.PutApnsCredentialRequestObject) (contract.PutApnsCredentialResponseObject, error) {
	app, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	upload, err := apnsUpload(*r.Body)
	if err != nil {
		return nil, err
	}
	if upload.ReplacedTeamID, upload.ReplacedKeyID, err = n.replacedIDs(ctx, app); err != nil {
		return nil, err
	}
	credential, err := n.deps.Checker.APNs(upload)
	if err != nil {
		return nil, err
	}
	wire, err := n.putCredential(ctx, app, credential)
	if err != nil {
		return nil, err
	}
	return contract.PutApnsCredential200JSONResponse(wire), nil
}

// apnsUpload reads the body. Whether it is one credential, and one that can be used, is for the checker to say.
func apnsUpload(b contract.ApnsCredentialPut) (providers.APNsUpload, error) {
	u := providers.APNsUpload{
		TeamID: or(b.TeamId), KeyID: or(b.KeyId), PrivateKey: or(b.PrivateKey),
		Certificate: or(b.Certificate), CertificateKey: or(b.CertificateKey), P12Password: or(b.CertificatePassword),
		Topic: b.Topic, Placeholder: placeholderOf(b.Placeholder),
	}
	if b.CertificateP12 == nil {
		if b.CertificatePassword != nil {
			return u, providers.InvalidCredential("APNs").At("/certificate_password", "opens certificate_p12 and nothing else; leave it out")
		}
		return u, nil
	}
	var err error
	if u.P12, err = base64.StdEncoding.DecodeString(*b.CertificateP12); err != nil || len(u.P12) == 0 {
		// The cause is left out: it quotes what it met.
		return u, providers.InvalidCredential("APNs").At("/certificate_p12", "must be the bytes of the .p12 file in base64 (A-Z, a-z, 0-9, + and /, padded with =)")
	}
	return u, nil
}

// replacedIDs returns team and key id of the app's present credential for Apple; both empty if it has none with a key, and if
// Apple refuses it: then it may be the one whose ids are swapped, and proves nothing of the new one's.
func (n nouns) replacedIDs(ctx context.Context, app ident.App) (team, key string, err error) {
	list, err := n.deps.Credentials.Credentials(ctx, app)
	if err != nil {
		return "", "", err
	}
	for _, c := range list {
		if c.Provider != tokens.APNs || c.Failing != "" {
			continue
		}
		wire, err := wireCredential(c)
		if err != nil {
			return "", "", err
		}
		return or(wire.TeamId), or(wire.KeyId), nil
	}
	return "", "", nil
}

// PutFcmCredential stores what an app gave us for Google.
func (n nouns) PutFcmCredential(ctx context.Context, r contract.PutFcmCredentialRequestObject) (contract.PutFcmCredentialResponseObject, error) {
	app, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	credential, err := n.deps.Checker.FCM(providers.FCMUpload{ServiceAccount: r.Body.ServiceAccount, Placeholder: placeholderOf(r.Body.Placeholder)})
	if err != nil {
		return nil, err
	}
	wire, err := n.putCredential(ctx, app, credential)
	if err != nil {
		return nil, err
	}
	return contract.PutFcmCredential200JSONResponse(wire), nil
}

func (n nouns) putCredential(ctx context.Context, app ident.App, c tokens.Credential) (contract.Credential, error) {
	c.App, c.UpdatedAt = app, stamp(time.Now())
	if err := n.deps.Credentials.PutCredential(ctx, c); err != nil {
		return contract.Credential{}, err
	}
	n.hint(messages.Hint{Kind: messages.HintCredential, App: app, Provider: string(c.Provider)})
	return wireCredential(c)
}

// ListCredentials lists an app's credentials without their secrets.
func (n nouns) ListCredentials(ctx context.Context, r contract.ListCredentialsRequestObject) (contract.ListCredentialsResponseObject, error) {
	app, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	list, err := n.deps.Credentials.Credentials(ctx, app)
	if err != nil {
		return nil, err
	}
	answer := contract.ListCredentials200JSONResponse{Credentials: []contract.Credential{}}
	for _, c := range list {
		wire, err := wireCredential(c)
		if err != nil {
			return nil, err
		}
		answer.Credentials = append(answer.Credentials, wire)
	}
	return answer, nil
}

// DeleteApnsCredential forgets what an app gave us for Apple.
func (n nouns) DeleteApnsCredential(ctx context.Context, r contract.DeleteApnsCredentialRequestObject) (contract.DeleteApnsCredentialResponseObject, error) {
	return contract.DeleteApnsCredential204Response{}, n.deleteCredential(ctx, r.AppId, tokens.APNs)
}

// DeleteFcmCredential forgets what an app gave us for Google.
func (n nouns) DeleteFcmCredential(ctx context.Context, r contract.DeleteFcmCredentialRequestObject) (contract.DeleteFcmCredentialResponseObject, error) {
	return contract.DeleteFcmCredential204Response{}, n.deleteCredential(ctx, r.AppId, tokens.FCM)
}

func (n nouns) deleteCredential(ctx context.Context, id string, provider tokens.Provider) error {
	app, err := appID(id)
	if err != nil {
		return err
	}
	if err := n.deps.Credentials.DeleteCredential(ctx, app, provider); err != nil {
		return err
	}
	// Whoever keeps it open must look again and find it gone.
	n.hint(messages.Hint{Kind: messages.HintCredential, App: app, Provider: string(provider)})
	return nil
}

func placeholderOf(p *contract.Placeholder) providers.Placeholder {
	if p == nil {
		return providers.Placeholder{}
	}
	out := providers.Placeholder{Text: providers.Text{Title: or(p.Title), Body: or(p.Body)}}
	for tag, text := range or(p.Locales) {
		if out.Locales == nil {
			out.Locales = map[string]providers.Text{}
		}
		out.Locales[tag] = providers.Text{Title: or(text.Title), Body: text.Body}
	}
	return out
}

// wireCredential shows a credential: its public JSON has the contract's own field names, and nothing
// that the contract does not name gets through.
func wireCredential(c tokens.Credential) (contract.Credential, error) {
	var wire contract.Credential
	if len(c.Public) > 0 {
		if err := json.Unmarshal(c.Public, &wire); err != nil {
			return wire, fmt.Errorf("public part of the %s credential of %s: %w", c.Provider, c.App, err)
		}
	}
	wire.Provider, wire.Fingerprint, wire.UpdatedAt = string(c.Provider), c.Fingerprint, stamp(c.UpdatedAt)
	wire.Failing, wire.FailingSince = some(c.Failing), stampIf(c.FailingSince)
	return wire, nil
}

// VerifyApnsCredential asks Apple about the stored credential.
func (n nouns) VerifyApnsCredential(ctx context.Context, r contract.VerifyApnsCredentialRequestObject) (contract.VerifyApnsCredentialResponseObject, error) {
	wire, err := n.verifyCredential(ctx, r.AppId, tokens.APNs)
	if err != nil {
		return nil, err
	}
	return contract.VerifyApnsCredential200JSONResponse(wire), nil
}

// VerifyFcmCredential asks Google about the stored credential.
func (n nouns) VerifyFcmCredential(ctx context.Context, r contract.VerifyFcmCredentialRequestObject) (contract.VerifyFcmCredentialResponseObject, error) {
	wire, err := n.verifyCredential(ctx, r.AppId, tokens.FCM)
	if err != nil {
		return nil, err
	}
	return contract.VerifyFcmCredential200JSONResponse(wire), nil
}

// verifyLimit bounds a verification, whatever the provider does.
const verifyLimit = 15 * time.Second

// verifyCredential lets the provider judge. No finding at all is no proof that it works.
func (n nouns) verifyCredential(ctx context.Context, id string, p tokens.Provider) (contract.CredentialVerification, error) {
	app, err := appID(id)
	if err != nil {
		return contract.CredentialVerification{}, err
	}
	if _, err := n.deps.Apps.App(ctx, app); err != nil {
		return contract.CredentialVerification{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	found, err := n.deps.Verifier.Verify(ctx, app, p)
	if err != nil {
		return contract.CredentialVerification{}, err
	}
	answer := contract.CredentialVerification{Ok: len(found) > 0, Checks: make([]contract.Finding, 0, len(found))}
	for _, f := range found {
		answer.Ok = answer.Ok && f.Status != providers.FindingFail
		answer.Checks = append(answer.Checks, contract.Finding{
			Check: f.Check, Status: string(f.Status), Reason: some(f.Reason), Cause: f.Cause, Cure: some(f.Cure),
		})
	}
	return answer, nil
}
