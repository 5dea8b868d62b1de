package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"rouse/config"
)

// profile is what rouse dev leaves for the other terminals. It holds keys: it
// is readable by its owner alone.
type profile struct {
	URL            string `json:"url"`
	OpsURL         string `json:"ops_url"`
	ControlURL     string `json:"sim_control_url"`
	AppID          string `json:"app_id"`
	AdminKey       string `json:"admin_key"`
	SecretKey      string `json:"secret_key"`
	PublishableKey string `json:"publishable_key"`
	// Topic and Project are whom the simulated phones belong to at Apple and Google.
	Topic   string `json:"apns_topic"`
	Project string `json:"fcm_project"`
	// Phones is the folder in which rouse device keeps its phones.
	Phones string `json:"phones"`
	// DB is the database if it is not the file beside them.
	DB string `json:"db,omitempty"`
}

// dir is the folder that rouse dev keeps its state in.
func (p profile) dir() string { return filepath.Dir(p.Phones) }

// database is that of rouse dev.
func (p profile) database() config.DSN {
	if p.DB != "" {
		return config.DSN(p.DB)
	}
	return config.DSN("sqlite:" + filepath.Join(p.dir(), "rouse.db"))
}

// phoneFile is one phone of rouse device.
type phoneFile struct {
	Name         string    `json:"name"`
	Installation string    `json:"installation_id"`
	Device       string    `json:"device_id"`
	Secret       string    `json:"secret"`
	Provider     string    `json:"provider"`
	Token        string    `json:"token,omitempty"`
	UsedAt       time.Time `json:"used_at"`
}

// profilePath is where the profile lies: $ROUSE_PROFILE, else rouse/dev.json in
// the user's configuration folder.
func (t *terminal) profilePath() (string, error) {
	if path := t.env["ROUSE_PROFILE"]; path != "" {
		return path, nil
	}
	dir := t.env["XDG_CONFIG_HOME"]
	if dir == "" {
		var err error
		if dir, err = os.UserConfigDir(); err != nil {
			return "", fmt.Errorf("no configuration folder for the profile; name a file in ROUSE_PROFILE: %w", err)
		}
	}
	return filepath.Join(dir, "rouse", "dev.json"), nil
}

// profile reads what rouse dev left.
func (t *terminal) profile() (profile, error) {
	var p profile
	path, err := t.profilePath()
	if err != nil {
		return p, err
	}
	err = readJSON(path, &p)
	if errors.Is(err, fs.ErrNotExist) {
		return p, mistake("start `rouse dev` in another terminal first")
	}
	return p, err
}

// savePhone writes a phone's file; no other process writes the same one.
func (p profile) savePhone(phone phoneFile) error {
	return writeJSON(filepath.Join(p.Phones, phone.Name+".json"), phone)
}

// loadPhone reads a phone; one that was never there is zero but for its name.
func (p profile) loadPhone(name string) (phoneFile, error) {
	phone := phoneFile{Name: name}
	err := readJSON(filepath.Join(p.Phones, name+".json"), &phone)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return phone, err
}

// lastPhone returns the phone that was switched on last.
func (p profile) lastPhone() (phoneFile, error) {
	files, err := filepath.Glob(filepath.Join(p.Phones, "*.json"))
	if err != nil {
		return phoneFile{}, fmt.Errorf("looking for phones: %w", err)
	}
	var last phoneFile
	for _, file := range files {
		var phone phoneFile
		if err := readJSON(file, &phone); err != nil {
			return phoneFile{}, err
		}
		if last.Device == "" || phone.UsedAt.After(last.UsedAt) {
			last = phone
		}
	}
	if last.Device == "" {
		return last, mistake("no phone is registered: start `rouse device` in another terminal, or say to whom with --to or --user")
	}
	return last, nil
}

func readJSON(path string, into any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(path), err)
	}
	if err := json.Unmarshal(content, into); err != nil {
		return fmt.Errorf("%s is damaged; delete it: %w", path, err)
	}
	return nil
}

// writeJSON replaces a file at once, so that a reader sees the old or the new,
// and lets nobody but its owner read it.
func writeJSON(path string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	tmp, err := os.CreateTemp(dir, ".new-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	_, err = tmp.Write(append(content, '\n'))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return nil
}
