package keystead

/*
#include <stdint.h>
#include <keystead.h>
*/
import "C"

import (
	"errors"
	"runtime/cgo"
	"unsafe"
)

// The functions that the library calls. No panic leaves one: what is above it is not Go.

//export keysteadGoVerifyProgress
func keysteadGoVerifyProgress(context unsafe.Pointer, lookedAt C.uint64_t) {
	defer func() { _ = recover() }()
	cgo.Handle(uintptr(context)).Value().(func(uint64))(uint64(lookedAt))
}

//export keysteadGoIdentityToken
func keysteadGoIdentityToken(context unsafe.Pointer, request *C.keystead_identity_request, token *C.uint8_t,
	capacity C.size_t, tokenLen *C.size_t) (code C.int32_t) {
	// What a panic or an error says may hold anything, so it is not told.
	code = C.KEYSTEAD_BACKEND_UNAVAILABLE
	defer func() { _ = recover() }()
	mint := cgo.Handle(uintptr(context)).Value().(func(IdentityRequest) (string, error))
	minted, err := mint(IdentityRequest{goText(request.audience), goText(request.organization), goText(request.key)})
	var refused Code
	switch {
	case errors.As(err, &refused) && refused > C.KEYSTEAD_KMS:
		return C.int32_t(refused) - C.KEYSTEAD_KMS
	case err != nil:
		return code
	case C.size_t(len(minted)) > capacity:
		return C.KEYSTEAD_BACKEND_BUFFER_TOO_SMALL
	}
	copy(unsafe.Slice((*byte)(token), int(capacity)), minted)
	*tokenLen = C.size_t(len(minted))
	return C.KEYSTEAD_BACKEND_OK
}
