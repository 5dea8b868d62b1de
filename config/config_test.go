package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/config"
	"rouse/tokens"
)

func good() config.Raw {
	return config.Raw{
		Listen: "127.0.0.1:8080", OpsListen: "127.0.0.1:9090", DB: "sqlite:rouse.db", Bus: "auto", DBConns: "20",
		AdminKey: "twenty-four-characters-x", RegistrationLimit: "50:1000", FailedAuthLimit: "0.5:1", DeviceLimit: "100:1000", AddressLimit: "off", LogLevel: "info", LogFormat: "text", Grace: "10s", DrainTimeout: "10s",
	}
}

func TestCheckTakesWhatIsRight(t *testing.T) {
	t.Parallel()
	raw := good()
	raw.FCMEndpoint = "http://127.0.0.1:1/v1/"
	raw.MasterKeys = config.Hidden(tokens.NewRingKey("a"))
	raw.TrustedProxies = "10.0.0.0/8, ::1/128"
	got, err := config.Check(raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.TrustedProxies) != 2 || got.FailedAuth != (config.Limit{PerSecond: 0.5, Burst: 1}) || got.Devices != (config.Limit{PerSecond: 100, Burst: 1000}) || got.Addresses != (config.Limit{}) {
		t.Errorf("got %+v", got)
	}
	if got.Path != "rouse.db" || got.Grace != 10*time.Second || got.Endpoints.FCM != "http://127.0.0.1:1/v1" {
		t.Errorf("got %+v", got)
	}
}

func TestCheckTellsEveryMistakeAtOnceAndNoSecret(t *testing.T) {
	t.Parallel()
	raw := config.Raw{
		Listen: "nowhere", OpsListen: "127.0.0.1:99999", DB: "postgres://rouse:hunter2@db:five/rouse", Bus: "nats://rouse:hunter3@queue:four", DBConns: "1",
		AdminKey: "short-admin", MasterKeys: "k1:bm90IGVub3VnaA==", APNsEndpoint: "http://plain",
		APNsSandboxEndpoint: "::", APNsCA: filepath.Join(t.TempDir(), "absent.pem"), FCMEndpoint: "ftp://x", FCMTokenEndpoint: "x",
		TrustedProxies: "10.0.0.0/8,everyone", RegistrationLimit: "50", FailedAuthLimit: "NaN:3", DeviceLimit: "100", AddressLimit: "of", LogLevel: "loud", LogFormat: "xml", Grace: "soon", DrainTimeout: "1h",
	}
	_, err := config.Check(raw)
	if err == nil {
		t.Fatal("all of it was taken")
	}
	for _, setting := range []string{
		"ROUSE_LISTEN", "ROUSE_OPS_LISTEN", "ROUSE_DB", "ROUSE_BUS", "ROUSE_DB_CONNS", "ROUSE_ADMIN_KEY", "ROUSE_MASTER_KEYS", "ROUSE_APNS_ENDPOINT",
		"ROUSE_APNS_SANDBOX_ENDPOINT", "ROUSE_APNS_CA", "ROUSE_FCM_ENDPOINT", "ROUSE_FCM_TOKEN_ENDPOINT", "ROUSE_TRUSTED_PROXIES", "ROUSE_REGISTRATION_LIMIT", "ROUSE_FAILED_AUTH_LIMIT", "ROUSE_DEVICE_LIMIT", "ROUSE_ADDRESS_LIMIT", "ROUSE_LOG_LEVEL",
		"ROUSE_LOG_FORMAT", "ROUSE_GRACE", "ROUSE_DRAIN_TIMEOUT",
	} {
		if !strings.Contains(err.Error(), "("+setting+")") {
			t.Errorf("nothing about %s in:\n%v", setting, err)
		}
	}
	for _, secret := range []string{"hunter", "short-admin", "bm90IGVub3VnaA"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the secret %q is in:\n%v", secret, err)
		}
	}
}

