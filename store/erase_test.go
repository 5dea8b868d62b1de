package store_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

// everything reads all rows of all tables of a database, as text.
func everything(t *testing.T, dsn string) map[string][]string {
	t.Helper()
	driver, name, list := "pgx", dsn, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
	if path, ok := strings.CutPrefix(dsn, "sqlite:"); ok {
		driver, name, list = "sqlite", path, "SELECT name FROM sqlite_master WHERE type = 'table'"
	}
	db, err := sqlx.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var tables []string
	if err := db.Select(&tables, list); err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, table := range tables {
		rows, err := db.Queryx("SELECT * FROM " + table)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			row, err := rows.SliceScan()
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			for _, v := range row {
				if raw, ok := v.([]byte); ok {
					v = string(raw)
				}
				fmt.Fprintf(&b, "%v|", v)
			}
			all[table] = append(all[table], b.String())
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// persons are what a database holds of anna, and of others beside her.
type persons struct {
	*world
	dsn      string
	hers     []ident.Device
	former   ident.Device // once hers, bert's by now
	bystands ident.Device
}

func people(t *testing.T, dsn string, ring *tokens.Ring) (p persons, stop func()) {
	s, stop := openAt(t, dsn, ring)
	w := newWorld(t, func(testing.TB, ...func(*store.Options)) *store.Store { return s })
	p = persons{world: w, dsn: dsn, former: w.device(), bystands: w.device()}
	w.must(w.BindUser(w.ctx(), w.app, "anna-the-person", p.former, w.now))
	w.acceptUser("anna-the-person", saying("private-one"))
	page := w.inbox(p.former, 10)
	w.ackUpTo(p.former, page.Last)
	w.acceptUser("anna-the-person", saying("private-two"))
	w.must(w.BindUser(w.ctx(), w.app, "bert", p.former, w.now))
	p.hers = w.userDevices("anna-the-person", 2)
	w.must(w.SubscribeUser(w.ctx(), w.app, "hers", "anna-the-person", w.now))
	w.subscribe("news", p.hers[0], p.bystands)
	for range 3 {
		w.acceptUser("anna-the-person", saying("private-three"))
		w.accept(p.hers[0], saying("private-four"), func(m *messages.Send) { m.Notification = &messages.Notification{Title: "private-five"} })
	}
	w.ackUpTo(p.hers[1], w.inbox(p.hers[1], 2).Last)
	w.acceptUser("anna-the-person", saying("private-six"), func(m *messages.Send) { m.SendAt = w.now.Add(time.Hour) })
	later := w.send(p.hers[0], saying("private-seven"))
	later.SendAt = w.now.Add(time.Hour)
	_, err := w.Accept(w.ctx(), later)
	w.must(err)
	w.RecordWake(messages.Wake{App: w.app, Device: p.hers[0], At: w.now, Head: messages.Marks{High: 1}, Accepted: true, Provider: "fcm", Verdict: "accepted"})
	w.accept(p.bystands, saying("not hers"))
	w.acceptUser("bert", saying("not hers"))
	return p, stop
}

func TestAPersonIsErasedEverywhere(t *testing.T) {
	t.Parallel()
	for engine, place := range engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			p, stop := people(t, place(t), testkit.Ring(t))
			pending := p.pending()
			got, err := p.EraseUser(p.ctx(), p.app, "anna-the-person", p.now)
			p.must(err)
			// Two on the device she left, six and three on hers; four sends of more than one device, or for later, and the one to a device.
			if diff := cmp.Diff(tokens.Erasure{Devices: 2, Deliveries: 11, Messages: 5, Subscriptions: 2}, got); diff != "" {
				t.Error(diff)
			}
			if n := p.pending(); n != 2 || pending != 9 {
				t.Errorf("%d are pending, %d were", n, pending)
			}
			again, err := p.EraseUser(p.ctx(), p.app, "anna-the-person", p.now)
			if err != nil || again != (tokens.Erasure{}) {
				t.Errorf("again: %+v, %v", again, err)
			}
			for _, d := range p.hers {
				_, _, _, err := p.DeviceAuth(p.ctx(), d)
				p.refused(err, fault.Unauthenticated, "unknown_key")
			}
			for _, d := range []ident.Device{p.former, p.bystands} {
				if page := p.inbox(d, 10); len(page.Items) != 1 || string(page.Items[0].Data) != `"not hers"` || page.Gap != nil {
					t.Errorf("%s has %+v", d, page)
				}
			}
			p.counted("news", 1)
			p.counted("hers", 0)
			stop()
			p.nothingIn(t)
		})
	}
}

// nothingIn looks for the person in all tables. That a device of some id was registered, and gone, stays among the events for their time.
func (p persons) nothingIn(t *testing.T) {
	t.Helper()
	searched := 0
	for table, rows := range everything(t, p.dsn) {
		for _, row := range rows {
			searched++
			for _, word := range []string{"anna", "private", string(p.hers[0]), string(p.hers[1])} {
				if strings.Contains(row, word) && (table != "events" || !strings.HasPrefix(word, ident.DevicePrefix)) {
					t.Errorf("%s has %s", table, row)
				}
			}
		}
	}
	if searched < 10 {
		t.Errorf("only %d rows were searched", searched)
	}
}

// Whoever is cut off, wherever that is, goes on when called again, and counts what it does.
func TestAnErasureThatIsCutOffGoesOn(t *testing.T) {
	t.Parallel()
	for engine, place := range engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			p, stop := people(t, place(t), testkit.Ring(t))
			var total tokens.Erasure
			for cuts := 1; ; cuts++ {
				got, err := p.EraseUser(&cutOff{Context: p.ctx(), left: cuts}, p.app, "anna-the-person", p.now)
				total.Devices, total.Deliveries = total.Devices+got.Devices, total.Deliveries+got.Deliveries
				total.Messages, total.Subscriptions = total.Messages+got.Messages, total.Subscriptions+got.Subscriptions
				if err == nil {
					if cuts < 4 {
						t.Errorf("it was cut off only %d times", cuts-1)
					}
					break
				}
			}
			if diff := cmp.Diff(tokens.Erasure{Devices: 2, Deliveries: 11, Messages: 5, Subscriptions: 2}, total); diff != "" {
				t.Error(diff)
			}
			stop()
			p.nothingIn(t)
		})
	}
}

// cutOff is a context that ends once it was looked at so often.
type cutOff struct {
	context.Context
	left int
}

func (c *cutOff) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}
