package api_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rouse/api"
	"rouse/ident"
	"rouse/messages"
)

// backend signs user tokens of an app.
type backend struct {
	app tenant
	kid string
	key ed25519.PrivateKey
}

// newBackend gives the app a key for user tokens.
func (w *world) newBackend(app tenant, kid string) backend {
	w.t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		w.t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	w.do(call{"PUT", "/v1/apps/" + app.id + "/identity-keys/" + kid, adminKey, obj{"algorithm": "EdDSA", "public_key": text}, nil}).want(200)
	return backend{app, kid, key}
}

// token is one for the user, good for ten minutes.
func (b backend) token(user string) string {
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"aud": b.app.id, "sub": user, "exp": time.Now().Add(10 * time.Minute).Unix()})
	token.Header["kid"] = b.kid
	return must(token.SignedString(b.key))
}

func installation(more obj) obj {
	body := obj{"installation_id": unique("phone"), "platform": "other", "provider": "none"}
	for name, value := range more {
		body[name] = value
	}
	return body
}

// user is who the device says it belongs to.
func (w *world) user(p phone) string {
	w.t.Helper()
	return w.do(call{"GET", "/v1/device", p.key, nil, nil}).want(200).text("user_id")
}

// toUser sends to a user and returns how many devices that reached.
func (w *world) toUser(app tenant, user string, data any) int {
	w.t.Helper()
	var m accepted
	w.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"user_id": user}, "data": data}, nil}).want(202).into(&m)
	return m.Recipients
}

// holds fails unless exactly that waits in the inbox, as JSON.
func (w *world) holds(p phone, want ...string) {
	w.t.Helper()
	var got []string
	for _, m := range w.inbox(p, "").Messages {
		got = append(got, string(m.Data))
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("the inbox holds %q, want %q", got, want)
	}
}

func TestUserTokenAtRegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	b, stranger := w.newBackend(app, "2030-01"), w.newBackend(other, "2030-01")
	p := w.register(app.pk, installation(obj{"user_token": b.token("anna")}))
	if user := w.user(p); user != "anna" {
		t.Errorf("it belongs to %q", user)
	}
	if q := w.register(app.pk, installation(nil)); w.user(q) != "" {
		t.Error("nobody logged in")
	}
	if n := w.toUser(app, "anna", 1); n != 1 {
		t.Errorf("%d recipients", n)
	}
	body := installation(nil)
	for name, token := range map[string]string{
		"another app's": stranger.token("anna"), "for another app": backend{other, b.kid, b.key}.token("anna"),
		"another key": backend{app, b.kid, stranger.key}.token("anna"), "a user without a name": b.token(""), "text": "anna",
	} {
		body["user_token"] = token
		for _, key := range []string{app.pk, app.sk, p.key} {
			a := w.do(call{"POST", "/v1/devices", key, body, nil}).refused(422, "invalid_user_token").points("/user_token")
			if len(token) > 10 && (strings.Contains(string(a.body), token) || strings.Contains(w.log.String(), token)) {
				t.Errorf("%s: the token is repeated", name)
			}
		}
	}
	for _, bad := range []any{"", 1, nil, strings.Repeat("x", 8193)} {
		body["user_token"] = bad
		w.do(call{"POST", "/v1/devices", app.pk, body, nil}).refused(422, "invalid_body").points("/user_token")
	}
	delete(body, "user_token")
	w.register(app.pk, body) // none of them made the device
	// Somebody else logs in, by the device's own key and by the backend's.
	again := w.do(call{"POST", "/v1/devices", p.key, obj{"installation_id": w.installationOf(p), "platform": "other", "provider": "none", "user_token": b.token("bob")}, nil}).want(200)
	if again.text("user_id") != "bob" {
		t.Errorf("it belongs to %q", again.text("user_id"))
	}
	w.holds(p)
}

func (w *world) installationOf(p phone) string {
	w.t.Helper()
	return w.do(call{"GET", "/v1/device", p.key, nil, nil}).want(200).text("installation_id")
}

