package keystead

/*
#include <keystead.h>
*/
import "C"

import (
	"fmt"
	"io"
	"runtime"
	"time"
	"unsafe"
)

// Organization is one organization of a store. Every change is durable when its call returns; reads never wait for writers.
type Organization struct {
	handle *handle
	name   string
	id     uint32
}

func newOrganization(pointer *C.keystead_organization, f *family) *Organization {
	o := &Organization{
		name: C.GoString(C.keystead_organization_name(pointer)),
		id:   uint32(C.keystead_organization_id(pointer)),
	}
	o.handle = newHandle("organization", unsafe.Pointer(pointer), func(p unsafe.Pointer) {
		C.keystead_organization_free((*C.keystead_organization)(p))
	}, f)
	endForgotten(o, o.handle)
	return o
}

// with makes one call that can fail.
func (o *Organization) with(call func(o *C.keystead_organization, failure **C.keystead_error) C.int32_t) error {
	pointer, err := o.handle.begin()
	if err != nil {
		return err
	}
	defer o.handle.release()
	var failure *C.keystead_error
	return check(call((*C.keystead_organization)(pointer), &failure), failure)
}

// Name is its name.
func (o *Organization) Name() string {
	return o.name
}

// ID is its number: given once, never given again.
func (o *Organization) ID() uint32 {
	return o.id
}

// Close frees the handle. The store stays open.
func (o *Organization) Close() error {
	o.handle.end()
	return nil
}

// ActingAs is the same organization, acting for somebody and for a reason: its audit records say so. "" is not said.
func (o *Organization) ActingAs(actor, reason string) (*Organization, error) {
	actorData, actorLen := optionalText(actor)
	reasonData, reasonLen := optionalText(reason)
	var out *C.keystead_organization
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_organization_acting_as(p, actorData, actorLen, reasonData, reasonLen, &out, failure)
	})
	if err != nil {
		return nil, err
	}
	return newOrganization(out, o.handle.family), nil
}

// Expect is what the latest version must be for a put to go through. The zero value is any.
type Expect struct {
	kind    C.int32_t
	version uint32
}

// ExpectNew: the secret must be new.
func ExpectNew() Expect {
	return Expect{kind: C.KEYSTEAD_EXPECT_NEW}
}

// ExpectVersion: the latest version must be this one.
func ExpectVersion(version uint32) Expect {
	return Expect{C.KEYSTEAD_EXPECT_VERSION, version}
}

// PutOptions is what goes with a value.
type PutOptions struct {
	// Expect is what the latest version must be; otherwise CodeVersionMismatch.
	Expect Expect
	// Labels stand beside the value, in clear; at most 64.
	Labels map[string]string
	// ContentType is what kind of content it is, such as "text/plain". Kept in clear.
	ContentType string
}

// given is the options as the library takes them. held is freed after the call.
func (options *PutOptions) given(held *memory) *C.keystead_put_options {
	if options == nil {
		return nil
	}
	given := new(C.keystead_put_options)
	given.struct_size = C.uint32_t(unsafe.Sizeof(*given))
	given.expect, given.expect_version = options.Expect.kind, C.uint32_t(options.Expect.version)
	given.content_type, given.content_type_len = held.optionalText(options.ContentType)
	if len(options.Labels) > 0 {
		size := int(unsafe.Sizeof(C.keystead_label{}))
		labels := held.take(size * len(options.Labels))
		given.labels, given.labels_len = (*C.keystead_label)(labels), C.size_t(len(options.Labels))
		index := 0
		for name, value := range options.Labels {
			label := (*C.keystead_label)(unsafe.Add(labels, size*index))
			label.name.data, label.name.len = held.text(name)
			label.value.data, label.value.len = held.text(value)
			index++
		}
	}
	return given
}

// Put writes a new version of a secret, of 0 bytes to 64 MiB, and returns its number when it is durable. options may be nil.
func (o *Organization) Put(path string, value []byte, options *PutOptions) (version uint32, err error) {
	var held memory
	defer held.free()
	given := options.given(&held)
	data, length := text(path)
	valueData, valueLen := bytesOf(value)
	var out C.uint32_t
	err = o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_put(p, data, length, valueData, valueLen, given, &out, failure)
	})
	return uint32(out), err
}

// Put is one put of a batch.
type Put struct {
	Path    string
	Value   []byte
	Options *PutOptions
}

