package sim

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// answer is what a fake will say, before a fault gets at it.
type answer struct {
	status     int
	reason     string
	body       []byte
	html       bool
	retryAfter string
	location   string
}

// wrongEnvironment is what a certificate of the other environment meets: no answer, but GOAWAY for each connection.
const wrongEnvironment = "BadCertificateEnvironment"

// serve judges one request and answers it, or does what a rule says. Judging
// happens here, in the reading goroutine, whatever the rule: the connection's
// session must see every provider token in order.
func (c *apnsConn) serve(st *apnsStream, r *apnsRequest) {
	sim := c.srv.sim
	refused := c.srv.judge(r, &c.who)
	r.good, r.proven = refused.reason == "", c.who.proven(c.srv.environment())
	for _, note := range advise(r) {
		c.violation(note)
	}
	act := sim.rules.fire(
		query{provider: APNs, environment: c.srv.environment(), token: r.token, wire: c.wire}, sim.settings.Load().APNsLatency)
	if refused.reason == wrongEnvironment && act.Fault == "" && !act.answers() {
		act.Fault, act.Reason = FaultGoawayZero, wrongEnvironment
	}
	ans := apnsAnswer(refused)
	if act.answers() {
		ans = apnsScripted(act.Action, r.at)
		c.who.note(ans.reason)
	}
	if act.wait == 0 {
		c.finish(st, r, ans, act.Action)
		return
	}
	c.later(st, r, ans, act)
}

// later finishes the request when its time has come, or knows then that the client has gone.
func (c *apnsConn) later(st *apnsStream, r *apnsRequest, ans answer, do order) {
	c.srv.sim.wg.Go(func() {
		if !c.wait(st, do.wait) {
			ans, do.Action = answer{}, Action{Fault: clientGone}
		}
		c.finish(st, r, ans, do.Action)
		c.flush()
	})
}

// wait passes time; false means that the stream ended meanwhile.
func (c *apnsConn) wait(st *apnsStream, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-st.gone:
	case <-c.over:
	case <-c.srv.sim.done:
	}
	return false
}

func apnsAnswer(refused refusal) answer {
	if refused.reason == "" {
		return answer{status: http.StatusOK}
	}
	return answer{status: apnsStatus[refused.reason], reason: refused.reason, body: reasonJSON(refused.reason, refused.died, false)}
}