// TestUserTokenKeysAreReplaced: what was signed with a key that is gone, or was replaced, counts no more.
func TestUserTokenKeysAreReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	first, second := w.newBackend(app, "a"), w.newBackend(app, "b")
	bind := func(b backend) answer {
		return w.do(call{"PUT", "/v1/device/user", p.key, obj{"user_token": b.token("anna"), "from_the_future": 1}, nil})
	}
	bind(first).want(204)
	bind(second).want(204)
	w.do(call{"DELETE", "/v1/apps/" + app.id + "/identity-keys/a", adminKey, nil, nil}).want(204)
	bind(first).refused(422, "invalid_user_token").points("/user_token")
	third := w.newBackend(app, "b")
	bind(second).refused(422, "invalid_user_token").points("/user_token")
	bind(third).want(204)
	if user := w.user(p); user != "anna" {
		t.Errorf("it belongs to %q", user)
	}
	w.do(call{"PUT", "/v1/device/user", p.key, obj{}, nil}).refused(422, "invalid_body").points("/user_token")
	w.do(call{"PUT", "/v1/device/user", app.pk, obj{"user_token": third.token("anna")}, nil}).refused(403, "wrong_key_kind")
}

// TestLogout: from the answer on nothing of who left is handed out, whether the phone asks, waits or is another person's by now.
func TestLogout(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: time.Hour}}.start(t)
	app := w.newApp()
	b := w.newBackend(app, "k")
	p := w.newPhone(app)
	login := func(user string) {
		w.do(call{"PUT", "/v1/device/user", p.key, obj{"user_token": b.token(user)}, nil}).want(204)
	}
	login("anna")
	w.toUser(app, "anna", "for anna")
	w.send(app, p, "for the phone")
	w.holds(p, `"for anna"`, `"for the phone"`)
	acked := w.heard.count(messages.HintAcked)
	w.do(call{"DELETE", "/v1/device/user", p.key, nil, nil}).want(204)
	if h := w.heard.until(t, messages.HintAcked, acked); string(h.Device) != p.id || h.Seq != 0 {
		t.Errorf("hinted %+v", h)
	}
	w.holds(p, `"for the phone"`)
	if user, n := w.user(p), w.toUser(app, "anna", 1); user != "" || n != 0 {
		t.Errorf("it belongs to %q, %d recipients", user, n)
	}
	w.do(call{"DELETE", "/v1/device/user", p.key, nil, nil}).want(204)
	login("bob")
	w.toUser(app, "bob", "for bob")
	w.holds(p, `"for the phone"`, `"for bob"`)
	page := w.inbox(p, "")
	if page.Gap != nil {
		t.Errorf("who stays has lost nothing: %+v", page.Gap)
	}
	// A message that the parked poll was not told of is canceled before it looks.
	x := w.wait(p, "wait=55&ack="+page.Cursor)
	_, err := w.store.Accept(t.Context(), must(messages.New(messages.Send{
		App: ident.App(app.id), To: messages.Target{User: "bob"}, Data: []byte(`"late"`), TTL: time.Hour, CreatedAt: time.Now(),
	})))
	if err != nil {
		t.Fatal(err)
	}
	login("carl")
	w.toUser(app, "carl", "for carl")
	got, _ := x.page(t)
	if len(got.Messages) != 1 || string(got.Messages[0].Data) != `"for carl"` {
		t.Errorf("the poll got %+v", got)
	}
}

// TestLogoutOnAnotherNode than the one that the phone asks, and that has read its inbox before.
func TestLogoutOnAnotherNode(t *testing.T) {
	t.Parallel()
	everywhere(t, 2, func(t *testing.T, all []*world) {
		a, b := all[0], all[1]
		app := a.newApp()
		p := a.newPhone(app)
		for range 5 {
			user := unique("user")
			a.do(call{"PUT", "/v1/users/" + user + "/devices/" + p.id, app.sk, nil, nil}).want(204)
			b.toUser(app, user, user)
			b.holds(p, `"`+user+`"`)
			a.do(call{"DELETE", "/v1/device/user", p.key, nil, nil}).want(204)
			b.holds(p)
			if n := b.toUser(app, user, 1); n != 0 {
				t.Errorf("%d recipients", n)
			}
			a.holds(p)
		}
	})
}

// TestLogoutByTheBackend tells those who wait for events, and does not pass for a word of the device.
func TestLogoutByTheBackend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	path := "/v1/users/anna/devices/" + p.id
	w.do(call{"PUT", path, app.sk, nil, nil}).want(204)
	w.toUser(app, "anna", 1)
	told := w.heard.count(messages.HintEvents)
	w.do(call{"DELETE", "/v1/users/bob/devices/" + p.id, app.sk, nil, nil}).want(204)
	w.holds(p, "1")
	w.do(call{"DELETE", path, app.sk, nil, nil}).want(204)
	w.heard.until(t, messages.HintEvents, told)
	w.holds(p)
	if n := w.heard.count(messages.HintAcked); n != 0 {
		t.Errorf("%d acks", n)
	}
}

