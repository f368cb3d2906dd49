// Package keystead is an embedded database for secrets whose owners bring their own keys.
//
//	managed, err := keystead.ManagedBackend("app.keyring", nil)
//	store, err := keystead.Create("app.keystead", &keystead.StoreOptions{Backends: []*keystead.Backend{managed}})
//	defer store.Close()
//	acme, err := store.CreateOrganization("acme")
//	v1, err := acme.Put("prod/db/password", []byte("correct horse"), nil) // durable when it returns
//	secret, err := acme.Get("prod/db/password", keystead.Latest)
//
// Everything may be used from several goroutines at once. What is not closed is closed when the garbage collector finds it.
// A call blocks its thread, as one into the file system does. Values that are returned are ordinary slices: Secret.Erase
// overwrites one.
//
// The package is built against libkeystead, which pkg-config finds.
package keystead

/*
#cgo pkg-config: keystead
#include <stdlib.h>
#include <keystead.h>
*/
import "C"

import (
	"time"
	"unsafe"
)

// Latest, as a version, is the latest one.
const Latest uint32 = 0

// Version is the version of the library that runs.
func Version() string {
	return C.GoString(C.keystead_version())
}

func init() {
	if uint32(C.keystead_abi_version()) != C.KEYSTEAD_ABI_VERSION {
		panic("keystead: libkeystead has another version of its interface than its header")
	}
}

// text is a string as the library takes it, for the time of a call.
func text(value string) (*C.char, C.size_t) {
	// One byte more, so that an empty string has an address, too.
	data := append([]byte(value), 0)
	return (*C.char)(unsafe.Pointer(&data[0])), C.size_t(len(value))
}

// optionalText is the same; an empty string is a missing one.
func optionalText(value string) (*C.char, C.size_t) {
	if value == "" {
		return nil, 0
	}
	return text(value)
}

// bytesOf is a slice as the library takes it, for the time of a call.
func bytesOf(value []byte) (*C.uint8_t, C.size_t) {
	if len(value) == 0 {
		return nil, 0
	}
	return (*C.uint8_t)(unsafe.Pointer(&value[0])), C.size_t(len(value))
}

func goText(value C.keystead_text) string {
	if value.data == nil {
		return ""
	}
	return C.GoStringN(value.data, C.int(value.len))
}

func goTime(milliseconds C.uint64_t) time.Time {
	if milliseconds == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(milliseconds)).UTC()
}

// memory is what options point to, in memory of C, since Go's must not hold pointers into itself there.
type memory struct {
	taken []unsafe.Pointer
}

func (m *memory) take(size int) unsafe.Pointer {
	taken := C.calloc(1, C.size_t(size+1))
	m.taken = append(m.taken, taken)
	return taken
}

func (m *memory) text(value string) (*C.char, C.size_t) {
	taken := m.take(len(value))
	copy(unsafe.Slice((*byte)(taken), len(value)+1), value)
	return (*C.char)(taken), C.size_t(len(value))
}

func (m *memory) optionalText(value string) (*C.char, C.size_t) {
	if value == "" {
		return nil, 0
	}
	return m.text(value)
}

func (m *memory) free() {
	for _, taken := range m.taken {
		C.free(taken)
	}
}
