package api_test

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"rouse/ident"
	"rouse/tokens"
)

// attempt is a call as its rightful caller makes it. A name in braces, as in the contract's paths, stands for something that the
// caller's app has: see scene.
type attempt struct {
	query, body string
	// needs are names that must be there though the call does not spell them.
	needs []string
}

// attempts has one for each operation that takes a key.
var attempts = map[string]attempt{
	"createApp": {body: `{"name":"Bakery"}`},
	"listApps":  {}, "getApp": {}, "deleteApp": {},
	"updateApp": {body: `{"name":"Brewery"}`},
	"createKey": {body: `{"kind":"secret"}`},
	"listKeys":  {}, "deleteKey": {},
	"rotateKey":            {body: `{}`},
	"listIdentityKeys":     {needs: []string{"kid"}},
	"putIdentityKey":       {body: `{"algorithm":"HS256","secret":"0123456789abcdef0123456789abcdef"}`},
	"deleteIdentityKey":    {},
	"listCredentials":      {needs: []string{"apns", "fcm"}},
	"putApnsCredential":    {body: `{"team_id":"ABCDE12345","key_id":"KEY1234567","private_key":"{p8}","topic":"com.example.bakery"}`},
	"deleteApnsCredential": {needs: []string{"apns"}},
	"putFcmCredential":     {body: `{"service_account":{account}}`},
	"deleteFcmCredential":  {needs: []string{"fcm"}},
	"verifyApnsCredential": {needs: []string{"apns"}},
	"verifyFcmCredential":  {needs: []string{"fcm"}},
	"registerDevice":       {body: `{"installation_id":"{installation}","platform":"other","provider":"none","topics":["{topic}"]}`},
	"listDevices":          {query: "user_id={user}&topic={topic}"},
	"getDevice":            {}, "deleteDevice": {}, "wakeDevice": {},
	"updateDevice": {body: `{"locale":"de","user_id":"{user}"}`},
	"getOwnDevice": {}, "deleteOwnDevice": {}, "unbindOwnUser": {needs: []string{"user"}}, "rotateOwnSecret": {},
	"updateOwnDevice": {body: `{"locale":"de"}`},
	"bindOwnUser":     {body: `{"user_token":"{user_token}"}`},
	"listOwnTopics":   {needs: []string{"topic"}}, "subscribeOwnTopic": {}, "unsubscribeOwnTopic": {},
	"reportPush": {body: `{"priority":"high","original_priority":"high"}`},
	"getUser":    {}, "deleteUser": {}, "bindUserDevice": {}, "unbindUserDevice": {},
	"listTopics": {needs: []string{"topic"}}, "getTopic": {}, "deleteTopic": {},
	"subscribeDevice": {}, "unsubscribeDevice": {}, "subscribeUser": {}, "unsubscribeUser": {},
	"subscribeDevices":   {body: `{"device_ids":["{device_id}"]}`},
	"unsubscribeDevices": {body: `{"device_ids":["{device_id}"]}`},
	"sendMessage":        {body: `{"to":{"device_id":"{device_id}"},"data":1}`},
	"sendMessages":       {body: `{"messages":[{"to":{"device_id":"{device_id}"},"data":1},{"to":{"user_id":"{user}"},"data":2},{"to":{"topic":"{topic}"},"data":3}]}`},
	"listMessages":       {query: "device_id={device_id}", needs: []string{"message_id"}},
	"getMessage":         {}, "listDeliveries": {}, "cancelMessage": {},
	"listEvents":    {query: "limit=100", needs: []string{"event_id"}},
	"createWebhook": {body: `{"url":"https://backend.example/rouse","events":["*"]}`},
	"listWebhooks":  {needs: []string{"webhook_id"}}, "getWebhook": {}, "deleteWebhook": {}, "testWebhook": {},
	"updateWebhook":       {body: `{"description":"ours"}`},
	"rotateWebhookSecret": {body: `{}`},
	"redeliverEvents":     {body: `{"event_id":"{event_id}"}`},
	"getInbox":            {query: "ack={cursor}", needs: []string{"message_id"}}, "getInboxMessage": {},
	"ackMessages":    {body: `{"ids":["{message_id}"]}`},
	"reportReceipts": {body: `{"receipts":[{"message_id":"{message_id}","event":"opened"}]}`},
}

// owned are the names that another app or device may have, too, and what nobody has.
var owned = map[string]string{
	"key_id": string(ident.NewKey()), "kid": "never-given", "device_id": string(ident.NewDevice()), "user": "nobody", "topic": "nowhere",
	"message_id": string(ident.NewMessage()), "webhook_id": string(ident.NewWebhook()), "event_id": string(ident.NewEvent()), "cursor": "nonsense",
}

// ofDevice are those of them that a device has to itself.
var ofDevice = []string{"message_id", "cursor"}

// scene is an app and one device of it, and what they turn out to need.
type scene struct {
	*world
	app          tenant
	made         map[string]string
	device       phone
	installation string
}

func (w *world) scene() *scene { return &scene{world: w, app: w.newApp(), made: map[string]string{}} }

// sibling is another device of the same app.
func (s *scene) sibling() *scene {
	return &scene{world: s.world, app: s.app, made: map[string]string{}}
}

// value is what stands for a name. It is made when first asked for.
func (s *scene) value(name string) string {
	s.t.Helper()
	if v, ok := s.made[name]; ok {
		return v
	}
	v := s.make(name)
	if name != "installation" { // each registration has its own
		s.made[name] = v
	}
	return v
}

