package main

import (
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"rouse/client"
	"rouse/providers/sim"
)

// TestOperationsTellTheTruth looks at the operations listener before and after a message has gone all its way.
func TestOperationsTellTheTruth(t *testing.T) {
	t.Parallel()
	onEngines(t, testOperationsTellTheTruth)
}

func testOperationsTellTheTruth(t *testing.T, on engine) {
	r := newRigOn(t, on)
	for _, path := range []string{"/livez", "/readyz"} {
		if got := r.get(path); !strings.HasPrefix(got, "200") {
			t.Errorf("%s says %s", path, got)
		}
	}
	p := r.enrol("phone", "fcm")
	r.mustSend(p.device, `1`)
	r.awaitMetric("rouse_deliveries_pending", 1)
	// The phone fetches once the push is answered for; one that is quicker than the answer is not in the histogram.
	r.awaitMetric(`rouse_wakes_total{provider="fcm",verdict="accepted"}`, 1)
	r.drain(p)
	r.awaitMetric("rouse_insert_to_ack_seconds_count", 1)
	r.awaitMetric("rouse_wake_to_fetch_seconds_count", 1)
	if n, err := metric(t.Context(), r.child.at.ops, "rouse_deliveries_pending"); err != nil || n != 0 {
		t.Errorf("%v pending after the ack, %v", n, err)
	}
	all := r.get("/metrics")
	for _, name := range []string{"rouse_accepted_total", "rouse_waiters", "rouse_store_batch_size", "rouse_store_queue_length", "rouse_http_requests_total", "go_goroutines"} {
		if !strings.Contains(all, "\n"+name) {
			t.Errorf("no metric %s", name)
		}
	}
}

// TestEveryMetricOfTheDocsExists: an operator who watches a name of the page must not watch nothing.
func TestEveryMetricOfTheDocsExists(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres) // where a node tells of the others, too
	// Credentials that end are looked at at the start, and then by the hour.
	ends := r.appWithCertificate()
	r.kill()
	r.start()
	r.awaitMetric(`rouse_credential_expires_timestamp_seconds{app="`+ends+`",provider="apns"}`, 1)
	p := r.enrol("phone", "apns")
	r.mustSend(p.device, `1`)
	r.awaitPush(p, 0)
	r.drain(p)
	r.awaitMetric(`rouse_wakes_total{provider="apns",verdict="accepted"}`, 1)
	r.awaitMetric(`rouse_provider_connections_total{event="opened",provider="apns"}`, 1)
	// Some names appear only once there is something to tell: a dead token, a refused credential.
	r.sim.KillToken(p.token, time.Now().Add(time.Second))
	r.mustSend(p.device, `2`)
	r.awaitMetric(`rouse_tokens_dead_total{provider="apns"}`, 1)
	r.sim.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Status: http.StatusForbidden, Reason: "InvalidProviderToken"}})
	r.mustSend(r.enrol("another", "apns").device, `3`)
	r.awaitMetric(`rouse_outlets_paused{provider="apns"}`, 1)
	r.awaitMetric(`rouse_circuit_open{app="`+r.app.Id+`",cause="credential",environment="production",onward="",provider="apns"}`, 1)
	all := r.get("/metrics")
	page := readPage(t, filepath.Join("docs", "operations.md"))
	names := regexp.MustCompile("`(rouse_[a-z_]+)").FindAllStringSubmatch(page, -1)
	if len(names) < 10 {
		t.Fatalf("only %d metrics on the page", len(names))
	}
	for _, name := range names {
		if !strings.Contains(all, "# TYPE "+name[1]+" ") {
			t.Errorf("docs/operations.md tells of %s, which is not there", name[1])
		}
	}
}

// appWithCertificate makes an app that speaks to Apple with a certificate, and returns its id.
func (r *rig) appWithCertificate() string {
	r.t.Helper()
	admin := r.client(r.admin)
	app, err := answer[client.AppCreated](admin.CreateApp(r.t.Context(), client.AppCreate{Name: "with a certificate"}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.secret(app.SecretKey, app.PublishableKey)
	certificate, key := r.sim.NewAPNsCertificate(demoTopic)
	body := client.ApnsCredentialPut{Certificate: &certificate, CertificateKey: &key, Topic: demoTopic}
	if _, err := answer[client.Credential](admin.PutApnsCredential(r.t.Context(), app.Id, body)); err != nil {
		r.t.Fatal(err)
	}
	return app.Id
}

// TestASecondSignalEndsAtOnce: a stop that takes too long for somebody can be cut short.
func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	onEngines(t, testASecondSignalEndsAtOnce)
}

func testASecondSignalEndsAtOnce(t *testing.T, on engine) {
	r := newRigOn(t, on)
	r.sim.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Fault: sim.FaultHang}})
	p := r.enrol("phone", "apns")
	r.mustSend(p.device, `1`)
	r.awaitMetric(`rouse_pushes_in_flight{provider="apns"}`, 1)
	if err := r.child.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.child.log.await(t, regexp.MustCompile(`msg=stopping`), r.child.exited)
	if ready := r.get("/readyz"); !strings.HasPrefix(ready, "503") {
		t.Errorf("/readyz says %s while the node stops", ready)
	}
	if code, took := r.terminate(); code != exitFailed || strings.Contains(r.child.log.String(), "msg=stopped") {
		t.Errorf("two signals: exit %d after %v, and the stop came to its end", code, took)
	}
}

func TestATakenPortIsToldAtOnce(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	env := []string{"ROUSE_ADMIN_KEY=" + mintAdminKey(), "ROUSE_DB=sqlite:" + filepath.Join(t.TempDir(), "rouse.db"), "ROUSE_OPS_LISTEN=127.0.0.1:0"}
	code, out := command(t, env, "serve", "--listen", taken.Addr().String())
	if code != exitFailed || !strings.Contains(out, "--listen") || !strings.Contains(out, "in use") {
		t.Errorf("exit %d\n%s", code, out)
	}
}
