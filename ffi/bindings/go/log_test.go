package keystead_test

import (
	"path/filepath"
	"strings"
	"testing"

	"keystead"
)

func makeAKeyring(t *testing.T, directory, name string) {
	t.Helper()
	managed := must[*keystead.Backend](t)(keystead.ManagedBackend(filepath.Join(directory, name+".keyring"), nil))
	options := keystead.StoreOptions{Backends: []*keystead.Backend{managed}}
	store := must[*keystead.Store](t)(keystead.Create(filepath.Join(directory, name), &options))
	must[*keystead.Organization](t)(store.CreateOrganization("acme"))
	ok(t, store.Close())
}

func TestWhatHappensIsToldUntilTheLogIsClosed(t *testing.T) {
	directory := t.TempDir()
	var told []keystead.LogRecord
	log := must[*keystead.Log](t)(keystead.LogTo(keystead.LogInfo, func(record keystead.LogRecord) {
		told = append(told, record)
		panic("it is dropped")
	}))
	_, err := keystead.LogTo(keystead.LogInfo, func(keystead.LogRecord) {})
	fails(t, err, keystead.CodeLogTaken)
	makeAKeyring(t, directory, "a")
	ok(t, log.Close())
	ok(t, log.Close())
	makeAKeyring(t, directory, "b")
	if len(told) != 1 || !strings.HasPrefix(told[0].Message, "made the keyring "+directory+"/a.keyring") {
		t.Fatalf("it told %v", told)
	}
	equal(t, told[0].Level, keystead.LogWarn)
	equal(t, told[0].Fields, map[string]any{"organization": "acme", "key": "managed"})
	equal(t, strings.HasPrefix(told[0].Target, "keystead::"), true)

	log = must[*keystead.Log](t)(keystead.LogTo(keystead.LogError, func(record keystead.LogRecord) { told = append(told, record) }))
	makeAKeyring(t, directory, "c")
	ok(t, log.Close())
	equal(t, len(told), 1)
}