// TestCheckWantsNoPathAtApple: the SDK puts its own behind, so a path would break every push.
func TestCheckWantsNoPathAtApple(t *testing.T) {
	t.Parallel()
	for value, right := range map[string]bool{
		"https://127.0.0.1:2197": true, "https://[::1]:2197/": true, "https://apns.example": true,
		"https://127.0.0.1:2197/3/device": false, "https://apns.example/v1": false, "https://u@apns.example": false, "https://apns.example?": false,
		"https://apns.example?a=1": false, "https://apns.example#a": false, "https://:443": false, "http://apns.example": false,
	} {
		raw := good()
		raw.APNsEndpoint, raw.APNsSandboxEndpoint = value, value
		got, err := config.Check(raw)
		if right && (err != nil || got.Endpoints.APNs != strings.TrimSuffix(value, "/")) {
			t.Errorf("%s: %q, %v", value, got.Endpoints.APNs, err)
		}
		if !right && (err == nil || strings.Count(err.Error(), "https://host[:port],") != 2) {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestSettingsPrintRedacted(t *testing.T) {
	t.Parallel()
	raw := good()
	raw.MasterKeys = config.Hidden(tokens.NewRingKey("a"))
	raw.DB = elephant
	got, err := config.Check(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", raw, raw, raw), fmt.Sprintf("%v %+v %#v", got, got, got)} {
		if strings.Contains(text, string(raw.AdminKey)) || strings.Contains(text, string(raw.MasterKeys)) || strings.Contains(text, "hunter") {
			t.Errorf("a secret is in %s", text)
		}
	}
}

func TestCheckRefusesOneListenerForBoth(t *testing.T) {
	t.Parallel()
	raw := good()
	raw.OpsListen = raw.Listen
	if _, err := config.Check(raw); err == nil {
		t.Error("the operations listener may share the public address")
	}
}

func TestCheckRefusesADatabaseInMemory(t *testing.T) {
	t.Parallel()
	for _, db := range []string{"sqlite::memory:", "sqlite:", "sqlite::"} {
		raw := good()
		raw.DB = config.DSN(db)
		if _, err := config.Check(raw); err == nil || !strings.Contains(err.Error(), "(ROUSE_DB)") {
			t.Errorf("%s: %v", db, err)
		}
		if _, _, err := config.CheckDB(db); err == nil {
			t.Errorf("CheckDB takes %s", db)
		}
	}
}

func TestRingMakesAKeyFileAndFindsItAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sub", "rouse.db")
	first, file, err := config.Ring("", path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o, want 600", info.Mode().Perm())
	}
	second, _, err := config.Ring("", path)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := second.Open("here", first.Seal("here", []byte("x")))
	if err != nil || string(plain) != "x" {
		t.Errorf("the second ring opens %q, %v", plain, err)
	}
}

func TestRingRefusesAnOpenOrAMissingKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rouse.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := config.Ring("", path); err == nil || !strings.Contains(err.Error(), "restore the file") {
		t.Errorf("a database without its key file: %v", err)
	}
	if err := os.WriteFile(config.KeyFile(path), []byte(tokens.NewRingKey("k")), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := config.Ring("", path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key file that others can read: %v", err)
	}
}

const (
	elephant = "postgres://rouse:hunter2@db:5432/rouse?sslmode=disable&application_name=x"
	shown    = "postgres://rouse@db:5432/rouse"
)

func TestCheckKnowsWhereHintsGo(t *testing.T) {
	t.Parallel()
	const file = "sqlite:rouse.db"
	for _, c := range []struct {
		db, bus config.DSN
		want    config.Bus
	}{
		{file, "auto", config.Bus{Carrier: config.CarrierMemory}},
		{file, "memory", config.Bus{Carrier: config.CarrierMemory}},
		{elephant, "auto", config.Bus{Carrier: config.CarrierPostgres, URL: elephant}},
		{elephant, "postgres", config.Bus{Carrier: config.CarrierPostgres, URL: elephant}},
		{elephant, "memory", config.Bus{Carrier: config.CarrierMemory}},
		{"postgresql://db/rouse", "postgres://direct/rouse", config.Bus{Carrier: config.CarrierPostgres, URL: "postgres://direct/rouse"}},
		{"postgres:///rouse?host=/run/postgresql", "nats://a:1,tls://b", config.Bus{Carrier: config.CarrierNATS, URL: "nats://a:1,tls://b"}},
		{"postgres://a:1,b:2/rouse?target_session_attrs=read-write", "tls://token@b", config.Bus{Carrier: config.CarrierNATS, URL: "tls://token@b"}},
		{"postgres://db?dbname=rouse", "auto", config.Bus{Carrier: config.CarrierPostgres, URL: "postgres://db?dbname=rouse"}},
	} {
		raw := good()
		raw.DB, raw.Bus = c.db, c.bus
		if c.db.IsPostgres() {
			raw.MasterKeys = config.Hidden(tokens.NewRingKey("a"))
		}
		got, err := config.Check(raw)
		if err != nil || got.Bus != c.want || got.DSN != c.db || (got.Path == "") != c.db.IsPostgres() {
			t.Errorf("%s with %s: %+v, %v", c.db, c.bus, got, err)
		}
	}
}

func TestCheckRefusesDatabasesAndBusesThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		db, bus config.DSN
		says    string
	}{
		{"sqlite:rouse.db", "postgres", "(ROUSE_BUS) is postgres, and the database is SQLite"},
		{"sqlite:rouse.db", elephant, "(ROUSE_BUS) is postgres, and the database is SQLite"},
		{"sqlite:rouse.db", "nats://hunter2@queue", "(ROUSE_BUS) is nats, and the database is SQLite"},
		{elephant, "pigeons", "(ROUSE_BUS) is not one of"},
		{elephant, "nats", "(ROUSE_BUS) is not of the form nats://"},
		{elephant, "nats://a:hunter2@b,http://c", "(ROUSE_BUS) is not of the form nats://"},
		{elephant, "postgres://a:hunter2@/x y?sslmode=perhaps", "(ROUSE_BUS) cannot be used"},
		{"postgres://rouse:hunter2@db:5432", "auto", "(ROUSE_DB) names no database"},
		{"postgres://rouse:hunter2@db:5432/", "auto", "(ROUSE_DB) names no database"},
		{"postgres://rouse:hun@ter2@db:5432/rouse", "auto", "(ROUSE_DB) has an @"},
		{"postgres://rouse:hun/ter2@db:5432/rouse", "auto", "(ROUSE_DB) has an @"},
		{"postgres://rouse:%hunter2@db:5432/rouse", "auto", "(ROUSE_DB) cannot be used"},
		{"postgres://rouse:hunter2@db:5432/rouse?sslmode=perhaps", "auto", "(ROUSE_DB) cannot be used"},
		{"postgres://db/rouse?password=hunter2&sslmode=verify-full&sslrootcert=absent.pem", "auto", "(ROUSE_DB) cannot be used"},
		{"postgres:rouse", "auto", "(ROUSE_DB) is not of the form"},
		{"host=db password=hunter2", "auto", "(ROUSE_DB) is not of the form"},
	} {
		raw := good()
		raw.DB, raw.Bus, raw.MasterKeys = c.db, c.bus, config.Hidden(tokens.NewRingKey("a"))
		_, err := config.Check(raw)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s with %s: %v", c.db, c.bus, err)
			continue
		}
		for _, secret := range []string{"hun", "ter2"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("a password is in: %v", err)
			}
		}
	}
}

