package keystead_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"keystead"
)

// A method's receiver may be collected during its call when nothing uses it afterwards. Its finalizer waited for the call, and with
// it every other finalizer of the process, for a RunHere for hours.
func TestAForgottenHandleWhoseCallIsInFlightHoldsUpNoOtherFinalizer(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	var tokens issuer
	mint := func(request keystead.IdentityRequest) (string, error) {
		select {
		case entered <- struct{}{}:
			<-release
		default:
		}
		return tokens.mint(request)
	}
	entered <- struct{}{}
	store, _ := minting(t, mint, keystead.StoreOptions{KMSTimeout: time.Minute})
	ok(t, store.ForgetEpochKeys())
	<-entered
	read := make(chan error)
	go func(acme *keystead.Organization) {
		_, err := acme.Get("a", keystead.Latest)
		read <- err
	}(must[*keystead.Organization](t)(store.Organization("acme")))
	for len(entered) == 0 {
		time.Sleep(time.Millisecond)
	}

	// The organization's finalizer comes before that of what is forgotten after it.
	for times := 0; times < 2; times++ {
		runtime.GC()
		time.Sleep(50 * time.Millisecond)
	}
	var finalized atomic.Bool
	// Half of the deadline of the call, which lets go of a finalizer that waits for it.
	for until := time.Now().Add(30 * time.Second); !finalized.Load(); {
		if time.Now().After(until) {
			t.Error("no finalizer runs")
			break
		}
		runtime.SetFinalizer(new([64]byte), func(*[64]byte) { finalized.Store(true) })
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	close(release)
	ok(t, <-read)
}
