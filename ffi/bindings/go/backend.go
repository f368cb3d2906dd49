package keystead

/*
#include <keystead.h>
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"unsafe"
)

// Backend is a connector to one kind of KMS, for StoreOptions. It may serve several stores.
type Backend struct {
	handle *handle
}

// PluginOptions is how a plugin is checked before a byte of it runs, and what it is given.
type PluginOptions struct {
	// Digests are the BLAKE3 digests of the bytes that are allowed.
	Digests [][32]byte
	// DangerouslyWithoutDigest allows whatever is at the path. For development.
	DangerouslyWithoutDigest bool
	// SizeMaxBytes: a larger file is refused; 0 stands for 512 MiB.
	SizeMaxBytes uint64
	// Name is the name by which stored keys refer to this backend; without, the backend's own name.
	Name string
	// Settings is the backend's: endpoints, files, credentials. Made JSON; trusted, never stored.
	Settings any
	// AtFirstUse: the plugin is loaded when a key of it is first used, not now, and is given a Name; of many that are
	// registered, those that no key needs cost nothing. What refuses it is then the error of that use.
	AtFirstUse bool
}

// LoadPlugin loads a plugin after checking its path, which is absolute, its owners, modes and digest. Nothing of one that
// fails there runs; the error, of ClassConfig, says at which step and why.
func LoadPlugin(path string, options PluginOptions) (*Backend, error) {
	settings, err := settingsOf(options.Settings)
	if err != nil {
		return nil, err
	}
	var held memory
	defer held.free()
	var given C.keystead_plugin_options
	given.struct_size = C.uint32_t(unsafe.Sizeof(given))
	given.name, given.name_len = held.optionalText(options.Name)
	given.settings_json, given.settings_json_len = held.text(settings)
	given.size_max_bytes = C.uint64_t(options.SizeMaxBytes)
	if options.DangerouslyWithoutDigest {
		given.dangerously_without_digest = 1
	}
	if options.AtFirstUse {
		given.at_first_use = 1
	}
	digests := held.take(32 * len(options.Digests))
	for index, digest := range options.Digests {
		copy(unsafe.Slice((*byte)(unsafe.Add(digests, 32*index)), 32), digest[:])
	}
	given.digests, given.digests_len = (*C.uint8_t)(digests), C.size_t(len(options.Digests))

	data, length := text(path)
	var out *C.keystead_backend
	var failure *C.keystead_error
	if err := check(C.keystead_backend_load(data, length, &given, &out, &failure), failure); err != nil {
		return nil, err
	}
	return newBackend(out), nil
}

// ManagedOptions is where the passphrase of a sealed keyring is, and whether the file is made.
type ManagedOptions struct {
	// MustExist: the keyring file is not made at the first wrap when it is not there.
	MustExist      bool
	PassphraseEnv  string
	PassphraseFile string
}

// ManagedBackend is the managed key, with which every organization is born: a local keyring file. Back it up. options may be
// nil.
func ManagedBackend(keyring string, options *ManagedOptions) (*Backend, error) {
	keyring, err := filepath.Abs(keyring)
	if err != nil {
		return nil, err
	}
	settings := map[string]any{"keyring": keyring}
	if options != nil {
		settings["create"] = !options.MustExist
		if options.PassphraseEnv != "" {
			settings["passphrase_env"] = options.PassphraseEnv
		}
		if options.PassphraseFile != "" {
			file, err := filepath.Abs(options.PassphraseFile)
			if err != nil {
				return nil, err
			}
			settings["passphrase_file"] = file
		}
	}
	encoded, err := settingsOf(settings)
	if err != nil {
		return nil, err
	}
	data, length := text(encoded)
	var out *C.keystead_backend
	var failure *C.keystead_error
	if err := check(C.keystead_backend_managed(data, length, &out, &failure), failure); err != nil {
		return nil, err
	}
	return newBackend(out), nil
}

func newBackend(pointer *C.keystead_backend) *Backend {
	b := &Backend{newHandle("backend", unsafe.Pointer(pointer), func(p unsafe.Pointer) {
		C.keystead_backend_free((*C.keystead_backend)(p))
	}, nil)}
	endForgotten(b, b.handle)
	return b
}

// Name is the name by which stored keys refer to the backend; "" once it is closed.
func (b *Backend) Name() string {
	return b.text(func(p *C.keystead_backend) *C.char { return C.keystead_backend_name(p) })
}

// Description is what the backend says about itself, as JSON: its own name, version, limits, schemas; {} for a plugin that is
// loaded at its first use.
func (b *Backend) Description() string {
	return b.text(func(p *C.keystead_backend) *C.char { return C.keystead_backend_description_json(p) })
}

func (b *Backend) text(read func(*C.keystead_backend) *C.char) string {
	pointer, err := b.handle.begin()
	if err != nil {
		return ""
	}
	defer b.handle.release()
	return C.GoString(read((*C.keystead_backend)(pointer)))
}

// Close frees it. Stores that were opened with it go on.
func (b *Backend) Close() error {
	b.handle.end()
	return nil
}

// PluginDigest is the BLAKE3 digest of a file, for tools that make an allow-list. It reads whatever is there and checks
// nothing: be sure that the file is the one you mean.
func PluginDigest(path string) (digest [32]byte, err error) {
	data, length := text(path)
	var failure *C.keystead_error
	err = check(C.keystead_plugin_digest(data, length, (*C.uint8_t)(&digest[0]), &failure), failure)
	return digest, err
}

func settingsOf(settings any) (string, error) {
	if settings == nil {
		return "{}", nil
	}
	encoded, err := json.Marshal(settings)
	if err != nil {
		return "", fmt.Errorf("keystead: making the settings JSON: %w", err)
	}
	return string(encoded), nil
}
