package keystead_test

import (
	"os"
	"path/filepath"
	"testing"

	"keystead"
)

func TestWhatIsWholeInADamagedFileIsSalvagedAndWhatIsLostIsNamed(t *testing.T) {
	directory := t.TempDir()
	path, renewed := filepath.Join(directory, "app.keystead"), filepath.Join(directory, "new.keystead")
	options := keystead.StoreOptions{Backends: backends(t, directory)}
	store := must[*keystead.Store](t)(keystead.Create(path, &options))
	acme := must[*keystead.Organization](t)(store.CreateOrganization("acme"))
	put(t, acme, "small", "value")
	put(t, acme, "large", string(make([]byte, 3_000_000)))
	id := must[[16]byte](t)(store.ID())
	ok(t, store.Close())

	steps := 0
	whole := must[*keystead.SalvageReport](t)(keystead.Salvage(path, renewed, keystead.SalvageOptions{
		Store:   options,
		StoreID: &id,
		Progress: func(step keystead.SalvageStep) {
			if step.Phase != "" {
				steps++
			}
		},
	}))
	equal(t, []any{len(whole.Lost), whole.Secrets, whole.Opened, whole.StoreID, steps > 0}, []any{0, uint64(2), uint64(2), id, true})
	_, err := keystead.Salvage(path, renewed, keystead.SalvageOptions{Store: options})
	fails(t, err, keystead.CodeStoreExists)
	ok(t, os.Remove(renewed))

	file := must[*os.File](t)(os.OpenFile(path, os.O_RDWR, 0))
	// Behind the journal, in the middle of the large value.
	must[int](t)(file.WriteAt(make([]byte, 1<<20), 5<<20))
	ok(t, file.Close())
	report := must[*keystead.SalvageReport](t)(keystead.Salvage(path, renewed, keystead.SalvageOptions{Store: options}))
	found := false
	for _, loss := range report.Lost {
		if loss.Path == "large" {
			found = true
			equal(t, []any{loss.Kind, loss.Organization, loss.Version}, []any{keystead.LostVersion, "acme", uint32(1)})
		}
	}
	equal(t, found, true)
	again := must[*keystead.Store](t)(keystead.Open(renewed, &options))
	defer again.Close()
	left := must[*keystead.Organization](t)(again.Organization("acme"))
	equal(t, value(t, left, "small", keystead.Latest), "value")
	_, err = left.Get("large", keystead.Latest)
	fails(t, err, keystead.CodeVersionLost)
}

func TestAKeyringIsMadeRotatedDisabledAndResealed(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "sealed.keyring")
	keyring := must[*keystead.Keyring](t)(keystead.CreateKeyring(path, []byte("correct horse")))
	defer keyring.Close()
	_, err := keystead.CreateKeyring(path, nil)
	fails(t, err, keystead.ClassConfig)
	_, err = keystead.CreateKeyring(filepath.Join(directory, "other"), []byte{})
	fails(t, err, keystead.ClassConfig)
	_, err = keystead.OpenKeyring(path, []byte("another horse"))
	fails(t, err, keystead.CodeKMSUnauthenticated)

	managed := must[*keystead.Backend](t)(keyring.Backend())
	options := keystead.StoreOptions{Backends: []*keystead.Backend{managed}}
	store := must[*keystead.Store](t)(keystead.Create(filepath.Join(directory, "app.keystead"), &options))
	defer store.Close()
	acme := must[*keystead.Organization](t)(store.CreateOrganization("acme"))
	put(t, acme, "a", "1")
	equal(t, must[uint32](t)(keyring.Rotate()), uint32(2))
	status := must[*keystead.KeyringStatus](t)(keyring.Status())
	equal(t, []any{status.Enabled, status.Sealed, len(status.ID), len(status.Versions)}, []any{true, true, 32, 2})
	ok(t, keyring.Disable())
	ok(t, store.ForgetEpochKeys())
	_, err = acme.Get("a", keystead.Latest)
	fails(t, err, keystead.ClassRevoked)
	ok(t, keyring.Enable())
	ok(t, store.ForgetEpochKeys()) // and that it was refused
	equal(t, value(t, acme, "a", keystead.Latest), "1")
	resealed := must[*keystead.Keyring](t)(keyring.Reseal(nil))
	defer resealed.Close()
	equal(t, must[*keystead.KeyringStatus](t)(resealed.Status()).Sealed, false)
	_, err = keyring.Rotate()
	fails(t, err, keystead.ClassConfig)
}