func (s *scene) make(name string) string {
	s.t.Helper()
	switch name {
	case "app_id":
		return s.app.id
	case "key_id":
		return s.do(call{"POST", "/v1/apps/" + s.app.id + "/keys", adminKey, obj{"kind": "secret"}, nil}).want(201).text("id")
	case "kid":
		return s.backend().kid
	case "apns", "fcm":
		x := call{"PUT", "/v1/apps/" + s.app.id + "/credentials/" + name, adminKey, s.fill(attempts["putApnsCredential"].body, s.value), nil}
		if name == "fcm" {
			x.body = s.fill(attempts["putFcmCredential"].body, s.value)
		}
		s.do(x).want(200)
		return name
	case "p8":
		quoted := must(json.Marshal(signingKey(s.t)))
		return strings.Trim(string(quoted), `"`)
	case "account":
		return oneAccount(s.t)
	case "device_id":
		s.installation = unique("installation")
		s.device = s.register(s.app.pk, obj{"installation_id": s.installation, "platform": "other", "provider": "none"})
		return s.device.id
	case "installation":
		return unique("installation")
	case "user":
		user := unique("user")
		s.do(call{"PUT", "/v1/users/" + user + "/devices/" + s.value("device_id"), s.app.sk, nil, nil}).want(204)
		return user
	case "user_token":
		return s.backend().token(unique("user"))
	case "topic":
		topic := unique("topic")
		s.do(call{"PUT", "/v1/topics/" + topic + "/devices/" + s.value("device_id"), s.app.sk, nil, nil}).want(204)
		return topic
	case "message_id":
		s.value("device_id")
		return s.send(s.app, s.device, 1)
	case "cursor":
		s.value("message_id")
		return s.inbox(s.device, "").Cursor
	case "webhook_id":
		return s.do(call{"POST", "/v1/webhooks", s.app.sk, attempts["createWebhook"].body, nil}).want(201).text("id")
	case "event_id":
		s.value("device_id") // its registration is an event
		var list struct{ Events []struct{ ID string } }
		s.do(call{"GET", "/v1/events", s.app.sk, nil, nil}).want(200).decode(&list)
		if len(list.Events) == 0 {
			s.t.Fatal("a registration is no event")
		}
		return list.Events[0].ID
	}
	s.t.Fatalf("nobody knows how to make {%s}", name)
	return ""
}

func (s *scene) backend() backend { return s.newBackend(s.app, unique("kid")) }

var onlyAccount struct {
	once sync.Once
	json string
}

// oneAccount is a service account; the same for all, because a key of RSA takes its time.
func oneAccount(t testing.TB) string {
	t.Helper()
	onlyAccount.once.Do(func() { onlyAccount.json = string(must(json.Marshal(account(t)))) })
	return onlyAccount.json
}

var named = regexp.MustCompile(`\{([a-z_0-9]+)\}`)

// fill puts values in the place of names.
func (s *scene) fill(text string, value func(string) string) string {
	return named.ReplaceAllStringFunc(text, func(name string) string { return value(strings.Trim(name, "{}")) })
}

// call is an attempt, each name replaced by its value.
func (s *scene) call(m method, key string, value func(string) string) answer {
	s.t.Helper()
	x := call{method: m.method, path: s.fill(m.path, value), key: key}
	if query := s.fill(m.attempt.query, value); query != "" {
		x.path += "?" + query
	}
	if m.attempt.body != "" {
		x.body = s.fill(m.attempt.body, value)
	}
	calls.Add(1)
	return s.do(x)
}

var calls atomic.Int64

// keyWith is a secret key of just these scopes.
func (s *scene) keyWith(scopes ...tokens.Scope) string {
	s.t.Helper()
	return s.do(call{"POST", "/v1/apps/" + s.app.id + "/keys", adminKey, obj{"kind": "secret", "scopes": scopes}, nil}).want(201).text("key")
}

// method is one operation of the contract.
type method struct {
	method, path, id string
	// takes are the kinds of key it takes, scope what a secret one needs.
	takes   []string
	scope   tokens.Scope
	attempt attempt
}

var needsScope = regexp.MustCompile("(?i)needs scope\\s+`([a-z]+)`")

// methods reads all that take a key from the contract.
func methods(t *testing.T) (all []method) {
	t.Helper()
	unused := maps.Clone(attempts)
	for path, item := range document().Paths.Map() {
		for name, op := range item.Operations() {
			if op.Security == nil {
				continue
			}
			m := method{method: name, path: path, id: op.OperationID, takes: kindsOf(*op.Security)}
			var ok bool
			if m.attempt, ok = attempts[m.id]; !ok {
				t.Errorf("nobody knows how to call %s", m.id)
			}
			delete(unused, m.id)
			if slices.Contains(m.takes, "secretKey") {
				said := needsScope.FindStringSubmatch(op.Description)
				if said == nil {
					t.Fatalf("%s does not say which scope it needs", m.id)
				}
				m.scope = tokens.Scope(said[1])
			}
			all = append(all, m)
		}
	}
	for id := range unused {
		t.Errorf("there is no operation %s", id)
	}
	return all
}

func kindsOf(requirements openapi3.SecurityRequirements) (kinds []string) {
	for _, r := range requirements {
		kinds = slices.AppendSeq(kinds, maps.Keys(r))
	}
	return kinds
}