// PutAll writes several values in one commit, or none of them, and returns their versions, in order. At most 10,000 puts with
// 16 MiB of values together. A path may come more than once.
func (o *Organization) PutAll(puts []Put) ([]uint32, error) {
	var batch *C.keystead_batch
	var failure *C.keystead_error
	if err := check(C.keystead_batch_new(&batch, &failure), failure); err != nil {
		return nil, err
	}
	defer C.keystead_batch_free(batch)
	for _, put := range puts {
		if err := addPut(batch, put); err != nil {
			return nil, err
		}
	}
	versions := make([]C.uint32_t, len(puts)+1)
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_batch_commit(p, batch, &versions[0], C.size_t(len(puts)), failure)
	})
	if err != nil {
		return nil, err
	}
	written := make([]uint32, len(puts))
	for index := range written {
		written[index] = uint32(versions[index])
	}
	return written, nil
}

func addPut(batch *C.keystead_batch, put Put) error {
	var held memory
	defer held.free()
	given := put.Options.given(&held)
	data, length := text(put.Path)
	valueData, valueLen := bytesOf(put.Value)
	var failure *C.keystead_error
	return check(C.keystead_batch_put(batch, data, length, valueData, valueLen, given, &failure), failure)
}

// Secret is a value that was read. Formatted by fmt, or made text or JSON, as a log does with what it is given, it tells its version
// and its length alone.
type Secret struct {
	Value   []byte
	Version uint32
	Labels  map[string]string
	// ContentType is what kind of content it is; "" if its writer did not say.
	ContentType string
	CreatedAt   time.Time
}

// Erase overwrites the value.
func (s *Secret) Erase() {
	for index := range s.Value {
		s.Value[index] = 0
	}
	runtime.KeepAlive(s.Value)
}

// String is "keystead.Secret version 3, 13 bytes".
func (s Secret) String() string {
	return fmt.Sprintf("keystead.Secret version %d, %d bytes", s.Version, len(s.Value))
}

// Format writes what String is, whatever the verb.
func (s Secret) Format(state fmt.State, _ rune) {
	_, _ = io.WriteString(state, s.String())
}

// MarshalText is String, for JSON, XML and logs.
func (s Secret) MarshalText() ([]byte, error) {
	return []byte(s.String()), nil
}

// Get reads a version of a secret, or Latest. It asks a KMS only when the epoch's key is not in memory.
func (o *Organization) Get(path string, version uint32) (*Secret, error) {
	data, length := text(path)
	var found *C.keystead_secret
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_get(p, data, length, C.uint32_t(version), &found, failure)
	})
	if err != nil {
		return nil, err
	}
	defer C.keystead_secret_free(found)
	var view C.keystead_secret_view
	view.struct_size = C.uint32_t(unsafe.Sizeof(view))
	var failure *C.keystead_error
	if err := check(C.keystead_secret_look(found, &view, &failure), failure); err != nil {
		return nil, err
	}
	value := make([]byte, int(view.len))
	copy(value, unsafe.Slice((*byte)(view.data), int(view.len)))
	return &Secret{
		Value:       value,
		Version:     uint32(view.version),
		Labels:      goLabels(view.labels, view.labels_len),
		ContentType: goText(view.content_type),
		CreatedAt:   goTime(view.created_at_ms),
	}, nil
}

// GetInto reads a version of a secret, or Latest, into the caller's buffer, and returns its length. With
// CodeBufferTooSmall that is the room that is needed, and the buffer is as it was.
func (o *Organization) GetInto(path string, version uint32, buffer []byte) (int, error) {
	data, length := text(path)
	room, capacity := bytesOf(buffer)
	var out C.size_t
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_get_into(p, data, length, C.uint32_t(version), room, capacity, &out, failure)
	})
	return int(out), err
}

func goLabels(data *C.keystead_label, length C.size_t) map[string]string {
	labels := make(map[string]string, int(length))
	for _, label := range unsafe.Slice(data, int(length)) {
		labels[goText(label.name)] = goText(label.value)
	}
	return labels
}

// Delete deletes a version: it is kept, but not read, until it is undeleted. Doing it twice changes nothing.
func (o *Organization) Delete(path string, version uint32) error {
	data, length := text(path)
	return o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_delete(p, data, length, C.uint32_t(version), failure)
	})
}

// Undelete brings a deleted version back.
func (o *Organization) Undelete(path string, version uint32) error {
	data, length := text(path)
	return o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_undelete(p, data, length, C.uint32_t(version), failure)
	})
}

// Destroy destroys a version: its data key and its value are gone for good.
func (o *Organization) Destroy(path string, version uint32) error {
	data, length := text(path)
	return o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_destroy(p, data, length, C.uint32_t(version), failure)
	})
}

// SetRetention sets how many versions of a secret are kept: every further put destroys the oldest ones beyond that. 0, the
// default, keeps all.
func (o *Organization) SetRetention(path string, keep uint32) error {
	data, length := text(path)
	return o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_set_retention(p, data, length, C.uint32_t(keep), failure)
	})
}
