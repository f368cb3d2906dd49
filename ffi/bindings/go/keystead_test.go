package keystead_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"keystead"
)

// plugin is a dynamic plugin: the managed keyring once more.
func plugin(t *testing.T) string {
	t.Helper()
	path := os.Getenv("KEYSTEAD_PLUGIN")
	if path == "" {
		t.Fatal("set KEYSTEAD_PLUGIN to libkeystead_managed.so, which `cargo build -p keystead-managed-plugin` makes")
	}
	return path
}

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fails(t *testing.T, err error, target error) *keystead.Error {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("%v is not: %v", err, target)
	}
	var told *keystead.Error
	if !errors.As(err, &told) || told.Message == "" {
		t.Fatalf("%v is no *keystead.Error", err)
	}
	return told
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func backends(t *testing.T, directory string) []*keystead.Backend {
	t.Helper()
	managed := must[*keystead.Backend](t)(keystead.ManagedBackend(filepath.Join(directory, "app.keyring"), nil))
	path := plugin(t)
	customer := must[*keystead.Backend](t)(keystead.LoadPlugin(path, keystead.PluginOptions{
		Digests:  [][32]byte{must[[32]byte](t)(keystead.PluginDigest(path))},
		Name:     "customer-kms",
		Settings: map[string]any{"keyring": filepath.Join(directory, "customer.keyring")},
	}))
	return []*keystead.Backend{managed, customer}
}

// fresh is a store with the organization acme.
func fresh(t *testing.T, options keystead.StoreOptions) (*keystead.Store, *keystead.Organization) {
	t.Helper()
	directory := t.TempDir()
	options.Backends = backends(t, directory)
	store := must[*keystead.Store](t)(keystead.Create(filepath.Join(directory, "app.keystead"), &options))
	t.Cleanup(func() { ok(t, store.Close()) })
	return store, must[*keystead.Organization](t)(store.CreateOrganization("acme"))
}

func value(t *testing.T, o *keystead.Organization, path string, version uint32) string {
	t.Helper()
	return string(must[*keystead.Secret](t)(o.Get(path, version)).Value)
}

func put(t *testing.T, o *keystead.Organization, path, value string) uint32 {
	t.Helper()
	return must[uint32](t)(o.Put(path, []byte(value), nil))
}

