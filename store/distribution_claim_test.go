package store

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"rouse/fault"
	"rouse/tokens"
)

// doubled has two nodes register the same installations with the same tokens at once, on a distributed database, which has no unique
// indexes against it. It returns how many installations and how many tokens two devices have in the end.
func doubled(t *testing.T, unlocked bool) (installations, held int) {
	t.Helper()
	j := onPieces(t)
	second := unhurried(openFile(t, "", func(o *Options) { o.DSN = j.dsn }))
	start(t, second)
	j.s.unlocked, second.unlocked = unlocked, unlocked
	var all sync.WaitGroup
	for i := range 40 {
		for _, s := range []*Store{j.s, second} {
			for _, as := range []string{"installation", "another"} { // two of one installation, and two more with its token
				e := j.enrol()
				e.Token = tokens.Token(fmt.Sprint("token-", i))
				if as == "installation" {
					e.Installation = fmt.Sprint("installation ", i)
				}
				all.Go(func() {
					if _, _, err := s.Register(context.Background(), e); err != nil && fault.KindOf(err) != fault.Conflict {
						t.Error(err)
					}
				})
			}
		}
	}
	all.Wait()
	j.must(j.s.writes.Get(&installations, "SELECT COUNT(*) FROM (SELECT 1 FROM devices GROUP BY app, installation HAVING COUNT(*) > 1) AS twice"))
	j.must(j.s.writes.Get(&held, "SELECT COUNT(*) FROM (SELECT 1 FROM devices WHERE token_hash IS NOT NULL GROUP BY token_hash HAVING COUNT(*) > 1) AS twice"))
	return installations, held
}

func TestNoUniqueIndexIsNeededAgainstDoubles(t *testing.T) {
	t.Parallel()
	if installations, held := doubled(t, false); installations+held > 0 {
		t.Errorf("%d installations and %d tokens are two devices'", installations, held)
	}
}

// And without the locks they are doubled: that is what the test above would find.
func TestWithoutClaimsThereAreDoubles(t *testing.T) {
	t.Parallel()
	for range 5 {
		if installations, held := doubled(t, true); installations+held > 0 {
			t.Logf("%d installations and %d tokens are two devices'", installations, held)
			return
		}
	}
	t.Error("nothing was doubled without the locks")
}

// A phone that shows its token again keeps it, and takes it back from whoever got it since.
func TestATokenShownAgainIsTakenBack(t *testing.T) {
	t.Parallel()
	j := onPieces(t)
	device, err := j.s.Device(j.ctx, j.app, j.list[0])
	j.must(err)
	show := func(d string, id int) {
		shown := device.Token
		_, err := j.s.PatchDevice(j.ctx, j.list[id], tokens.Patch{Token: &shown}, j.now)
		j.must(err)
		for i, who := range j.list[:2] {
			got, err := j.s.Device(j.ctx, j.app, who)
			j.must(err)
			if want := map[bool]tokens.TokenState{true: tokens.TokenActive, false: tokens.TokenSuperseded}[i == id]; got.TokenState != want {
				t.Errorf("%s: %s is %s", d, who, got.TokenState)
			}
		}
	}
	show("the second takes it", 1)
	show("the second shows it again", 1)
	show("the first takes it back", 0)
}
