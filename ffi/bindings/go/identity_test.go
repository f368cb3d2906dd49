package keystead_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keystead"
)

// issuer mints tokens, until it is told what to do instead.
type issuer struct {
	mutex sync.Mutex
	asked map[keystead.IdentityRequest]int
	fails func() error
}

func (i *issuer) mint(request keystead.IdentityRequest) (string, error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if i.asked == nil {
		i.asked = map[keystead.IdentityRequest]int{}
	}
	i.asked[request]++
	if i.fails != nil {
		return "", i.fails()
	}
	return "token for " + request.Organization, nil
}

func (i *issuer) failWith(fails func() error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	i.fails = fails
}

func (i *issuer) times() (times int) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	for _, asked := range i.asked {
		times += asked
	}
	return times
}

// minting is a store whose organization acme has a key that logs in with minted tokens.
func minting(t *testing.T, mint func(keystead.IdentityRequest) (string, error), options keystead.StoreOptions) (*keystead.Store, *keystead.Organization) {
	t.Helper()
	directory := t.TempDir()
	path := os.Getenv("KEYSTEAD_MINTING_PLUGIN")
	options.Backends = []*keystead.Backend{
		must[*keystead.Backend](t)(keystead.ManagedBackend(filepath.Join(directory, "app.keyring"), nil)),
		must[*keystead.Backend](t)(keystead.LoadPlugin(path, keystead.PluginOptions{
			Digests: [][32]byte{must[[32]byte](t)(keystead.PluginDigest(path))},
		})),
	}
	options.KMSAttemptsMax, options.IdentityToken = 1, mint
	store := must[*keystead.Store](t)(keystead.Create(filepath.Join(directory, "m"), &options))
	t.Cleanup(func() { ok(t, store.Close()) })
	acme := must[*keystead.Organization](t)(store.CreateOrganization("acme"))
	put(t, acme, "a", "correct horse")
	wait(t)(acme.AddKey("own", "minting", nil))
	return store, acme
}

func TestTheApplicationMintsTokensForAPluginThatLogsInWithThem(t *testing.T) {
	var tokens issuer
	store, acme := minting(t, tokens.mint, keystead.StoreOptions{})
	ok(t, store.ForgetEpochKeys())
	equal(t, value(t, acme, "a", keystead.Latest), "correct horse")
	for request := range tokens.asked {
		equal(t, request, keystead.IdentityRequest{Audience: "keystead:tests", Organization: "acme", Key: "own"})
	}
}

func TestAnIssuerThatFailsIsAnOutageUnlessItSaysWhatElse(t *testing.T) {
	var tokens issuer
	store, acme := minting(t, tokens.mint, keystead.StoreOptions{})
	for _, one := range []struct {
		fails func() error
		code  keystead.Code
		class keystead.Class
	}{
		{func() error { return errors.New("secret horse") }, keystead.CodeKMSUnavailable, keystead.ClassOutage},
		{func() error { panic("secret horse") }, keystead.CodeKMSUnavailable, keystead.ClassOutage},
		{func() error { return keystead.CodeClosed }, keystead.CodeKMSUnavailable, keystead.ClassOutage},
		{func() error { return fmt.Errorf("secret horse: %w", keystead.CodeKMSAccessDenied) },
			keystead.CodeKMSAccessDenied, keystead.ClassRevoked},
	} {
		tokens.failWith(one.fails)
		ok(t, store.ForgetEpochKeys())
		_, err := acme.Get("a", keystead.Latest)
		fails(t, err, one.class)
		if told := fails(t, err, one.code); strings.Contains(told.Message, "secret horse") {
			t.Fatal(told)
		}
	}
}

// The application's own signing service was away for some seconds, and the keys of all its customers were dropped at once.
func TestAKeyInMemoryServesOnWhileTheIssuerFails(t *testing.T) {
	const lifetime = 4 * time.Second
	var tokens issuer
	store, acme := minting(t, tokens.mint, keystead.StoreOptions{KeyLifetime: lifetime})
	for {
		tokens.failWith(nil)
		ok(t, store.ForgetEpochKeys())
		began := time.Now()
		equal(t, value(t, acme, "a", keystead.Latest), "correct horse")
		tokens.failWith(func() error { return errors.New("the signing service is away") })
		// From half of its lifetime on, a use asks again in the background.
		var err error
		for before := tokens.times(); err == nil && tokens.times() == before; time.Sleep(50 * time.Millisecond) {
			_, err = acme.Get("a", keystead.Latest)
		}
		time.Sleep(300 * time.Millisecond)
		cached := must[int](t)(store.CachedEpochKeys())
		if err == nil {
			_, err = acme.Get("a", keystead.Latest)
		}
		if time.Since(began) < lifetime {
			ok(t, err)
			equal(t, cached, 1)
			return
		}
		t.Log("the machine stood still until the key's lifetime was over; once more")
	}
}
