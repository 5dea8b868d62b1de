package api_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"gopkg.in/yaml.v3"

	"rouse"
)

var errorsPage = sync.OnceValue(func() string {
	raw, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		panic(err)
	}
	return string(raw)
})

// TestErrorsPageAndContractAgree holds the two lists of codes together.
func TestErrorsPageAndContractAgree(t *testing.T) {
	t.Parallel()
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(errorsPage(), -1) {
		if !strings.Contains(rouse.Contract(), "`"+row[1]+"`") {
			t.Errorf("openapi.yaml does not mention %q", row[1])
		}
	}
}

func TestContractIsServedInEveryForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asYAML := w.do(call{"GET", "/openapi.yaml", "", nil, nil}).want(200)
	if string(asYAML.body) != rouse.Contract() {
		t.Error("the YAML is not the contract")
	}
	var fromYAML, fromJSON any
	if err := yaml.Unmarshal(asYAML.body, &fromYAML); err != nil {
		t.Fatal(err)
	}
	asJSON := w.do(call{"GET", "/openapi.json", "", nil, nil}).want(200)
	if err := json.Unmarshal(asJSON.body, &fromJSON); err != nil {
		t.Fatal(err)
	}
	one, _ := json.Marshal(fromYAML)
	two, _ := json.Marshal(fromJSON)
	if string(one) != string(two) {
		t.Error("JSON and YAML differ")
	}
	again := w.do(call{"GET", "/openapi.json", "", nil, map[string]string{"If-None-Match": asJSON.header.Get("Etag")}})
	if again.status != http.StatusNotModified {
		t.Errorf("with its own Etag: %d", again.status)
	}
}

// TestReferenceIsWholeAndNeedsNothing reads the page as a browser without a network would.
func TestReferenceIsWholeAndNeedsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	page := w.do(call{"GET", "/docs", "", nil, nil}).want(200)
	text := string(page.body)
	ids := regexp.MustCompile(`operationId: (\w+)`).FindAllStringSubmatch(rouse.Contract(), -1)
	if len(ids) < 29 {
		t.Fatalf("only %d operations", len(ids))
	}
	for _, id := range ids {
		if !strings.Contains(text, `<article id="`+id[1]+`">`) {
			t.Errorf("the page lacks %s", id[1])
		}
	}
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(text, -1) {
		anchors[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(text, -1) {
		if !anchors[m[1]] {
			t.Errorf("a link leads to #%s, which is not there", m[1])
		}
	}
	for _, bad := range []string{"<script", `="http`, "url(", "@import", "src=", "ZgotmplZ"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	policy := page.header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") {
		t.Errorf("policy %q", policy)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, path := range []string{"/", "/v1", "/v1/app", "/v1/apps/", "/v2/inbox", "/metrics", "/v1/inbox/a/b"} {
		w.do(call{"GET", path, adminKey, nil, nil}).refused(404, "not_found")
	}
	a := w.do(call{"PUT", "/v1/messages", adminKey, obj{}, nil}).refused(405, "method_not_allowed")
	if got := a.header.Get("Allow"); got != "GET, POST" {
		t.Errorf("Allow: %q", got)
	}
	a = w.do(call{"POST", "/v1/device", adminKey, obj{}, nil}).refused(405, "method_not_allowed")
	allow := strings.Split(a.header.Get("Allow"), ", ")
	slices.Sort(allow)
	if !slices.Equal(allow, []string{"DELETE", "GET", "PATCH"}) {
		t.Errorf("Allow: %q", allow)
	}
}
