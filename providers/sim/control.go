package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// longestWait bounds the wait of GET /control/pushes.
const longestWait = 55 * time.Second

// controlBodyLimit bounds the requests of the control API.
const controlBodyLimit = 1 << 20

// controlHandler is the control API. Every answer is JSON; an error is
// {"title", "status", "detail"} with a sentence that says what to fix.
func (s *Sim) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /control/reset", func(w http.ResponseWriter, _ *http.Request) {
		s.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /control/rules", s.controlAddRule)
	mux.HandleFunc("GET /control/rules", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"rules": s.rules.list()})
	})
	mux.HandleFunc("DELETE /control/rules", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearRules()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("PUT /control/rules", s.controlSetRules)
	mux.HandleFunc("DELETE /control/rules/{id}", s.controlRemoveRule)
	mux.HandleFunc("GET /control/settings", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.Settings()) })
	mux.HandleFunc("PATCH /control/settings", s.controlSettings)
	mux.HandleFunc("GET /control/log", s.controlLog)
	mux.HandleFunc("GET /control/stats", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.Stats()) })
	mux.HandleFunc("GET /control/endpoints", s.controlEndpoints)
	mux.HandleFunc("POST /control/apns/keys", s.controlKey)
	mux.HandleFunc("DELETE /control/apns/keys/{id}", func(w http.ResponseWriter, r *http.Request) {
		gone(w, s.RevokeAPNsKey(r.PathValue("id")), "there is no key with this id")
	})
	mux.HandleFunc("POST /control/apns/certificates", s.controlCertificate)
	mux.HandleFunc("POST /control/fcm/accounts", s.controlAccount)
	mux.HandleFunc("DELETE /control/fcm/accounts/{email}", func(w http.ResponseWriter, r *http.Request) {
		gone(w, s.RevokeServiceAccount(r.PathValue("email")), "there is no service account with this e-mail address")
	})
	mux.HandleFunc("POST /control/fcm/access-tokens", s.controlAccessToken)
	mux.HandleFunc("DELETE /control/fcm/access-tokens", func(w http.ResponseWriter, _ *http.Request) {
		s.RevokeAccessTokens()
		w.WriteHeader(http.StatusNoContent)
	})
	s.phoneRoutes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, fmt.Sprintf("%s %s is not part of the control API", r.Method, r.URL.Path))
	})
	return http.NewCrossOriginProtection().Handler(s.counted(mux))
}

// counted makes Close wait for the handlers.
func (s *Sim) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			panic(http.ErrAbortHandler)
		}
		defer s.wg.Done()
		r.Body = http.MaxBytesReader(w, r.Body, controlBodyLimit)
		next.ServeHTTP(w, r)
	})
}

func (s *Sim) controlEndpoints(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{
		"apns": s.APNsURL(), "apns_sandbox": s.APNsSandboxURL(), "fcm": s.FCMURL(), "fcm_token": s.FCMTokenURL(),
		"fcm_plain": s.FCMPlainURL(), "ca": string(s.CAPEM()),
	})
}

func (s *Sim) controlAddRule(w http.ResponseWriter, r *http.Request) {
	var raw json.RawMessage
	if !readJSON(w, r, &raw) {
		return
	}
	rule, wrong := readRule(raw)
	if len(wrong) > 0 {
		refuse(w, http.StatusUnprocessableEntity, strings.Join(wrong, "; "))
		return
	}
	writeJSON(w, http.StatusCreated, map[string]int{"id": s.rules.add(rule)})
}

// controlSetRules replaces all rules by those of a file.
func (s *Sim) controlSetRules(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body cannot be read, or is over 1 MiB")
		return
	}
	rules, err := ReadRules(data)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	writeJSON(w, http.StatusOK, map[string][]int{"ids": s.rules.replace(rules)})
}

