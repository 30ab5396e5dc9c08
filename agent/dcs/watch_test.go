package dcs_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/dcs"
)

// withUser makes the view authenticate with a password that may change.
func withUser(password *string) func(*dcs.Config) {
	return func(c *dcs.Config) {
		c.Username, c.Password = "pgpatrol", func() (string, error) { return *password, nil }
	}
}

// The watch itself notices that its connection is gone; nobody has to observe for that.
func TestView_CutWatchIsMadeAnew(t *testing.T) {
	run(t, 2, func(t *testing.T, b *bench) {
		b.follow()
		b.woken()
		b.etcd.Cut(0, true)
		synctest.Wait()
		if n := b.logs.lines("unreachable"); n != 1 {
			t.Fatalf("the cut was not noticed:\n%s", b.logs)
		}
		time.Sleep(time.Second) // of backoff
		b.etcd.Put(prefix+"leader", "pg2", 0)
		if !b.woken() {
			t.Fatalf("no watch on the other endpoint:\n%s", b.logs)
		}
		if n := b.etcd.Requests("Watch"); n != 2 {
			t.Fatalf("%d watches were opened, want 2", n)
		}
	})
}

// F45: a member whose watches end over and over is not asked over and over.
func TestView_WatchEndsAgainAndAgain(t *testing.T) {
	password := "correct horse"
	run(t, 1, func(t *testing.T, b *bench) {
		b.etcd.RequireAuth("pgpatrol", password)
		b.follow()
		before := b.view.Requests()
		for range 600 {
			b.etcd.Cut(0, true)
			b.etcd.Cut(0, false)
			time.Sleep(100 * time.Millisecond)
		}
		if n := b.view.Requests() - before; n > 60 { // ten rounds of token, list, token, watch
			t.Fatalf("%d requests in a minute", n)
		}
	}, withUser(&password))
}

// The password is changed in etcd and in the file, and the token ends: no reader notices.
func TestView_PasswordRotated(t *testing.T) {
	password := "correct horse"
	run(t, 1, func(t *testing.T, b *bench) {
		b.etcd.RequireAuth("pgpatrol", password)
		b.follow()
		wantFresh(t, b, b.observe(dcs.Routine))
		time.Sleep(10 * time.Second)
		password = "battery staple"
		b.etcd.RequireAuth("pgpatrol", password)
		wantFresh(t, b, b.observe(dcs.Routine))
	}, withUser(&password))
}

// Fetching another token does not help: etcd is spared the attempts.
func TestView_TokensAreRefused(t *testing.T) {
	password := "correct horse"
	run(t, 1, func(t *testing.T, b *bench) {
		b.etcd.RequireAuth("pgpatrol", password)
		b.follow()
		b.observe(dcs.Routine)
		before := b.etcd.Requests("Authenticate")
		b.etcd.RefuseTokens(true)
		for range 120 {
			time.Sleep(500 * time.Millisecond)
			b.observe(dcs.Alert)
		}
		if n := b.etcd.Requests("Authenticate") - before; n > 40 {
			t.Fatalf("%d authentications in a minute", n)
		}
		b.etcd.RefuseTokens(false)
		time.Sleep(10 * time.Second)
		wantFresh(t, b, b.observe(dcs.Alert))
	}, withUser(&password))
}
