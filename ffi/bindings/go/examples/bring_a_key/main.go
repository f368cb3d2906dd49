// Creates a store, puts, brings a key by a dynamic plugin, waits for the re-wrap, reads, prints the epochs.
//
//	go run ./examples/bring_a_key /absolute/path/of/libkeystead_managed.so
//
// The plugin here is the managed keyring once more, as the customer's; libkeystead_aws_kms.so is loaded in the same way.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"keystead"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("the argument is the absolute path of libkeystead_managed.so")
	}
	directory, err := os.MkdirTemp("", "keystead-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(directory)
	if err := run(os.Args[1], directory); err != nil {
		log.Print(err)
		os.RemoveAll(directory)
		os.Exit(1)
	}
}

func run(plugin, directory string) error {
	managed, err := keystead.ManagedBackend(filepath.Join(directory, "app.keyring"), nil)
	if err != nil {
		return err
	}
	digest, err := keystead.PluginDigest(plugin) // an application has the digest from whoever built the plugin
	if err != nil {
		return err
	}
	customer, err := keystead.LoadPlugin(plugin, keystead.PluginOptions{
		Digests:  [][32]byte{digest},
		Name:     "customer-kms",
		Settings: map[string]any{"keyring": filepath.Join(directory, "customer.keyring"), "create": true},
	})
	if err != nil {
		return err
	}
	store, err := keystead.Create(filepath.Join(directory, "app.keystead"), &keystead.StoreOptions{
		Backends: []*keystead.Backend{managed, customer},
	})
	if err != nil {
		return err
	}
	defer store.Close()
	acme, err := store.CreateOrganization("acme")
	if err != nil {
		return err
	}
	acme, err = acme.ActingAs("alice@acme", "ticket 4711")
	if err != nil {
		return err
	}

	v1, err := acme.Put("prod/db/password", []byte("correct horse"), &keystead.PutOptions{
		Labels: map[string]string{"owner": "team-db"},
	})
	if err != nil {
		return err
	}
	_, err = acme.Put("prod/db/password", []byte("battery staple"), &keystead.PutOptions{
		Expect: keystead.ExpectVersion(v1),
	})
	if err != nil {
		return err
	}
	var puts []keystead.Put
	for number := 0; number < 500; number++ {
		puts = append(puts, keystead.Put{Path: fmt.Sprintf("prod/token/%03d", number), Value: []byte("token")})
	}
	if _, err := acme.PutAll(puts); err != nil {
		return err
	}

	job, err := acme.AddKey("acme-cmk", "customer-kms", nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = job.Wait(ctx, func(status keystead.RewrapStatus) {
		fmt.Printf("%d of %d data keys moved\n", status.Done, status.Total)
	})
	if err != nil {
		return err
	}

	secret, err := acme.Get("prod/db/password", keystead.Latest)
	if err != nil {
		return err
	}
	defer secret.Erase()
	fmt.Printf("version %d has %d bytes\n", secret.Version, len(secret.Value))
	epochs, err := acme.Epochs()
	if err != nil {
		return err
	}
	for _, epoch := range epochs {
		fmt.Println(epoch)
	}
	return nil
}
