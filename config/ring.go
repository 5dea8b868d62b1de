package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"rouse/tokens"
)

// KeyFile returns where the master keys of the database at path lie when the
// operator gave none.
func KeyFile(path string) string { return path + ".keys" }

// Ring returns the ring that seals what the database at path holds. With keys
// left out it reads the key file beside the database, and makes one, readable by its owner alone, where there is
// no database yet; file then names it. A database whose key file is gone is refused: with a new key
// nothing in it would open, and the old one may still be found. Without path, as on PostgreSQL, there is no such
// file, and the keys are required.
func Ring(keys Hidden, path string) (ring *tokens.Ring, file string, err error) {
	if keys != "" {
		ring, err = tokens.ParseRing(string(keys))
		return ring, "", err
	}
	if path == "" {
		return nil, "", fmt.Errorf("the master keys are missing: PostgreSQL has no key file beside it; give the keys in %s", Env("master-keys"))
	}
	file = KeyFile(path)
	content, err := readKeyFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		content, err = makeKeyFile(file, path)
	}
	if err != nil {
		return nil, file, err
	}
	ring, err = tokens.ParseRing(strings.TrimSpace(content))
	if err != nil {
		return nil, file, fmt.Errorf("key file %s: %w", file, err)
	}
	return ring, file, nil
}

func readKeyFile(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("looking for the key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("key file %s can be read by others (mode %04o); run: chmod 600 %s", file, info.Mode().Perm(), file)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the key file: %w", err)
	}
	return string(content), nil
}

// makeKeyFile writes a fresh key and returns it. It is on the disk before
// anything can be sealed with it.
func makeKeyFile(file, path string) (string, error) {
	if _, err := os.Stat(path); err == nil {
		return "", fmt.Errorf("database %s is there but its key file %s is not: restore the file, or give the keys in %s", path, file, Env("master-keys"))
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", fmt.Errorf("making room for the key file: %w", err)
	}
	content := tokens.NewRingKey("k1") + "\n"
	if err := writeNew(file, content); err != nil {
		return "", fmt.Errorf("writing the key file: %w", err)
	}
	return content, nil
}

// CopyKeyFile copies a key file into one that is not there yet, for its owner alone, and brings it to the disk.
func CopyKeyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeNew(to, string(content))
}

// writeNew creates file with mode 0600 and makes it and its name durable.
func writeNew(file, content string) (err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(content); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
