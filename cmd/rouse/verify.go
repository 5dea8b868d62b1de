package main

import (
	"context"

	"rouse/providers"
	"rouse/tokens"
)

// verify asks the provider about a credential, in each of its environments.
func verify(ctx context.Context, open opener, c tokens.Credential) []providers.Finding {
	environments := []tokens.Environment{""}
	if c.Provider == tokens.APNs {
		environments = []tokens.Environment{tokens.Production, tokens.Sandbox}
	}
	var found []providers.Finding
	for _, env := range environments {
		client, err := open(c, env)
		if err != nil {
			return []providers.Finding{{Check: string(c.Provider), Status: providers.FindingFail, Reason: "credential_unusable",
				Cause: "The stored credential cannot be used: " + err.Error() + ".", Cure: "Put the credential again."}}
		}
		found = append(found, client.Verify(ctx)...)
		_ = client.Close()
	}
	return found
}
