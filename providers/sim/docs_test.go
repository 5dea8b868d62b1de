package sim_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"rouse/providers/sim"
)

func page(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/sim.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// reader follows the page: it runs each call and keeps what later ones need.
type reader struct {
	t    *testing.T
	sim  *sim.Sim
	said map[string]string // the page's variables
	pair *tls.Certificate  // the certificate it was given
	ran  []string          // METHOD PATH of the calls to the control API
}

// words splits a line as a shell would: quotes hold words together, and variables
// stand for their values except between single quotes.
func (r *reader) words(line string) []string {
	var words []string
	for _, m := range regexp.MustCompile(`'([^']*)'|"([^"]*)"|(\S+)`).FindAllStringSubmatch(line, -1) {
		words = append(words, m[1]+os.Expand(m[2]+m[3], func(name string) string { return r.said[name] }))
	}
	return words
}

// curl runs one line. It must be answered with the status at the head of its comment, or 2xx.
func (r *reader) curl(line string) {
	r.t.Helper()
	command, comment, _ := strings.Cut(line, " #")
	command, _, _ = strings.Cut(command, " > ")
	method, url, body, header := http.MethodGet, "", "", http.Header{}
	words := r.words(command)[1:]
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "-s", "--http2":
		case "-X":
			i++
			method = words[i]
		case "-d":
			i++
			body = words[i]
			if method == http.MethodGet {
				method = http.MethodPost
			}
		case "-H":
			i++
			name, value, _ := strings.Cut(words[i], ": ")
			header.Set(name, value)
		case "--cacert", "--cert", "--key":
			i++
		default:
			url = words[i]
		}
	}
	r.send(line, method, url, body, header, comment)
}

func (r *reader) send(line, method, url, body string, header http.Header, comment string) {
	r.t.Helper()
	config := trust(r.t, r.sim)
	if r.pair != nil {
		config.Certificates = []tls.Certificate{*r.pair}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	if rest, ok := strings.CutPrefix(url, "localhost:8090"); ok {
		path, _, _ := strings.Cut(rest, "?")
		r.ran = append(r.ran, method+" "+path)
	}
	for from, to := range map[string]string{"localhost:8090": r.sim.ControlURL(), "https://127.0.0.1:2197": r.sim.APNsURL(), "https://127.0.0.1:2443/v1": r.sim.FCMURL()} {
		url = strings.Replace(url, from, to, 1)
	}
	request, err := http.NewRequestWithContext(within(r.t, patience), method, url, strings.NewReader(body))
	if err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	request.Header = header
	got, err := roundTrip(&http.Client{Transport: transport}, request)
	if err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	want := 0
	_, _ = fmt.Sscan(comment, &want)
	if got.status/100 != 2 || want != 0 && got.status != want {
		r.t.Errorf("%s\n%d %s", line, got.status, got.body)
	}
	r.keep(got.body)
}

// keep remembers the credentials and tokens of an answer under the page's names for them.
func (r *reader) keep(body string) {
	var made struct {
		Token       string
		AccessToken string `json:"access_token"`
		ClientEmail string `json:"client_email"`
		Certificate string
		PrivateKey  string `json:"private_key"`
	}
	if json.Unmarshal([]byte(body), &made) != nil {
		return
	}
	for name, value := range map[string]string{"ACCESS_TOKEN": made.AccessToken, "EMAIL": made.ClientEmail} {
		if value != "" {
			r.said[name] = value
		}
	}
	switch {
	case strings.Contains(made.Token, ":"):
		r.said["FCM_TOKEN"] = made.Token
	case made.Token != "":
		r.said["TOKEN"] = made.Token
	}
	if pair, err := tls.X509KeyPair([]byte(made.Certificate), []byte(made.PrivateKey)); err == nil {
		r.pair = &pair
	}
}

// TestDocumentedCallsWork runs every curl line of docs/sim.md, in order, and looks
// whether each call of its table is among them.
func TestDocumentedCallsWork(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{ControlListen: "127.0.0.1:0"})
	r := &reader{t: t, sim: s, said: map[string]string{}}
	text := page(t)
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "curl ") {
			r.curl(line)
		}
	}
	if p, ok := s.Phone(r.said["TOKEN"]); !ok || !p.Dead || p.Pushes != 1 {
		t.Errorf("the iPhone of the page: %+v", p)
	}
	calls := regexp.MustCompile("(?m)^\\| `([A-Z]+) (/control/[^`?]*)`").FindAllStringSubmatch(text, -1)
	if len(calls) < 20 {
		t.Fatalf("only %d calls in the table", len(calls))
	}
	for _, call := range calls {
		form := regexp.MustCompile("^" + call[1] + " " + regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(call[2], "[^/]+") + "$")
		found := false
		for _, ran := range r.ran {
			found = found || form.MatchString(ran)
		}
		if !found {
			t.Errorf("no example of %s %s", call[1], call[2])
		}
	}
}

// TestDocumentedRulesAreGood reads the example file of the page, and looks whether every fault is told of.
func TestDocumentedRulesAreGood(t *testing.T) {
	t.Parallel()
	text := page(t)
	_, file, found := strings.Cut(text, "```json\n")
	file, _, _ = strings.Cut(file, "```")
	if rules, err := sim.ReadRules([]byte(file)); !found || err != nil || len(rules) < 5 {
		t.Errorf("%d rules: %v", len(rules), err)
	}
	for _, fault := range sim.Faults() {
		if !strings.Contains(text, "`"+fault+"`") {
			t.Errorf("the page says nothing about the fault %s", fault)
		}
	}
}
