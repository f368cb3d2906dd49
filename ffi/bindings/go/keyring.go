package keystead

/*
#include <stdlib.h>
#include <keystead.h>
*/
import "C"

import (
	"runtime"
	"time"
	"unsafe"
)

// Keyring is a keyring file, for those who look after it. The keyring is the key: back it up. Every call looks at the file anew, so
// any number of processes may use and change one keyring at once.
type Keyring struct {
	handle *handle
	path   string
}

// KeyringStatus is how a keyring stood.
type KeyringStatus struct {
	// ID is a part of the KMS key id of whatever it wraps.
	ID      string
	Enabled bool
	// Sealed is true when a passphrase seals it.
	Sealed bool
	// Versions of its master key, ascending; the last one wraps.
	Versions []KeyringVersion
}

// KeyringVersion is a version of a keyring's master key.
type KeyringVersion struct {
	Number uint32
	// CreatedAt is by the clock of the machine that made it.
	CreatedAt time.Time
}

// CreateKeyring makes a new file, mode 0600, with one master key; its directory is there. passphrase seals it; nil: the file is not
// sealed. The caller erases its passphrase.
func CreateKeyring(path string, passphrase []byte) (*Keyring, error) {
	return keyring(path, passphrase, func(given *C.keystead_keyring_options, out **C.keystead_keyring,
		failure **C.keystead_error) C.int32_t {
		data, length := text(path)
		return C.keystead_keyring_create(data, length, given, out, failure)
	})
}

// OpenKeyring opens a file that is there, and checks that the passphrase opens it; ClassRevoked when it does not.
func OpenKeyring(path string, passphrase []byte) (*Keyring, error) {
	return keyring(path, passphrase, func(given *C.keystead_keyring_options, out **C.keystead_keyring,
		failure **C.keystead_error) C.int32_t {
		data, length := text(path)
		return C.keystead_keyring_open(data, length, given, out, failure)
	})
}

type sealing func(*C.keystead_keyring_options, **C.keystead_keyring, **C.keystead_error) C.int32_t

func keyring(path string, passphrase []byte, call sealing) (*Keyring, error) {
	var options C.keystead_keyring_options
	options.struct_size = C.uint32_t(unsafe.Sizeof(options))
	if passphrase != nil {
		// In memory of C, since the options must not point into Go's; it is erased there.
		data := C.calloc(1, C.size_t(len(passphrase)+1))
		copied := unsafe.Slice((*byte)(data), len(passphrase)+1)
		copy(copied, passphrase)
		defer func() {
			for index := range copied {
				copied[index] = 0
			}
			runtime.KeepAlive(copied)
			C.free(data)
		}()
		options.passphrase, options.passphrase_len = (*C.uint8_t)(data), C.size_t(len(passphrase))
	}
	var out *C.keystead_keyring
	var failure *C.keystead_error
	if err := check(call(&options, &out, &failure), failure); err != nil {
		return nil, err
	}
	k := &Keyring{path: path}
	k.handle = newHandle("keyring", unsafe.Pointer(out), func(p unsafe.Pointer) {
		C.keystead_keyring_free((*C.keystead_keyring)(p))
	}, nil)
	endForgotten(k, k.handle)
	return k, nil
}

func (k *Keyring) with(call func(*C.keystead_keyring, **C.keystead_error) C.int32_t) error {
	pointer, err := k.handle.begin()
	if err != nil {
		return err
	}
	defer k.handle.release()
	var failure *C.keystead_error
	return check(call((*C.keystead_keyring)(pointer), &failure), failure)
}

// Path is where the file is.
func (k *Keyring) Path() string {
	return k.path
}

// Backend is the backend "managed" on this keyring, opened as this one was. It makes no file, should this one be gone.
func (k *Keyring) Backend() (*Backend, error) {
	var out *C.keystead_backend
	err := k.with(func(p *C.keystead_keyring, failure **C.keystead_error) C.int32_t {
		return C.keystead_keyring_backend(p, &out, failure)
	})
	if err != nil {
		return nil, err
	}
	return newBackend(out), nil
}

// Status is how it stands now.
func (k *Keyring) Status() (*KeyringStatus, error) {
	var out *C.keystead_keyring_status
	err := k.with(func(p *C.keystead_keyring, failure **C.keystead_error) C.int32_t {
		return C.keystead_keyring_read(p, &out, failure)
	})
	if err != nil {
		return nil, err
	}
	defer C.keystead_keyring_status_free(out)
	var info C.keystead_keyring_info
	info.struct_size = C.uint32_t(unsafe.Sizeof(info))
	var failure *C.keystead_error
	if err := check(C.keystead_keyring_status_look(out, &info, &failure), failure); err != nil {
		return nil, err
	}
	status := &KeyringStatus{ID: goText(info.id), Enabled: info.enabled != 0, Sealed: info.sealed != 0}
	for _, version := range unsafe.Slice(info.versions, int(info.versions_len)) {
		status.Versions = append(status.Versions, KeyringVersion{uint32(version.number), goTime(version.created_at_ms)})
	}
	return status, nil
}

// Rotate adds a version of the master key, and returns its number. New wraps use it; older versions stay. To have data keys under
// it, rotate the key "managed" of each organization.
func (k *Keyring) Rotate() (uint32, error) {
	var version C.uint32_t
	err := k.with(func(p *C.keystead_keyring, failure **C.keystead_error) C.int32_t {
		return C.keystead_keyring_rotate(p, &version, failure)
	})
	return uint32(version), err
}

// Disable disables it: everything under it is unreadable until Enable, in every process, from its next call on.
func (k *Keyring) Disable() error {
	return k.with(func(p *C.keystead_keyring, failure **C.keystead_error) C.int32_t {
		return C.keystead_keyring_disable(p, failure)
	})
}

// Enable enables it again.
func (k *Keyring) Enable() error {
	return k.with(func(p *C.keystead_keyring, failure **C.keystead_error) C.int32_t {
		return C.keystead_keyring_enable(p, failure)
	})
}

// Reseal puts it under another passphrase; nil: it is not sealed any more. It returns the keyring so opened. Whoever has the old
// passphrase, this Keyring and its backends too, gets ClassRevoked from the next call on.
func (k *Keyring) Reseal(passphrase []byte) (*Keyring, error) {
	pointer, err := k.handle.begin()
	if err != nil {
		return nil, err
	}
	defer k.handle.release()
	return keyring(k.path, passphrase, func(given *C.keystead_keyring_options, out **C.keystead_keyring,
		failure **C.keystead_error) C.int32_t {
		return C.keystead_keyring_reseal((*C.keystead_keyring)(pointer), given, out, failure)
	})
}

// Close frees it. The file stays, and backends of it go on.
func (k *Keyring) Close() error {
	k.handle.end()
	return nil
}
