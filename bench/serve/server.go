package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rouse/client"
	"rouse/ident"
	"rouse/tokens"
)

// server is one `rouse serve` on free ports of this machine, over a database of its own.
type server struct {
	cmd   *exec.Cmd
	url   string
	admin string
	http  *http.Client
}

func startServer(ctx context.Context, binary, dir string) (*server, error) {
	api, err := freePort()
	if err != nil {
		return nil, err
	}
	ops, err := freePort()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	s := &server{
		url: "http://" + api, admin: string(tokens.MintKey(tokens.AdminKey, string(ident.NewKey())[len(ident.KeyPrefix):])),
		http: &http.Client{Transport: &http.Transport{MaxIdleConns: 2000, MaxIdleConnsPerHost: 2000}},
	}
	s.cmd = exec.Command(binary, "serve", "--listen", api, "--ops-listen", ops, "--db", "sqlite:"+filepath.Join(dir, "rouse.db"), "--log-level", "warn")
	s.cmd.Env = []string{"ROUSE_ADMIN_KEY=" + s.admin}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.ready(ctx, "http://"+ops+"/readyz"); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// freePort returns an address nobody listens on at the moment.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (s *server) ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		if res, err := s.http.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("the server did not become ready: %w", ctx.Err())
		}
	}
}

func (s *server) client(key string) (*client.ClientWithResponses, error) {
	return client.NewClientWithResponses(s.url, client.WithHTTPClient(s.http), client.WithKey(key))
}

func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.cmd.Wait()
}

// usage is what a process has taken so far.
type usage struct {
	cpu  time.Duration
	peak int64 // bytes of resident memory
}

// usage reads the server's figures from Linux's /proc.
func (s *server) usage() (u usage, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return u, fmt.Errorf("memory and CPU are read from /proc, which only Linux has: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return u, err
			}
			u.peak = kib << 10
		}
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return u, err
	}
	// The name of the command stands in brackets and may hold spaces; user and system time are the 12th and 13th words after it.
	words := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const tick = time.Second / 100
	for _, w := range words[11:13] {
		ticks, err := strconv.ParseInt(string(w), 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(ticks) * tick
	}
	return u, nil
}
