package store

import "fmt"

const (
	selectRings = "SELECT id, sealed FROM rings ORDER BY id"
	insertRing  = "INSERT INTO rings (id, sealed) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
)

// proveRing checks that everything sealed in this database opens, and leaves a proof of the key that seals from now
// on. A master key taken out too early would otherwise be found out by the phones, one by one.
func (w *writer) proveRing() (err error) {
	if err := w.begin(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			w.rollback()
		}
	}()
	var proofs []ringProof
	t := newTx(w, nil)
	if err := t.list(&proofs, selectRings); err != nil {
		return fmt.Errorf("read the proofs of the master keys: %w", err)
	}
	ring := w.store.ring
	known := false
	for _, p := range proofs {
		if _, err := ring.Open(ringPlace(p.ID), p.Sealed); err != nil {
			return fmt.Errorf("this database holds secrets sealed with the master key %q, and the one given does not open them: "+
				"put that key back into ROUSE_MASTER_KEYS (a new one goes before it)", p.ID)
		}
		known = known || p.ID == ring.Sealer()
	}
	if !known {
		id := ring.Sealer()
		if _, err := t.exec(insertRing, id, ring.Seal(ringPlace(id), []byte(id))); err != nil {
			return fmt.Errorf("leave a proof of the master key: %w", err)
		}
	}
	if err := w.store.dialect.commit(w); err != nil {
		return fmt.Errorf("leave a proof of the master key: %w", err)
	}
	return nil
}

func ringPlace(id string) string { return "ring:" + id }