// controlSettings changes what the body names.
func (s *Sim) controlSettings(w http.ResponseWriter, r *http.Request) {
	settings := s.Settings()
	if !readJSON(w, r, &settings) {
		return
	}
	if err := s.Adjust(settings); err != nil {
		refuse(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, s.Settings())
}

// gone answers for something removed.
func gone(w http.ResponseWriter, ok bool, sentence string) {
	if !ok {
		refuse(w, http.StatusNotFound, sentence)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Sim) controlRemoveRule(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || !s.rules.remove(id) {
		refuse(w, http.StatusNotFound, "there is no rule with this id")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Sim) controlKey(w http.ResponseWriter, r *http.Request) {
	var in struct {
		TeamID      string   `json:"team_id"`
		KeyID       string   `json:"key_id"`
		Environment string   `json:"environment"`
		Topics      []string `json:"topics"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	switch {
	case in.TeamID == "" || in.KeyID == "":
		refuse(w, http.StatusUnprocessableEntity, "team_id and key_id are needed")
	case in.Environment != "" && in.Environment != Production && in.Environment != Sandbox:
		refuse(w, http.StatusUnprocessableEntity, "environment is production, sandbox, or left out for both")
	default:
		key := s.newAPNsKey(in.TeamID, in.KeyID, in.Environment, in.Topics)
		writeJSON(w, http.StatusCreated, map[string]string{"private_key": key})
	}
}

func (s *Sim) controlCertificate(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Topic       string    `json:"topic"`
		Environment string    `json:"environment"`
		Expires     time.Time `json:"expires"`
		Unknown     bool      `json:"unknown"`
		Password    string    `json:"password"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	switch {
	case !topicForm.MatchString(in.Topic):
		refuse(w, http.StatusUnprocessableEntity, "topic is needed: the bundle id of the app, such as com.example.app")
	case in.Environment != "" && in.Environment != Production && in.Environment != Sandbox:
		refuse(w, http.StatusUnprocessableEntity, "environment is production, sandbox, or left out for both")
	default:
		made := s.NewAPNsIdentity(APNsCertificate(in))
		writeJSON(w, http.StatusCreated, map[string]any{"certificate": made.CertificatePEM, "private_key": made.PrivateKeyPEM, "p12": made.P12})
	}
}

func (s *Sim) controlAccount(w http.ResponseWriter, r *http.Request) {
	if project, ok := readProject(w, r); ok {
		writeJSON(w, http.StatusCreated, json.RawMessage(s.NewServiceAccount(project)))
	}
}

func (s *Sim) controlAccessToken(w http.ResponseWriter, r *http.Request) {
	if project, ok := readProject(w, r); ok {
		writeJSON(w, http.StatusCreated, map[string]string{"access_token": s.NewAccessToken(project)})
	}
}

// readProject reads a body that names a project; where it does not, the answer has been given.
func readProject(w http.ResponseWriter, r *http.Request) (project string, ok bool) {
	var in struct {
		Project string `json:"project"`
	}
	if !readJSON(w, r, &in) {
		return "", false
	}
	if in.Project == "" {
		refuse(w, http.StatusUnprocessableEntity, "project is needed")
	}
	return in.Project, in.Project != ""
}

func (s *Sim) controlToken(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Provider string `json:"provider"`
		Topic    string `json:"topic"`
		Project  string `json:"project"`
		Sandbox  bool   `json:"sandbox"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	switch {
	case in.Provider != APNs && in.Provider != FCM:
		refuse(w, http.StatusUnprocessableEntity, fmt.Sprintf("provider is %q, not apns or fcm", in.Provider))
	case in.Provider == APNs && in.Topic != "" && in.Project == "":
		writeJSON(w, http.StatusCreated, map[string]string{"token": s.NewAPNsToken(in.Topic, in.Sandbox)})
	case in.Provider == FCM && in.Project != "" && in.Topic == "" && !in.Sandbox:
		writeJSON(w, http.StatusCreated, map[string]string{"token": s.NewFCMToken(in.Project)})
	default:
		refuse(w, http.StatusUnprocessableEntity, "provider apns needs a topic and takes sandbox; provider fcm needs a project")
	}
}

// controlPushes is how a phone elsewhere sleeps: it answers as soon as there is a
// push with a number over after, or empty when wait is over.
func (s *Sim) controlPushes(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	after, err := number(q.Get("after"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "after is the number of the last push seen, 0 or more")
		return
	}
	wait, err := number(q.Get("wait"))
	if err != nil || wait > int(longestWait/time.Second) {
		refuse(w, http.StatusBadRequest, "wait is a number of seconds from 0 to 55")
		return
	}
	timeout := time.NewTimer(time.Duration(wait) * time.Second)
	defer timeout.Stop()
	for last := wait == 0; ; {
		pushes, changed := s.phones.after(q.Get("token"), after)
		switch {
		case changed == nil:
			refuse(w, http.StatusNotFound, noSuchToken)
			return
		case len(pushes) > 0 || last:
			writeJSON(w, http.StatusOK, map[string]any{"pushes": pushes})
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			last = true
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		}
	}
}

// number reads a count; nothing counts as 0.
func number(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, errors.New("not a number")
	}
	return n, nil
}

func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	var raw json.RawMessage
	err := json.NewDecoder(r.Body).Decode(&raw)
	if err == nil {
		err = decodeStrict(raw, into)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body is not what is expected here: "+err.Error())
		return false
	}
	return true
}

func refuse(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": sentence})
}

// writeJSON leaves <, > and & alone, so that bodies stay recognisable.
func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(value)
}
