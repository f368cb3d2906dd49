package keystead

/*
#include <stdint.h>
#include <keystead.h>
*/
import "C"

import (
	"encoding/json"
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

//export keysteadGoSalvageProgress
func keysteadGoSalvageProgress(context unsafe.Pointer, step *C.keystead_salvage_step) {
	defer func() { _ = recover() }()
	progress := cgo.Handle(uintptr(context)).Value().(func(SalvageStep))
	progress(SalvageStep{goText(step.phase), uint64(step.done), uint64(step.total)})
}

//export keysteadGoLog
func keysteadGoLog(context unsafe.Pointer, record *C.keystead_log_record) {
	defer func() { _ = recover() }()
	listener := cgo.Handle(uintptr(context)).Value().(func(LogRecord))
	told := LogRecord{Level: LogLevel(record.level), Target: goText(record.target), Message: goText(record.message)}
	_ = json.Unmarshal([]byte(goText(record.fields_json)), &told.Fields)
	listener(told)
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