func TestPostgresNeedsTheMasterKeys(t *testing.T) {
	t.Parallel()
	raw := good()
	raw.DB = elephant
	if _, err := config.Check(raw); err == nil || !strings.Contains(err.Error(), "(ROUSE_MASTER_KEYS) is missing") {
		t.Errorf("without master keys: %v", err)
	}
	if _, file, err := config.Ring("", ""); err == nil || file != "" || !strings.Contains(err.Error(), "ROUSE_MASTER_KEYS") {
		t.Errorf("a key file beside PostgreSQL: %q, %v", file, err)
	}
}

func TestADSNShowsNoPassword(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[config.DSN]string{
		elephant: shown, "sqlite:rouse.db": "sqlite:rouse.db", "auto": "auto", "": "",
		"postgres://rouse@/postgres?host=/tmp/pg&password=hunter2": "postgres://rouse@/postgres?host=/tmp/pg",
		"postgresql://db/rouse?sslpassword=hunter2":                "postgresql://db/rouse",
		"postgres://rouse:hun/ter2@db/rouse":                       "postgres://[redacted]",
		"postgres://rouse:hun@ter2@db/rouse":                       "postgres://[redacted]",
		"postgres://rouse:hun?ter2@db/rouse":                       "postgres://rouse@db/rouse",
		"postgres://rouse:hun#ter2@db/rouse":                       "postgres://rouse@db/rouse",
		"nats://hunter2@queue:4222":                                "nats://[redacted]@queue:4222",
		"nats://a:hunter2@one,nats://a:hunter2@two":                "nats://a@one,nats://a@two",
		"nats://a:hunter2@one,tls://a:hunter2@two":                 "nats://a@one,tls://a@two",
	} {
		if got := dsn.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		for _, text := range []string{fmt.Sprintf("%v %+v %#v %q %s", dsn, dsn, dsn, dsn, dsn), dsn.LogValue().String()} {
			if strings.Contains(text, "hun") || strings.Contains(text, "ter2") {
				t.Errorf("a password is in %s", text)
			}
		}
	}
}
