package main

import (
	"rouse/config"
	"rouse/tokens"
)

// defaultDB is the database where none is given, as the flag has it.
const defaultDB = "sqlite:rouse.db"

// settings is every setting of a node: a flag and an environment variable each.
// They are words here; config checks them all together.
type settings struct {
	Listen     string        `default:"127.0.0.1:8080" help:"Where the API listens, host:port." setting:"ROUSE_LISTEN"`
	OpsListen  string        `default:"127.0.0.1:9090" help:"Where /livez, /readyz and /metrics listen; keep it private." setting:"ROUSE_OPS_LISTEN"`
	DB         config.DSN    `name:"db" default:"sqlite:rouse.db" help:"sqlite:PATH, or postgres://user:password@host:5432/name for one node or several." placeholder:"DSN" setting:"ROUSE_DB"`
	Bus        config.DSN    `default:"auto" help:"How nodes tell each other to look: auto (PostgreSQL's own, if that is the database), memory (one node), postgres, postgres://... (where the database is behind a pooler), nats://..." placeholder:"BUS" setting:"ROUSE_BUS"`
	DBConns    string        `name:"db-conns" default:"20" help:"How many connections the node may take to PostgreSQL; a bus there takes two more." setting:"ROUSE_DB_CONNS"`
	AdminKey   tokens.Secret `help:"The administrator's key, 24 characters or more. Required." placeholder:"KEY" setting:"ROUSE_ADMIN_KEY"`
	MasterKeys config.Hidden `help:"What seals secrets at rest: id:base64 of 32 bytes, comma separated, the first seals. Left out on SQLite, a key file is made beside the database; PostgreSQL requires them, the same for each node." placeholder:"KEYS" setting:"ROUSE_MASTER_KEYS"`

	APNsEndpoint        string `name:"apns-endpoint" help:"Another address for Apple's production environment, https://host[:port]." placeholder:"URL" setting:"ROUSE_APNS_ENDPOINT"`
	APNsSandboxEndpoint string `name:"apns-sandbox-endpoint" help:"Another address for Apple's sandbox, https://host[:port]." placeholder:"URL" setting:"ROUSE_APNS_SANDBOX_ENDPOINT"`
	APNsCA              string `name:"apns-ca" help:"Whom to trust there, a PEM file." placeholder:"FILE" setting:"ROUSE_APNS_CA"`
	FCMEndpoint         string `name:"fcm-endpoint" help:"Another address for Google's FCM, including /v1." placeholder:"URL" setting:"ROUSE_FCM_ENDPOINT"`
	FCMTokenEndpoint    string `name:"fcm-token-endpoint" help:"Another address for Google's OAuth tokens." placeholder:"URL" setting:"ROUSE_FCM_TOKEN_ENDPOINT"`
	FCMCA               string `name:"fcm-ca" help:"Whom to trust there, a PEM file." placeholder:"FILE" setting:"ROUSE_FCM_CA"`

	TrustedProxies    string `help:"Whose X-Forwarded-For is believed, CIDRs, comma separated." placeholder:"CIDR,..." setting:"ROUSE_TRUSTED_PROXIES"`
	RegistrationLimit string `default:"50:1000" help:"Registrations with a publishable key from one address, PER_SECOND:BURST." setting:"ROUSE_REGISTRATION_LIMIT"`
	FailedAuthLimit   string `default:"10:100" help:"Calls with a wrong key from one address, PER_SECOND:BURST." setting:"ROUSE_FAILED_AUTH_LIMIT"`
	DeviceLimit       string `default:"100:1000" help:"Calls of one device, PER_SECOND:BURST, or off." setting:"ROUSE_DEVICE_LIMIT"`
	AddressLimit      string `default:"off" help:"Calls from one address, or IPv6 network of 64 bits, PER_SECOND:BURST, or off. Whole carriers share an address." setting:"ROUSE_ADDRESS_LIMIT"`

	WebhookAllow string `help:"Internal addresses that events may be posted to, over http too: CIDRs, comma separated." placeholder:"CIDR,..." setting:"ROUSE_WEBHOOK_ALLOW"`

	LogLevel     string `default:"info" help:"debug, info, warn or error. info has a line for each call." setting:"ROUSE_LOG_LEVEL"`
	LogFormat    string `default:"text" help:"text or json." setting:"ROUSE_LOG_FORMAT"`
	Grace        string `default:"10s" hidden:"" help:"How long a device that was served on a poll may stay silent before it is pushed." setting:"ROUSE_GRACE"`
	DrainTimeout string `default:"4s" hidden:"" help:"How long calls in flight may take at a stop." setting:"ROUSE_DRAIN_TIMEOUT"`
}

// check turns the words into settings, or tells every mistake.
func (s settings) check() (config.Serve, error) {
	checked, err := config.Check(config.Raw{
		Listen: s.Listen, OpsListen: s.OpsListen, DB: s.DB, Bus: s.Bus, DBConns: s.DBConns, AdminKey: s.AdminKey, MasterKeys: s.MasterKeys,
		APNsEndpoint: s.APNsEndpoint, APNsSandboxEndpoint: s.APNsSandboxEndpoint, APNsCA: s.APNsCA,
		FCMEndpoint: s.FCMEndpoint, FCMTokenEndpoint: s.FCMTokenEndpoint, FCMCA: s.FCMCA,
		TrustedProxies: s.TrustedProxies, RegistrationLimit: s.RegistrationLimit, FailedAuthLimit: s.FailedAuthLimit,
		DeviceLimit: s.DeviceLimit, AddressLimit: s.AddressLimit,
		WebhookAllow: s.WebhookAllow, LogLevel: s.LogLevel, LogFormat: s.LogFormat, Grace: s.Grace, DrainTimeout: s.DrainTimeout,
	})
	if err != nil {
		return checked, mistake("these settings cannot be:\n%w", err)
	}
	return checked, nil
}
