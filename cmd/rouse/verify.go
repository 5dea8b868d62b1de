package main

import (
	"context"
	"slices"
	"sync"

	"rouse/providers"
	"rouse/tokens"
)

// verify asks the provider about a credential, in each of its environments at once, over connections of their own that
// are closed when it returns. The findings come in the order of the environments, and there is at least one.
func verify(ctx context.Context, open opener, c tokens.Credential) []providers.Finding {
	environments := []tokens.Environment{""}
	if c.Provider == tokens.APNs {
		environments = []tokens.Environment{tokens.Production, tokens.Sandbox}
	}
	found := make([][]providers.Finding, len(environments))
	var all sync.WaitGroup
	for i, environment := range environments {
		all.Go(func() { found[i] = verifyIn(ctx, open, c, environment) })
	}
	all.Wait()
	return forgive(slices.Concat(found...))
}

func verifyIn(ctx context.Context, open opener, c tokens.Credential, environment tokens.Environment) []providers.Finding {
	client, err := open(c, environment)
	if err != nil {
		check := string(c.Provider)
		if environment != "" {
			check += "_" + string(environment)
		}
		return []providers.Finding{{Check: check, Status: providers.FindingFail, Reason: "credential_unusable",
			Cause: "The stored credential cannot be used: " + err.Error() + ".", Cure: "Put the credential again."}}
	}
	defer func() { _ = client.Close() }()
	return client.Verify(ctx)
}

// ofEnvironment are Apple's reasons for a credential that is meant for its other environment.
var ofEnvironment = []string{"BadCertificateEnvironment", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken"}

// forgive turns a refusal that is about the environment into a warning if another environment takes the credential: many
// apps need but one.
func forgive(found []providers.Finding) []providers.Finding {
	taken := slices.ContainsFunc(found, func(f providers.Finding) bool { return f.Status == providers.FindingOK })
	for i, f := range found {
		if taken && f.Status == providers.FindingFail && slices.Contains(ofEnvironment, f.Reason) {
			found[i].Status = providers.FindingWarn
		}
	}
	return found
}
