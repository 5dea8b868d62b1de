package api_test

import (
	"fmt"
	"strings"
	"testing"
)

// Which of two fields of one name counts, JSON does not say: none does. What is not looked into passes as it is.
func TestNothingIsNamedTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	phone := w.newPhone(app)
	for body, at := range map[string]string{
		`{"to":{"user_id":"a"},"data":1,"to":{"user_id":"b"}}`:                       "/to",
		`{"to":{"user_id":"a"},"data":1,"t\u006f":{"user_id":"b"}}`:                  "/to",
		`{"to":{"user_id":"a" , "user_id" : "b"},"data":1}`:                          "/to/user_id",
		`{"to":{"user_id":"a"},"data":{"to":1},"data":2}`:                            "/data",
		`{"to":{"user_id":"a"},"data":1,"notification":{"title":"\"","title":"\\"}}`: "/notification/title",
	} {
		w.do(call{"POST", "/v1/messages", app.sk, body, nil}).refused(422, "invalid_body").points(at)
		batch := w.do(call{"POST", "/v1/messages/batch", app.sk, `{"messages":[` + body + `]}`, nil}).want(200)
		if !strings.Contains(string(batch.body), `"pointer":"`+at+`"`) {
			t.Errorf("%s in a batch: %s", body, batch.body)
		}
	}
	message := "msg_" + strings.Repeat("0", 26)
	w.do(call{"POST", "/v1/inbox/receipts", phone.key, `{"receipts":[{"message_id":"` + message + `","event":"opened","event":"displayed"}]}`, nil}).
		refused(422, "invalid_body").points("/receipts/0/event")
	w.do(call{"POST", "/v1/messages", app.sk, `{"to":{"device_id":"` + phone.id + `"},"data":{"a":"}\"{","a":[{"b":-1.5e3,"b":true},[]]}}`, nil}).want(202)
	w.do(call{"PATCH", "/v1/device", phone.key, `{"app_version":"2","of_tomorrow":{"a":1,"a":2}}`, nil}).want(200)
}

// A body of a million fields is refused before each is looked at: it took ten seconds and six gigabytes to say what is wrong with all.
func TestBodiesHaveFewFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	phone := w.newPhone(app)
	var fields strings.Builder
	for i := range 101 {
		fmt.Fprintf(&fields, `,"f%d":%d`, i, i)
	}
	for _, c := range []call{
		{"POST", "/v1/messages/batch", app.sk, `{"messages":[]` + fields.String() + "}", nil},
		{"PATCH", "/v1/device", phone.key, `{"app_version":"2"` + fields.String() + "}", nil},
	} {
		if a := w.do(c).refused(422, "invalid_body").points(""); !strings.Contains(string(a.body), "at most 100 fields") {
			t.Errorf("%s %s: %s", c.method, c.path, a.body)
		}
	}
}
