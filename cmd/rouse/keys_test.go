package main

import (
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"rouse"
)

// TestHelpNamesTheScopesThatExist, all of them and no other.
func TestHelpNamesTheScopesThatExist(t *testing.T) {
	t.Parallel()
	var contract struct {
		Components struct {
			Schemas struct {
				KeyScope struct {
					Enum []string `yaml:"enum"`
				} `yaml:"KeyScope"`
			} `yaml:"schemas"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal([]byte(rouse.Contract()), &contract); err != nil {
		t.Fatal(err)
	}
	scopes := contract.Components.Schemas.KeyScope.Enum
	// The help is broken into lines.
	help := strings.Join(strings.Fields(mustCommand(t, nil, "keys", "create", "--help")), " ")
	if want := "What a secret key may do: " + strings.Join(scopes, ", ") + "."; len(scopes) == 0 || !strings.Contains(help, want) {
		t.Errorf("no %q in\n%s", want, help)
	}
}
