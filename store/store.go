// Package store keeps what was promised: everything an answer said is durable
// before the answer is given. It is the only room that speaks SQL.
package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// Options is what Open needs.
type Options struct {
	// DSN is "sqlite:path".
	DSN  string
	Ring *tokens.Ring
	// Log may be nil.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
	// Queue is how many operations may wait for the writer; 0 is 8192.
	Queue int
	// InboxMessages and InboxBytes limit what lies un-acked in one inbox; 0 is 1000 and 10 MiB.
	InboxMessages int
	InboxBytes    int64
}

// Store is the database.
type Store struct{}

func Open(ctx context.Context, o Options) (*Store, error) { panic("unwritten") }
func (s *Store) Migrate(ctx context.Context) error        { panic("unwritten") }
func (s *Store) MigrationStatus(ctx context.Context) (have, want int64, err error) {
	panic("unwritten")
}
func (s *Store) Run(ctx context.Context) error   { panic("unwritten") }
func (s *Store) Close() error                    { panic("unwritten") }
func (s *Store) Ready(ctx context.Context) error { panic("unwritten") }

func (s *Store) CreateApp(ctx context.Context, app tokens.App, keys []tokens.Key) error {
	panic("unwritten")
}
func (s *Store) Apps(ctx context.Context, after ident.App, limit int) ([]tokens.App, error) {
	panic("unwritten")
}
func (s *Store) App(ctx context.Context, id ident.App) (tokens.App, error) { panic("unwritten") }
func (s *Store) PatchApp(ctx context.Context, id ident.App, p tokens.AppPatch) (tokens.App, error) {
	panic("unwritten")
}
func (s *Store) DeleteApp(ctx context.Context, id ident.App) error             { panic("unwritten") }
func (s *Store) AddKey(ctx context.Context, k tokens.Key) error                { panic("unwritten") }
func (s *Store) Keys(ctx context.Context, app ident.App) ([]tokens.Key, error) { panic("unwritten") }
func (s *Store) DeleteKey(ctx context.Context, app ident.App, key ident.Key) error {
	panic("unwritten")
}
func (s *Store) LookupKey(ctx context.Context, key ident.Key) (tokens.Key, error) { panic("unwritten") }
func (s *Store) PutCredential(ctx context.Context, c tokens.Credential) error     { panic("unwritten") }
func (s *Store) Credential(ctx context.Context, app ident.App, p tokens.Provider) (tokens.Credential, error) {
	panic("unwritten")
}
func (s *Store) Credentials(ctx context.Context, app ident.App) ([]tokens.Credential, error) {
	panic("unwritten")
}
func (s *Store) DeleteCredential(ctx context.Context, app ident.App, p tokens.Provider) error {
	panic("unwritten")
}
func (s *Store) SetFailing(ctx context.Context, app ident.App, p tokens.Provider, reason string, since time.Time) error {
	panic("unwritten")
}

func (s *Store) Register(ctx context.Context, e tokens.Enrol) (tokens.Device, bool, error) {
	panic("unwritten")
}
func (s *Store) DeviceAuth(ctx context.Context, id ident.Device) (d tokens.Device, current, previous tokens.Hash, err error) {
	panic("unwritten")
}
func (s *Store) Device(ctx context.Context, app ident.App, id ident.Device) (tokens.Device, error) {
	panic("unwritten")
}
func (s *Store) PatchDevice(ctx context.Context, id ident.Device, p tokens.Patch, now time.Time) (tokens.Device, error) {
	panic("unwritten")
}
func (s *Store) RotateSecret(ctx context.Context, id ident.Device, h tokens.Hash, now time.Time) error {
	panic("unwritten")
}
func (s *Store) ConfirmSecret(id ident.Device, h tokens.Hash) { panic("unwritten") }
func (s *Store) Unregister(ctx context.Context, app ident.App, id ident.Device, now time.Time) error {
	panic("unwritten")
}
func (s *Store) BindUser(ctx context.Context, app ident.App, user string, id ident.Device) error {
	panic("unwritten")
}
func (s *Store) UnbindUser(ctx context.Context, app ident.App, user string, id ident.Device) error {
	panic("unwritten")
}
func (s *Store) MarkToken(ctx context.Context, id ident.Device, generation int64, state tokens.TokenState, reason string) (bool, error) {
	panic("unwritten")
}
func (s *Store) Contact(id ident.Device, now time.Time) { panic("unwritten") }

func (s *Store) Accept(ctx context.Context, m messages.Send) (messages.Receipt, error) {
	panic("unwritten")
}
func (s *Store) Message(ctx context.Context, app ident.App, id ident.Message) (messages.Summary, error) {
	panic("unwritten")
}
func (s *Store) Deliveries(ctx context.Context, app ident.App, id ident.Message, after ident.Device, limit int) (list []messages.Delivery, more bool, err error) {
	panic("unwritten")
}
func (s *Store) Cancel(ctx context.Context, app ident.App, id ident.Message, now time.Time) (messages.Summary, error) {
	panic("unwritten")
}
func (s *Store) Inbox(ctx context.Context, q messages.Query) (messages.Page, error) {
	panic("unwritten")
}
func (s *Store) Item(ctx context.Context, device ident.Device, id ident.Message, now time.Time) (messages.Item, error) {
	panic("unwritten")
}
func (s *Store) AckUpTo(ctx context.Context, device ident.Device, seq messages.Seq, now time.Time) (int, error) {
	panic("unwritten")
}
func (s *Store) AckIDs(ctx context.Context, device ident.Device, ids []ident.Message, now time.Time) (int, error) {
	panic("unwritten")
}

func (s *Store) Waiting(ctx context.Context, device ident.Device, now time.Time) (messages.Waiting, tokens.Device, error) {
	panic("unwritten")
}
func (s *Store) RecordWake(w messages.Wake) { panic("unwritten") }
func (s *Store) SweepCursor(ctx context.Context, name string) (messages.Seq, error) {
	panic("unwritten")
}
func (s *Store) MoveSweepCursor(ctx context.Context, name string, to messages.Seq) error {
	panic("unwritten")
}
func (s *Store) Sweep(ctx context.Context, q messages.SweepQuery) (due []messages.Due, next messages.Seq, more bool, err error) {
	panic("unwritten")
}
func (s *Store) Expire(ctx context.Context, now time.Time, limit int) (int, error) {
	panic("unwritten")
}
func (s *Store) Purge(ctx context.Context, before, now time.Time, limit int) (int, error) {
	panic("unwritten")
}
func (s *Store) Pending(ctx context.Context) (int64, error) { panic("unwritten") }
