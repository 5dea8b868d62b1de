package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// localLimit is how long something on this machine may take to answer.
const localLimit = 3 * time.Second

// server tells whether one runs on the database and what it says; where none does, whether its addresses are free.
func (e examination) server(ctx context.Context, u user) []found {
	ops, fixed := callable(e.cfg.OpsListen)
	status, text := 0, ""
	if fixed {
		limited, cancel := context.WithTimeout(ctx, localLimit)
		defer cancel()
		status, text = ask(limited, "http://"+ops+"/readyz")
	}
	switch {
	case status == 0 && e.cfg.DSN.IsPostgres() && fixed && listens(ctx, ops):
		return []found{broken("server", "silent", fmt.Sprintf("Something listens at %s and does not answer: most likely a rouse serve that hangs or is stopped (SIGSTOP, a debugger, no CPU).", ops),
			"See which process it is (ss -ltnp); if it is rouse, let it go on or restart it; if it is another program, end it or choose another --ops-listen (ROUSE_OPS_LISTEN).")}
	case status == 0 && e.cfg.DSN.IsPostgres():
		return append([]found{doubtful("server", "not_running", "No server answers here; whether others run on the database, nodes tells.", "Start it: rouse serve, with these same settings.")},
			e.free(ctx)...)
	case status == 0 && !u.used:
		return append([]found{doubtful("server", "not_running", "No server runs on this database.", "Start it: rouse serve, with these same settings.")},
			e.free(ctx)...)
	case status == 0 && !fixed:
		return []found{doubtful("server", "unknown_address", fmt.Sprintf("The database is open in %s, whose operations listener has a port of its own choosing.", u.who()),
			"Give doctor the address that serve logged at its start: --ops-listen (ROUSE_OPS_LISTEN).")}
	case status == 0:
		return []found{broken("server", "silent", fmt.Sprintf("The database is open in %s, and nothing answers at %s.", u.who(), ops),
			"If that is rouse serve, give doctor its --ops-listen (ROUSE_OPS_LISTEN), or restart it if it hangs; if it is another program, end it.")}
	case status == http.StatusServiceUnavailable && strings.HasPrefix(text, "not ready: "):
		return []found{broken("server", "not_ready", sentence("the server answers at "+ops+" and is "+text), "The findings on the database say more; so does the server's log.")}
	case status != http.StatusOK || !strings.HasPrefix(text, "ok"):
		return []found{broken("server", "not_rouse", fmt.Sprintf("What answers at %s is not rouse.", ops),
			"Choose another address with --ops-listen (ROUSE_OPS_LISTEN), for serve and for doctor.")}
	case u.known && !u.used:
		return []found{doubtful("server", "other_database", fmt.Sprintf("A server answers at %s, and it has another database open.", ops),
			"Give doctor the same --db (ROUSE_DB) as that server, or another --ops-listen.")}
	}
	if _, without, degraded := strings.Cut(text, "degraded: "); degraded {
		return []found{doubtful("server", "degraded", sentence("a server runs and is ready, and "+without), "The finding on the bus says more; so does the server's log."), e.front(ctx)}
	}
	return []found{fine("server", "A server runs and is ready."), e.front(ctx)}
}

// listens reports whether something takes connections at an address. The system does so for a program that is frozen.
func listens(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, localLimit)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was said
	return true
}

// callable turns an address to listen on into one to call; fixed is false if its port is chosen at the start.
func callable(address string) (host string, fixed bool) {
	name, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return address, false
	}
	if ip := net.ParseIP(name); name == "" || ip != nil && ip.IsUnspecified() {
		name = "127.0.0.1"
	}
	return net.JoinHostPort(name, port), true
}

// ask returns the status and the text of an answer; 0 if there is none.
func ask(ctx context.Context, url string) (status int, text string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, ""
	}
	// No proxy: this is our own machine. No idle connection: the process ends soon.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if err != nil {
		return 0, ""
	}
	return res.StatusCode, strings.TrimSpace(string(body))
}

// front tells whether the API of a server that runs answers where the settings say.
func (e examination) front(ctx context.Context) found {
	api, fixed := callable(e.cfg.Listen)
	if !fixed {
		return fine("listen", "The API's port was chosen at the start; it was not called.")
	}
	if status, _ := ask(ctx, "http://"+api+"/"); status == 0 {
		return broken("listen", "silent", fmt.Sprintf("A server runs, and its API does not answer at %s.", api),
			"Give doctor the same --listen (ROUSE_LISTEN) as serve; if it is the same, restart the server and look at its log.")
	}
	return fine("listen", "The API answers at %s.", api)
}

// free tells whether the addresses that serve would take can be had.
func (e examination) free(ctx context.Context) []found {
	return []found{
		freeAddress(ctx, "listen", e.cfg.Listen, "--listen (ROUSE_LISTEN)"),
		freeAddress(ctx, "ops_listen", e.cfg.OpsListen, "--ops-listen (ROUSE_OPS_LISTEN)"),
	}
}

func freeAddress(ctx context.Context, check, address, setting string) found {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		_ = l.Close() // it was only to see
		return fine(check, "%s is free.", address)
	case errors.Is(err, syscall.EADDRINUSE):
		return broken(check, "address_in_use", fmt.Sprintf("Another program listens on %s.", address), "End it, or choose another address with "+setting+".")
	case errors.Is(err, syscall.EACCES):
		return broken(check, "address_forbidden", fmt.Sprintf("This user may not listen on %s.", address), "Choose a port above 1023 with "+setting+", and put a proxy in front.")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return broken(check, "address_not_here", fmt.Sprintf("%s is no address of this machine.", address), "Choose one that is, or none before the colon, with "+setting+".")
	}
	return broken(check, "address_unusable", fmt.Sprintf("Nothing can listen on %s: %v.", address, errors.Unwrap(err)), "Choose another address with "+setting+".")
}
