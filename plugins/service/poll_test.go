package service_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgpatrol/pgpatrol/plugins/service"
	"github.com/pgpatrol/pgpatrol/plugins/service/servicetest"
)

func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := servicetest.NewFake()
		f.Add("a.service", servicetest.Service{})
		f.Add("b.service", servicetest.Service{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		wakes := 0
		ended := make(chan error, 1)
		go func() {
			ended <- service.Poll(ctx, f, time.Second, []string{"a.service", "absent.service"}, func() { wakes++ })
		}()
		want := func(what string, n int) {
			t.Helper()
			time.Sleep(1500 * time.Millisecond)
			synctest.Wait()
			if wakes != n {
				t.Errorf("%s: %d wake-ups, want %d", what, wakes, n)
			}
		}
		want("nothing but the first look, and a unit that is not known", 1)
		f.Set("a.service", func(st *service.Status) { st.State = service.StateFailed })
		want("a change", 2)
		f.Set("b.service", func(st *service.Status) { st.State = service.StateFailed })
		want("a unit that is not watched", 2)
		f.Add("absent.service", servicetest.Service{})
		want("a unit that has become known", 3)
		f.Fail(servicetest.MethodStatus, service.ErrPermission)
		want("a refusal", 4)
		want("the same refusal", 4)
		f.Fail(servicetest.MethodStatus, service.ErrUnavailable)
		if err := <-ended; !errors.Is(err, service.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		cancel()
		if err := service.Poll(ctx, f, time.Second, []string{"a.service"}, func() { t.Error("woken") }); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