type person struct {
	ID      string   `json:"id"`
	Devices []device `json:"devices"`
	Topics  []string `json:"topics"`
}

func TestReadAndEraseAPerson(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: time.Hour}}.start(t)
	app, other := w.newApp(), w.newApp()
	one, two, theirs := w.newPhone(app), w.newPhone(app), w.newPhone(other)
	const path = "/v1/users/anna%2F%C3%B6"
	read := func(key string) (p person) {
		w.do(call{"GET", path, key, nil, nil}).want(200).into(&p)
		return p
	}
	if p := read(app.sk); p.ID != "anna/ö" || len(p.Devices)+len(p.Topics) != 0 || p.Devices == nil || p.Topics == nil {
		t.Errorf("nobody has %+v", p)
	}
	for _, p := range []phone{one, two} {
		w.do(call{"PUT", path + "/devices/" + p.id, app.sk, nil, nil}).want(204)
	}
	w.do(call{"PUT", path + "/devices/" + theirs.id, other.sk, nil, nil}).want(204)
	w.do(call{"PUT", "/v1/topics/news/users/anna%2F%C3%B6", app.sk, nil, nil}).want(204)
	if p := read(app.sk); len(p.Devices) != 2 || p.Devices[0].ID != one.id || p.Devices[1].UserID != "anna/ö" || !slices.Equal(p.Topics, []string{"news"}) {
		t.Errorf("she has %+v", p)
	}
	w.toUser(app, "anna/ö", 1)
	x := w.wait(one, "wait=55&ack="+w.inbox(one, "").Cursor)
	var erased map[string]int
	w.do(call{"DELETE", path, app.sk, nil, nil}).want(200).into(&erased)
	if erased["devices"] != 2 || erased["deliveries"] != 2 || erased["messages"] != 1 || erased["subscriptions"] < 1 {
		t.Errorf("erased %v", erased)
	}
	x.ended(t, 401, "unknown_key")
	w.heard.until(t, messages.HintGone, 1)
	for _, p := range []phone{one, two} {
		w.do(call{"GET", "/v1/device", p.key, nil, nil}).refused(401, "unknown_key")
		w.do(call{"GET", "/v1/devices/" + p.id, app.sk, nil, nil}).refused(404, "device_not_found")
	}
	if p := read(app.sk); len(p.Devices)+len(p.Topics) != 0 {
		t.Errorf("left %+v", p)
	}
	if p := read(other.sk); len(p.Devices) != 1 {
		t.Errorf("another app's person of that name has %+v", p)
	}
	clear(erased)
	w.do(call{"DELETE", path, app.sk, nil, nil}).want(200).into(&erased)
	for name, n := range erased {
		if n != 0 {
			t.Errorf("again: %d %s", n, name)
		}
	}
	for _, bad := range []string{"%00", "%FF", "a%0Ab", "a%C2%85b", "a%E2%80%AEb", strings.Repeat("x", 257)} {
		w.do(call{"GET", "/v1/users/" + bad, app.sk, nil, nil}).refused(422, "invalid_user")
		w.do(call{"DELETE", "/v1/users/" + bad, app.sk, nil, nil}).refused(422, "invalid_user")
	}
}

func TestRegistrationModes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	b := w.newBackend(app, "k")
	mode := func(mode string) {
		w.do(call{"PATCH", "/v1/apps/" + app.id, adminKey, obj{"registration": mode}, nil}).want(200)
	}
	p := w.newPhone(app)
	own := obj{"installation_id": w.installationOf(p), "platform": "web", "provider": "none"}
	try := func(key string, more obj) answer {
		return w.do(call{"POST", "/v1/devices", key, installation(more), nil})
	}
	mode("token")
	try(app.pk, nil).refused(403, "registration_closed")
	try(app.pk, obj{"user_token": "x"}).refused(422, "invalid_user_token")
	try(app.pk, obj{"user_token": b.token("anna")}).want(201)
	try(app.sk, nil).want(201)
	w.do(call{"POST", "/v1/devices", p.key, own, nil}).want(200)
	mode("server")
	try(app.pk, nil).refused(403, "registration_closed")
	try(app.pk, obj{"user_token": b.token("anna")}).refused(403, "registration_closed")
	try(app.sk, obj{"user_token": b.token("anna")}).want(201)
	w.do(call{"POST", "/v1/devices", p.key, own, nil}).want(200)
	w.do(call{"PATCH", "/v1/device", p.key, obj{"locale": "de"}, nil}).want(200)
	mode("open")
	try(app.pk, nil).want(201)
}
