package keycloakcacheauth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateBoundsCalls(t *testing.T) {
	t.Run("CC-002", func(t *testing.T) {
		g := newGate(gateLimits{inAll: 8, perTenant: 3, waitingInAll: 1000, waitingFor: 1000})
		var inside, most atomic.Int64
		var perTenant [4]atomic.Int64
		var done sync.WaitGroup
		for i := range 1000 {
			done.Go(func() {
				leave, err := g.enter(t.Context(), fmt.Sprint("t", i%4), true)
				if err != nil {
					t.Error(err)
					return
				}
				defer leave()
				now := inside.Add(1)
				for highest := most.Load(); now > highest && !most.CompareAndSwap(highest, now); highest = most.Load() {
				}
				if perTenant[i%4].Add(1) > 3 {
					t.Error("more than three of a tenant are inside")
				}
				perTenant[i%4].Add(-1)
				inside.Add(-1)
			})
		}
		done.Wait()
		if most.Load() > 8 {
			t.Errorf("%d were inside at once", most.Load())
		}
		if len(g.tenants) != 0 || g.inside != 0 || g.waiting != 0 || len(g.turn) != 0 {
			t.Errorf("left behind: %+v", g)
		}
	})
}

func TestGateTakesTenantsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(gateLimits{inAll: 1, perTenant: 1, waitingInAll: 100, waitingFor: 100})
		leave, err := g.enter(t.Context(), "busy", true)
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, tenant := range []string{"busy", "busy", "busy", "quiet"} {
			go func() {
				leave, err := g.enter(t.Context(), tenant, true)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, tenant) // one at a time is inside
				leave()
			}()
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		if got := fmt.Sprint(order); got != "[quiet busy busy busy]" && got != "[busy quiet busy busy]" {
			t.Errorf("let in were %v; a tenant with one waiting must not stand behind all of another's", got)
		}
	})
}

func TestGateRefusesWhoWouldWaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(gateLimits{inAll: 2, perTenant: 1, waitingInAll: 3, waitingFor: 2})
		leave, err := g.enter(t.Context(), "a", true)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := g.enter(ctx, "a", true)
				results <- err
			}()
		}
		synctest.Wait()
		if _, err := g.enter(ctx, "a", true); !errors.Is(err, errBusy) {
			t.Errorf("the third to wait for a tenant got %v", err)
		}
		if leaveB, err := g.enter(ctx, "b", true); err != nil {
			t.Errorf("another tenant got %v", err)
		} else {
			leaveB()
		}
		for range 2 {
			if err := <-results; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who waited too long got %v", err)
			}
		}
		leave()
		leave() // counts once
		if len(g.tenants) != 0 || g.inside != 0 || g.waiting != 0 {
			t.Errorf("left behind: %+v", g)
		}
	})
}

// A tenant whose look-ups all gave up, while it was its turn, is forgotten.
func TestGateForgetsWhoGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(gateLimits{inAll: 1, perTenant: 1, waitingInAll: 9, waitingFor: 9})
		leave, err := g.enter(t.Context(), "a", true)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.enter(ctx, "b", true); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		leave()
		if len(g.tenants) != 0 {
			t.Errorf("%d tenants are left behind", len(g.tenants))
		}
	})
}

// Whoever gives up in the moment of being let in must not take the place away.
func TestGateLosesNoPlace(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	g := newGate(gateLimits{inAll: 3, perTenant: 2, waitingInAll: 50, waitingFor: 20})
	var done sync.WaitGroup
	for i := range 5000 {
		patience := time.Duration(random.IntN(200)) * time.Microsecond
		done.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if leave, err := g.enter(ctx, fmt.Sprint(i%5), true); err == nil {
				leave()
			}
		})
	}
	done.Wait()
	if len(g.tenants) != 0 || g.inside != 0 || g.waiting != 0 {
		t.Errorf("left behind: %d tenants, %d inside, %d waiting", len(g.tenants), g.inside, g.waiting)
	}
}
