package sim

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// phoneRoutes are the calls about device tokens, what reaches them, and the clock.
func (s *Sim) phoneRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /control/tokens", s.controlToken)
	mux.HandleFunc("GET /control/tokens/{token}", s.controlPhone)
	mux.HandleFunc("DELETE /control/tokens/{token}", s.controlKill)
	mux.HandleFunc("POST /control/tokens/{token}/{switch}", s.controlSwitch)
	mux.HandleFunc("GET /control/pushes", s.controlPushes)
	mux.HandleFunc("POST /control/clock", s.controlClock)
}

const noSuchToken = "there is no such device token; POST /control/tokens makes one"

func (s *Sim) controlPhone(w http.ResponseWriter, r *http.Request) {
	state, ok := s.Phone(r.PathValue("token"))
	if !ok {
		refuse(w, http.StatusNotFound, noSuchToken)
		return
	}
	writeJSON(w, http.StatusOK, state)
}

// controlKill makes a token dead, from the time in ?at= if that is given.
func (s *Sim) controlKill(w http.ResponseWriter, r *http.Request) {
	var at time.Time
	if text := r.URL.Query().Get("at"); text != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, text); err != nil {
			refuse(w, http.StatusBadRequest, "at is a time such as 2026-01-02T15:04:05Z")
			return
		}
	}
	if !s.phones.kill(r.PathValue("token"), at) {
		refuse(w, http.StatusNotFound, noSuchToken)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// controlSwitch takes {"online": false} at .../online, and so on.
func (s *Sim) controlSwitch(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("switch")
	turn, ok := map[string]func(string, bool) error{"online": s.SetOnline, "dozing": s.SetDozing, "demoted": s.SetDemoted}[name]
	if !ok {
		refuse(w, http.StatusNotFound, fmt.Sprintf("a phone has no switch %q; it has online, dozing and demoted", name))
		return
	}
	var in map[string]bool
	if !readJSON(w, r, &in) {
		return
	}
	on, given := in[name]
	if !given || len(in) != 1 {
		refuse(w, http.StatusUnprocessableEntity, fmt.Sprintf("the body is {%q: true} or {%q: false}", name, name))
		return
	}
	switch err := turn(r.PathValue("token"), on); {
	case errors.Is(err, errInstant):
		refuse(w, http.StatusConflict, err.Error())
	case err != nil:
		refuse(w, http.StatusNotFound, noSuchToken)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Sim) controlClock(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Advance string `json:"advance"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	d, err := time.ParseDuration(in.Advance)
	if err != nil || d <= 0 {
		refuse(w, http.StatusUnprocessableEntity, "advance is a duration over 0 such as \"20m\"")
		return
	}
	s.Advance(d)
	w.WriteHeader(http.StatusNoContent)
}

// controlLog answers with the entries that the query asks for.
func (s *Sim) controlLog(w http.ResponseWriter, r *http.Request) {
	f, err := readLogFilter(r.URL.Query())
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	entries := []Entry{}
	for _, e := range s.Log() {
		if f.takes(e) {
			entries = append(entries, e)
		}
	}
	if f.last > 0 && len(entries) > f.last {
		entries = entries[len(entries)-f.last:]
	}
	writeJSON(w, http.StatusOK, map[string]any{"entries": entries})
}

// logFilter says which entries of the log are wanted; what is empty, 0 or -1 matches all.
type logFilter struct {
	words                           map[string]string
	token                           string
	connection, status, after, last int
}

// readLogFilter reads a query; a name or number that makes no sense is an error.
func readLogFilter(q url.Values) (logFilter, error) {
	f := logFilter{words: map[string]string{}, status: -1}
	numbers := map[string]*int{"connection": &f.connection, "status": &f.status, "after": &f.after, "last": &f.last}
	for name, values := range q {
		value := values[0]
		to, isNumber := numbers[name]
		var err error
		switch {
		case isNumber:
			*to, err = number(value)
		case name == "token":
			f.token = value
		case name == "provider" && !slices.Contains([]string{APNs, FCM, Token}, value):
			return f, fmt.Errorf("provider is %q, not apns, fcm or token", value)
		case name == "environment" && value != Production && value != Sandbox:
			return f, fmt.Errorf("environment is %q, not production or sandbox", value)
		case name == "provider" || name == "environment" || name == "reason" || name == "fault":
			f.words[name] = value
		default:
			return f, fmt.Errorf("the log has no filter %q; it has provider, environment, token, connection, status, reason, fault, after and last", name)
		}
		if err != nil {
			return f, fmt.Errorf("%s is a number, 0 or more", name)
		}
	}
	return f, nil
}

func (f logFilter) takes(e Entry) bool {
	for name, value := range map[string]string{"provider": e.Provider, "environment": e.Environment, "reason": e.Reason, "fault": e.Fault} {
		if want, asked := f.words[name]; asked && want != value {
			return false
		}
	}
	return strings.HasPrefix(e.Token, f.token) && (f.connection == 0 || f.connection == e.Connection) &&
		(f.status < 0 || f.status == e.Status) && e.N > f.after
}