func wait(t *testing.T) func(*keystead.RewrapJob, error) *keystead.RewrapStatus {
	return func(job *keystead.RewrapJob, err error) *keystead.RewrapStatus {
		t.Helper()
		ok(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return must[*keystead.RewrapStatus](t)(job.Wait(ctx, nil))
	}
}

func TestWhatWasPutIsReadWithWhatStandsBesideIt(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	labels := map[string]string{"owner": "team-db", "empty": ""}
	version, err := acme.Put("prod/db/password", []byte("correct horse"),
		&keystead.PutOptions{Labels: labels, ContentType: "text/plain"})
	ok(t, err)
	secret := must[*keystead.Secret](t)(acme.Get("prod/db/password", keystead.Latest))
	equal(t, []any{version, secret.Version, string(secret.Value)}, []any{uint32(1), uint32(1), "correct horse"})
	equal(t, secret.Labels, labels)
	equal(t, secret.ContentType, "text/plain")
	if age := time.Since(secret.CreatedAt); age < -time.Minute || age > time.Minute {
		t.Fatalf("it was written %v ago", age)
	}
	secret.Erase()
	equal(t, secret.Value, make([]byte, 13))
}

func TestAnyBytesComeBackAsTheyWere(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	for _, given := range [][]byte{nil, {0}, bytes.Repeat([]byte("x"), 65_537), []byte("ümläut\x00")} {
		must[uint32](t)(acme.Put("a", given, nil))
		if got := must[*keystead.Secret](t)(acme.Get("a", keystead.Latest)).Value; !bytes.Equal(got, given) {
			t.Fatalf("%d bytes came back as %d", len(given), len(got))
		}
	}
}

func TestAPutThatExpectsAnotherVersionIsRefused(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	v1, err := acme.Put("a", []byte("1"), &keystead.PutOptions{Expect: keystead.ExpectNew()})
	ok(t, err)
	_, err = acme.Put("a", []byte("2"), &keystead.PutOptions{Expect: keystead.ExpectNew()})
	fails(t, err, keystead.CodeVersionMismatch)
	fails(t, err, keystead.ClassConflict)
	v2, err := acme.Put("a", []byte("2"), &keystead.PutOptions{Expect: keystead.ExpectVersion(v1)})
	ok(t, err)
	equal(t, v2, uint32(2))
}

func TestErrorsAreToldByCodeAndClass(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	_, err := acme.Get("nothing/here", keystead.Latest)
	told := fails(t, err, keystead.CodeSecretNotFound)
	equal(t, []any{told.Class, told.Retryable}, []any{keystead.ClassNotFound, false})
	if errors.Is(err, keystead.ClassRevoked) || !strings.Contains(err.Error(), "nothing/here") {
		t.Fatal(err)
	}
	_, err = acme.Put("a//b", nil, nil)
	fails(t, err, keystead.CodeInvalidPath)
	fails(t, err, keystead.ClassCaller)
	put(t, acme, "a", "1")
	_, err = acme.Get("a", 9)
	fails(t, err, keystead.CodeVersionNotFound)
}

func TestAValueIsReadIntoABufferOfTheCaller(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	put(t, acme, "a", "correct horse")
	buffer := make([]byte, 64)
	equal(t, string(buffer[:must[int](t)(acme.GetInto("a", 1, buffer))]), "correct horse")
	small := []byte("????")
	needed, err := acme.GetInto("a", keystead.Latest, small)
	fails(t, err, keystead.CodeBufferTooSmall)
	equal(t, []any{needed, string(small)}, []any{13, "????"})
}

func TestABatchIsWrittenWholeOrNotAtAll(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	versions := must[[]uint32](t)(acme.PutAll([]keystead.Put{{Path: "a", Value: []byte("1")}, {Path: "a", Value: []byte("2")}}))
	equal(t, versions, []uint32{1, 2})
	_, err := acme.PutAll([]keystead.Put{
		{Path: "a", Value: []byte("3")},
		{Path: "b", Options: &keystead.PutOptions{Expect: keystead.ExpectVersion(7)}},
	})
	fails(t, err, keystead.CodeVersionMismatch)
	equal(t, value(t, acme, "a", keystead.Latest), "2")
	_, err = acme.PutAll([]keystead.Put{{Path: "//"}})
	fails(t, err, keystead.CodeInvalidPath)
	equal(t, must[[]uint32](t)(acme.PutAll(nil)), []uint32{})
}

func TestListsAreReadByPages(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	var puts []keystead.Put
	for number := 0; number < 250; number++ {
		puts = append(puts, keystead.Put{Path: fmt.Sprintf("many/%03d", number)})
	}
	must[[]uint32](t)(acme.PutAll(puts))
	put(t, acme, "other", "")
	var paths []string
	after := ""
	for pages := 0; ; pages++ {
		page, next, err := acme.List("many/", after, 100)
		ok(t, err)
		for _, info := range page {
			paths = append(paths, info.Path)
		}
		if next == "" {
			equal(t, pages, 2)
			break
		}
		after = next
	}
	equal(t, len(paths), 250)
	equal(t, []string{paths[0], paths[249]}, []string{"many/000", "many/249"})
}

func TestDeletedVersionsComeBackAndDestroyedOnesDoNot(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	put(t, acme, "a", "1")
	put(t, acme, "a", "2")
	ok(t, acme.Delete("a", 2))
	_, err := acme.Get("a", keystead.Latest)
	fails(t, err, keystead.CodeVersionDeleted)
	equal(t, must[*keystead.SecretInfo](t)(acme.Info("a")).Deleted, uint32(1))
	ok(t, acme.Undelete("a", 2))
	ok(t, acme.Destroy("a", 1))
	history := must[[]keystead.VersionInfo](t)(acme.History("a", 0, 100))
	equal(t, []any{history[0].State, history[1].State}, []any{keystead.VersionDestroyed, keystead.VersionLive})
	equal(t, []any{history[0].StateAt.IsZero(), history[1].StateAt.IsZero(), history[1].SizeBytes}, []any{false, true, uint64(1)})
	ok(t, acme.SetRetention("a", 1))
	put(t, acme, "a", "3")
	equal(t, must[*keystead.SecretInfo](t)(acme.Info("a")).Retention, uint32(1))
	_, err = acme.Get("a", 2)
	fails(t, err, keystead.ClassNotFound)
}

func TestALargeValueGoesThroughStreams(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	large := bytes.Repeat([]byte("all work and no play "), 150_000)
	writer := must[*keystead.SecretWriter](t)(acme.NewWriter("large", &keystead.PutOptions{ContentType: "text/plain"}))
	must[int64](t)(io.Copy(writer, bytes.NewReader(large)))
	equal(t, must[uint32](t)(writer.Finish()), uint32(1))
	_, err := writer.Write([]byte("more"))
	fails(t, err, keystead.CodeClosed)
	ok(t, writer.Close())
	reader := must[*keystead.SecretReader](t)(acme.NewReader("large", keystead.Latest))
	equal(t, []any{reader.Info().SizeBytes, reader.Info().ContentType}, []any{uint64(len(large)), "text/plain"})
	if !bytes.Equal(must[[]byte](t)(io.ReadAll(reader)), large) {
		t.Fatal("it came back as something else")
	}
	ok(t, reader.Close())
	_, err = reader.Read(make([]byte, 1))
	fails(t, err, keystead.CodeClosed)

	unfinished := must[*keystead.SecretWriter](t)(acme.NewWriter("unfinished", nil))
	must[int](t)(unfinished.Write(large))
	ok(t, unfinished.Close())
	_, err = acme.Get("unfinished", keystead.Latest)
	fails(t, err, keystead.CodeSecretNotFound)
}

func TestTheFirstKeyThatIsBroughtTakesOverEverything(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	var puts []keystead.Put
	for number := 0; number < 300; number++ {
		puts = append(puts, keystead.Put{Path: fmt.Sprintf("s/%d", number), Value: []byte("value")})
	}
	must[[]uint32](t)(acme.PutAll(puts))
	if status := must[*keystead.RewrapStatus](t)(acme.RewrapStatus()); status != nil {
		t.Fatal(status)
	}
	alice := must[*keystead.Organization](t)(acme.ActingAs("alice@acme", "ticket 4711"))
	job := must[*keystead.RewrapJob](t)(alice.AddKey("acme-cmk", "customer-kms", nil))
	var told []keystead.RewrapStatus
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	status, err := job.Wait(ctx, func(status keystead.RewrapStatus) { told = append(told, status) })
	ok(t, err)
	equal(t, []any{status.State, status.Remaining, status.Done, status.Job},
		[]any{keystead.RewrapDone, uint64(0), uint64(300), job.Number()})
	equal(t, told[len(told)-1], *status)
	epochs := must[[]keystead.Epoch](t)(acme.Epochs())
	equal(t, fmt.Sprint(epochs), "[1 managed retired, 0 data keys 2 acme-cmk active, 300 data keys]")
	second := epochs[1]
	equal(t, []any{second.Actor, second.Reason, second.Cause, second.WrappedBy[0].Key},
		[]any{"alice@acme", "ticket 4711", keystead.CauseFirstOwnKey, "acme-cmk"})
	equal(t, len(epochs[0].WrappedBy), 0)
	equal(t, value(t, acme, "s/7", keystead.Latest), "value")
}

func TestKeysAreRotatedAndDisabled(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	put(t, acme, "a", "1")
	wait(t)(acme.AddKey("acme-cmk", "customer-kms", struct{}{}))
	wait(t)(acme.RotateKey("acme-cmk"))
	ok(t, acme.ProbeKey("acme-cmk"))
	wait(t)(acme.AddKey("second", "customer-kms", nil))
	wait(t)(acme.SetDefaultKey("second", true))
	wait(t)(acme.DisableKey("acme-cmk", "second"))
	var states []string
	for _, key := range must[[]keystead.KeyInfo](t)(acme.Keys()) {
		states = append(states, fmt.Sprint(key.Name, " ", key.State, " ", key.IsDefault, " ", string(key.Config)))
	}
	equal(t, states, []string{"acme-cmk 3 false {}", "managed 1 false {}", "second 1 true {}"})
	wait(t)(acme.DisableAllKeys())
	equal(t, value(t, acme, "a", keystead.Latest), "1")
	_, err := acme.RotateKey("second")
	fails(t, err, keystead.CodeKeyRefused)
	_, err = acme.RewrapJob()
	fails(t, err, keystead.CodeNoJob)
	_, err = acme.RetargetKey("managed")
	fails(t, err, keystead.CodeNoJob)
}

func TestASecondKeyWrapsEveryLiveEpochAndIsRemoved(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	put(t, acme, "a", "1")
	wait(t)(acme.AddKey("acme-cmk", "customer-kms", nil))
	wait(t)(acme.AddKey("paris", "customer-kms", nil))
	second := func() *keystead.SecondKey { return must[*keystead.SecondKey](t)(acme.SecondKey()) }
	if found := second(); found != nil {
		t.Fatal(found)
	}
	_, err := acme.SetSecondKey("acme-cmk", false)
	fails(t, err, keystead.CodeKeyRefused)
	wait(t)(acme.SetSecondKey("paris", false))
	equal(t, *second(), keystead.SecondKey{Key: "paris", Wrapped: 1})
	wait(t)(acme.RotateKey("acme-cmk"))
	epochs := must[[]keystead.Epoch](t)(acme.Epochs())
	wraps := epochs[len(epochs)-1].WrappedBy
	equal(t, []any{len(wraps), wraps[0].Key, wraps[1].Key}, []any{2, "acme-cmk", "paris"})
	ok(t, acme.RemoveSecondKey())
	wait(t)(acme.SetSecondKey("paris", true))
	equal(t, second().EitherOpens, true)
	ok(t, acme.RemoveSecondKey())
	fails(t, acme.RemoveSecondKey(), keystead.CodeInvalidArgument)
}

func TestAPluginThatWaitsForItsFirstUseIsRefusedThere(t *testing.T) {
	directory := t.TempDir()
	right := must[[32]byte](t)(keystead.PluginDigest(plugin(t)))
	_, err := keystead.LoadPlugin(plugin(t), keystead.PluginOptions{Digests: [][32]byte{right}, AtFirstUse: true})
	fails(t, err, keystead.CodeInvalidArgument)
	late := func(name string, digest [32]byte) *keystead.Backend {
		return must[*keystead.Backend](t)(keystead.LoadPlugin(plugin(t), keystead.PluginOptions{
			Digests:    [][32]byte{digest},
			Name:       name,
			Settings:   map[string]any{"keyring": filepath.Join(directory, "late.keyring")},
			AtFirstUse: true,
		}))
	}
	managed := must[*keystead.Backend](t)(keystead.ManagedBackend(filepath.Join(directory, "app.keyring"), nil))
	backends := []*keystead.Backend{managed, late("wrong", [32]byte{}), late("right", right)}
	equal(t, backends[2].Description(), "{}")
	path := filepath.Join(directory, "late.keystead")
	store := must[*keystead.Store](t)(keystead.Create(path, &keystead.StoreOptions{Backends: backends}))
	defer store.Close()
	acme := must[*keystead.Organization](t)(store.CreateOrganization("acme"))
	_, err = acme.AddKey("cmk", "wrong", nil)
	fails(t, err, keystead.CodeKMSInvalidConfig)
	wait(t)(acme.AddKey("cmk", "right", nil))
}

func TestAStoreThatWasRolledBackIsRefusedByItsCheckpoint(t *testing.T) {
	store, acme := fresh(t, keystead.StoreOptions{})
	options := &keystead.StoreOptions{Backends: backends(t, filepath.Dir(store.Path()))}
	put(t, acme, "a", "1")
	ok(t, store.Close())
	old := store.Path() + ".old"
	ok(t, os.WriteFile(old, must[[]byte](t)(os.ReadFile(store.Path())), 0o600))
	again := must[*keystead.Store](t)(keystead.Open(store.Path(), options))
	put(t, must[*keystead.Organization](t)(again.Organization("acme")), "a", "2")
	options.Checkpoint = must[string](t)(again.Checkpoint())
	ok(t, again.Close())
	ok(t, must[*keystead.Store](t)(keystead.Open(store.Path(), options)).Close())
	_, err := keystead.Open(old, options)
	fails(t, err, keystead.CodeBehindCheckpoint)
	fails(t, err, keystead.ClassIntegrity)
}

func TestAJobIsDoneHereWhenNothingGoesOnInTheBackground(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{WithoutBackgroundRewrap: true})
	put(t, acme, "a", "1")
	job := must[*keystead.RewrapJob](t)(acme.AddKey("acme-cmk", "customer-kms", nil))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := job.Wait(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	running := must[*keystead.RewrapJob](t)(acme.RewrapJob())
	equal(t, running.Number(), job.Number())
	equal(t, must[*keystead.RewrapStatus](t)(running.RunHere()).State, keystead.RewrapDone)
}

func TestTheAuditTrailTellsWhoDidWhat(t *testing.T) {
	_, acme := fresh(t, keystead.StoreOptions{})
	alice := must[*keystead.Organization](t)(acme.ActingAs("alice@acme", "ticket 4711"))
	put(t, alice, "prod/db/password", "correct horse")
	records := must[[]keystead.AuditRecord](t)(acme.Audit(0, 100))
	last := records[len(records)-1]
	equal(t, []string{records[0].Event, last.Event, last.Actor, last.Reason, string(last.Details)},
		[]string{"OrganizationCreated", "VersionPut", "alice@acme", "ticket 4711", `{"path":"prod/db/password","version":1}`})
	equal(t, must[keystead.AuditHead](t)(acme.AuditHead()), keystead.AuditHead{Sequence: last.Sequence, Hash: last.Hash})
	equal(t, must[[]keystead.AuditRecord](t)(acme.Audit(last.Sequence-1, 100)), records[len(records)-1:])
}

func TestAStoreIsVerified(t *testing.T) {
	store, acme := fresh(t, keystead.StoreOptions{})
	put(t, acme, "a", "1")
	var told []uint64
	report := must[*keystead.VerifyReport](t)(store.Verify(keystead.VerifyOptions{
		OpenValues: true,
		Progress:   func(lookedAt uint64) { told = append(told, lookedAt) },
	}))
	equal(t, []any{len(report.Problems), len(report.Unopened), report.ValuesOpened, told}, []any{0, 0, uint64(1), []uint64{1}})
	equal(t, []any{report.Complete, report.Wraps, report.Chunks}, []any{true, uint64(1), uint64(0)})
	if report.Blocks == 0 {
		t.Fatal("no block was looked at")
	}
	must[*keystead.VerifyReport](t)(store.Verify(keystead.VerifyOptions{Progress: func(uint64) { panic("not told") }}))
}

func TestAPluginOfAnotherDigestDoesNotRun(t *testing.T) {
	_, err := keystead.LoadPlugin(plugin(t), keystead.PluginOptions{Digests: make([][32]byte, 1)})
	fails(t, err, keystead.CodePluginRefused)
	_, err = keystead.LoadPlugin(plugin(t), keystead.PluginOptions{})
	fails(t, err, keystead.ClassConfig)
}

func TestAStoreThatWasClosedIsOpenedAgainWhileOldHandlesAreStillHeld(t *testing.T) {
	store, acme := fresh(t, keystead.StoreOptions{})
	put(t, acme, "a", "1")
	options := &keystead.StoreOptions{Backends: backends(t, filepath.Dir(store.Path()))}
	_, err := keystead.Open(store.Path(), options)
	fails(t, err, keystead.CodeAlreadyOpen)
	id := must[[16]byte](t)(store.ID())
	ok(t, store.Close())
	again := must[*keystead.Store](t)(keystead.Open(store.Path(), options))
	defer again.Close()
	equal(t, must[[16]byte](t)(again.ID()), id)
	opened := must[*keystead.Organization](t)(again.Organization("acme"))
	equal(t, value(t, opened, "a", keystead.Latest), "1")
	_, err = acme.Get("a", keystead.Latest)
	fails(t, err, keystead.CodeClosed)
	_, err = store.CreateOrganization("b")
	fails(t, err, keystead.CodeClosed)
}

func TestWhatIsForgottenIsFreed(t *testing.T) {
	store, acme := fresh(t, keystead.StoreOptions{})
	path, options := store.Path(), &keystead.StoreOptions{Backends: backends(t, filepath.Dir(store.Path()))}
	put(t, acme, "a", "1")
	ok(t, store.Close())
	func() {
		forgotten := must[*keystead.Store](t)(keystead.Open(path, options))
		must[*keystead.Organization](t)(forgotten.Organization("acme"))
	}()
	for until := time.Now().Add(time.Minute); ; {
		runtime.GC()
		again, err := keystead.Open(path, options)
		if err == nil {
			ok(t, again.Close())
			return
		}
		fails(t, err, keystead.CodeAlreadyOpen)
		if time.Now().After(until) {
			t.Fatal("a store that nothing refers to is still open")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestGoroutinesReadAndWriteUntilTheStoreIsClosed(t *testing.T) {
	store, acme := fresh(t, keystead.StoreOptions{})
	var group sync.WaitGroup
	failures := make(chan error, 8)
	for name := 0; name < 8; name++ {
		group.Add(1)
		go func(path string) {
			defer group.Done()
			for number := 0; ; number++ {
				given := fmt.Sprint(number)
				version, err := acme.Put(path, []byte(given), nil)
				if errors.Is(err, keystead.CodeClosed) {
					return
				}
				if err != nil {
					failures <- err
					return
				}
				secret, err := acme.Get(path, version)
				if errors.Is(err, keystead.CodeClosed) {
					return
				}
				if err != nil || string(secret.Value) != given {
					failures <- fmt.Errorf("%v, %v", secret, err)
					return
				}
			}
		}(fmt.Sprintf("g/%d", name))
	}
	time.Sleep(300 * time.Millisecond)
	ok(t, store.Close())
	group.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
}

func TestOrganizationsAreListedByName(t *testing.T) {
	store, _ := fresh(t, keystead.StoreOptions{})
	for _, name := range []string{"zeta", "müller"} {
		must[*keystead.Organization](t)(store.CreateOrganization(name))
	}
	page, next, err := store.Organizations("", 2)
	ok(t, err)
	equal(t, []string{page[0].Name, page[1].Name, next}, []string{"acme", "müller", "müller"})
	page, next, err = store.Organizations(next, 2)
	ok(t, err)
	equal(t, []any{len(page), page[0].Name, next}, []any{1, "zeta", ""})
	_, err = store.Organization("nobody")
	fails(t, err, keystead.CodeOrganizationNotFound)
}

func TestOptionsReachTheStore(t *testing.T) {
	store, acme := fresh(t, keystead.StoreOptions{
		CacheBytes: 1 << 20, KeyLifetime: time.Minute, KMSTimeout: 20 * time.Second, KMSAttemptsMax: 1, RewrapBatch: 16,
	})
	put(t, acme, "a", "1")
	equal(t, must[int](t)(store.CachedEpochKeys()), 1)
	ok(t, store.ForgetEpochKeys())
	equal(t, must[int](t)(store.CachedEpochKeys()), 0)
	equal(t, []any{acme.Name(), acme.ID() > 0}, []any{"acme", true})
}

func TestTheExampleRuns(t *testing.T) {
	out, err := exec.Command("go", "run", "./examples/bring_a_key", plugin(t)).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "1 managed retired, 0 data keys\n2 acme-cmk active, 502 data keys\n") {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestTheVersionIsTold(t *testing.T) {
	if !strings.HasPrefix(keystead.Version(), "0.") {
		t.Fatal(keystead.Version())
	}
}