// apnsScripted is the answer that a rule asks for. A status without reason has an
// empty body, as Apple's front end sometimes sends it.
func apnsScripted(act Action, now time.Time) answer {
	a := answer{status: act.Status, reason: act.Reason, retryAfter: act.after(now), body: []byte(act.Body)}
	if a.status == 0 {
		a.status = apnsStatus[act.Reason]
	}
	if a.status == 0 && act.Reason != "" {
		a.status = http.StatusBadRequest
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if act.Body == "" && act.Reason != "" {
		a.body = reasonJSON(act.Reason, act.died(now), act.TimestampText)
	}
	a.html = strings.HasPrefix(act.Body, "<")
	return a
}

// finish records the request, hands an accepted push to the phone, and then lets
// the client see as much of the answer as the fault leaves. Who has an answer
// finds everything about it recorded.
func (c *apnsConn) finish(st *apnsStream, r *apnsRequest, ans answer, act Action) {
	entry := Entry{
		Provider: APNs, Environment: c.srv.environment(), Method: r.method, Path: r.path, Token: r.token, Headers: r.header, Body: string(r.body),
		Connection: c.wire.number, Stream: r.stream, Fault: act.Fault, At: r.at,
	}
	if act.processed() {
		entry.Status, entry.Reason = ans.status, ans.reason
	}
	secret := bearerToken(r.bearer)
	if r.bearer != "" {
		r.header["authorization"] = "bearer " + fingerprint(secret)
	}
	sim := c.srv.sim
	sim.journal.record(entry, secret)
	sim.told(entry, r.token)
	if act.processed() && ans.status == http.StatusOK && r.good {
		sim.phones.deliver(r.delivered())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.proven && act.processed() {
		c.raise()
	}
	enough := act.processed() && c.pace(ans)
	if act.Streams > 0 {
		c.announce(act.Streams)
	}
	c.act(st, ans, act)
	if enough && !c.draining {
		c.goaway(c.newest, Action{})
	}
}

// told writes the log line of a refusal or fault.
func (s *Sim) told(e Entry, token string) {
	if e.Fault == "" && e.Reason == "" && e.Status < 300 {
		return
	}
	s.log.Info("simulator refused", "provider", e.Provider, "token", shorten(token), "status", e.Status, "reason", e.Reason, "fault", e.Fault, "connection", e.Connection)
}

func (r *apnsRequest) delivered() parcel {
	headers := make(map[string]string, len(r.header))
	for name, value := range r.header {
		if name != "authorization" {
			headers[name] = value
		}
	}
	kind := r.header["apns-push-type"]
	if kind == "" {
		kind = "alert"
	}
	return parcel{
		Delivered:  Delivered{Provider: APNs, Token: r.token, Kind: kind, Body: asJSON(r.body), Headers: headers},
		background: kind == "background", life: r.life(),
	}
}

// life is how long the request lets APNs keep it.
func (r *apnsRequest) life() time.Duration {
	expiration, given := r.header["apns-expiration"]
	if !given {
		return appleKeeps
	}
	ends, _ := strconv.ParseInt(expiration, 10, 64) // checked before
	return min(appleKeeps, max(0, time.Unix(ends, 0).Sub(r.at)))
}

// act sends the answer, bent by the fault. The caller holds mu.
func (c *apnsConn) act(st *apnsStream, ans answer, act Action) {
	switch act.Fault {
	case FaultHang, clientGone:
	case FaultReset:
		c.hungUp = true
		c.wire.reset()
	case FaultGoaway:
		c.goaway(c.newest, act)
		c.reply(st, ans)
	case FaultGoawayLower:
		c.goaway(st.id-min(2, st.id), act.explained())
	case FaultGoawayZero:
		c.goaway(0, act.explained())
	case FaultRSTRefused, FaultRSTInternal, FaultRSTProtocol, FaultRSTCancel, FaultRSTCalm:
		c.reset(st.id, resetCode[act.Fault])
	case FaultBlackhole:
		c.flushLocked()
		c.wire.dark.Store(true)
	case FaultCloseAfter:
		c.hangUp()
	case FaultSlowBody:
		c.dribble(st, ans, act.Delay)
	case FaultTruncate:
		c.sendHeaders(st, ans.status, c.fields(st, ans), false)
		c.sendBody(st, ans.body[:len(ans.body)/2], false)
		c.reset(st.id, http2.ErrCodeInternal)
	default:
		c.reply(st, ans)
	}
}

// explained is the action with the debug data that its GOAWAY carries, where none was given.
func (a Action) explained() Action {
	if a.Debug == "" && a.Reason != "" {
		a.Debug = string(reasonJSON(a.Reason, a.died(time.Now()), a.TimestampText))
	}
	if a.Debug == "" {
		a.Debug = a.Body
	}
	return a
}

// reply sends the whole answer.
func (c *apnsConn) reply(st *apnsStream, ans answer) {
	c.sendHeaders(st, ans.status, c.fields(st, ans), len(ans.body) == 0)
	if len(ans.body) > 0 {
		c.sendBody(st, ans.body, true)
	}
}

// dribble sends the headers now and the body from a goroutine of its own. An
// empty body ends one step late.
func (c *apnsConn) dribble(st *apnsStream, ans answer, step time.Duration) {
	if step == 0 {
		step = dribbleStep
	}
	c.sendHeaders(st, ans.status, c.fields(st, ans), false)
	c.srv.sim.wg.Go(func() {
		for i := 0; c.wait(st, step); i++ {
			c.mu.Lock()
			last := i+1 >= len(ans.body)
			c.sendBody(st, ans.body[min(i, len(ans.body)):min(i+1, len(ans.body))], last)
			c.flushLocked()
			c.mu.Unlock()
			if last {
				return
			}
		}
	})
}

// fields are the headers of an answer. Ids are never indexed: they do not repeat.
func (c *apnsConn) fields(st *apnsStream, ans answer) []hpack.HeaderField {
	id := headerOf(st, "apns-id")
	if !uuidForm.MatchString(id) {
		id = newUUID()
	}
	fields := []hpack.HeaderField{{Name: "apns-id", Value: id, Sensitive: true}}
	if c.srv.sandbox && ans.status == http.StatusOK {
		fields = append(fields, hpack.HeaderField{Name: "apns-unique-id", Value: newUUID(), Sensitive: true})
	}
	switch {
	case ans.html:
		fields = append(fields, hpack.HeaderField{Name: "content-type", Value: "text/html; charset=utf-8"})
	case len(ans.body) > 0:
		fields = append(fields, hpack.HeaderField{Name: "content-type", Value: "application/json"})
	}
	if ans.retryAfter != "" {
		fields = append(fields, hpack.HeaderField{Name: "retry-after", Value: ans.retryAfter})
	}
	return fields
}

func headerOf(st *apnsStream, name string) string {
	for _, field := range st.fields {
		if field.Name == name {
			return field.Value
		}
	}
	return ""
}

// newUUID makes a random (version 4) UUID in canonical form.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
