package keystead

/*
#include <keystead.h>
*/
import "C"

import (
	"io"
	"unsafe"
)

// SecretWriter writes one value of up to 64 MiB in parts. The version is there once Finish returns; closed before, it leaves
// nothing.
//
//	writer, err := acme.NewWriter("backups/keyring", nil)
//	defer writer.Close()
//	_, err = io.Copy(writer, file)
//	version, err := writer.Finish()
type SecretWriter struct {
	handle *handle
}

var _ io.WriteCloser = (*SecretWriter)(nil)

// NewWriter begins to write a value in parts. options may be nil.
func (o *Organization) NewWriter(path string, options *PutOptions) (*SecretWriter, error) {
	var held memory
	defer held.free()
	given := options.given(&held)
	data, length := text(path)
	var out *C.keystead_writer
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_writer_open(p, data, length, given, &out, failure)
	})
	if err != nil {
		return nil, err
	}
	w := &SecretWriter{newHandle("writer", unsafe.Pointer(out), func(p unsafe.Pointer) {
		C.keystead_writer_free((*C.keystead_writer)(p))
	}, o.handle.family)}
	endForgotten(w, w.handle)
	return w, nil
}

// Write writes a part: all of it, or an error, after which the writer can only be closed.
func (w *SecretWriter) Write(part []byte) (int, error) {
	pointer, err := w.handle.begin()
	if err != nil {
		return 0, err
	}
	defer w.handle.release()
	data, length := bytesOf(part)
	var failure *C.keystead_error
	if err := check(C.keystead_writer_write((*C.keystead_writer)(pointer), data, length, &failure), failure); err != nil {
		return 0, err
	}
	return len(part), nil
}

// Finish makes the version, and returns its number when it is durable.
func (w *SecretWriter) Finish() (version uint32, err error) {
	pointer, err := w.handle.begin()
	if err != nil {
		return 0, err
	}
	defer w.handle.end()
	defer w.handle.release()
	var out C.uint32_t
	var failure *C.keystead_error
	err = check(C.keystead_writer_finish((*C.keystead_writer)(pointer), &out, &failure), failure)
	return uint32(out), err
}

// Close ends the writer. What was not finished is as if it had never begun.
func (w *SecretWriter) Close() error {
	w.handle.end()
	return nil
}

// SecretReader reads one value in parts, in bounded memory. Every byte that it answers is authenticated.
type SecretReader struct {
	handle *handle
	info   VersionInfo
}

var _ io.ReadCloser = (*SecretReader)(nil)

// NewReader begins to read a version of a secret, or Latest, in parts.
func (o *Organization) NewReader(path string, version uint32) (*SecretReader, error) {
	data, length := text(path)
	var out *C.keystead_reader
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_reader_open(p, data, length, C.uint32_t(version), &out, failure)
	})
	if err != nil {
		return nil, err
	}
	r := &SecretReader{handle: newHandle("reader", unsafe.Pointer(out), func(p unsafe.Pointer) {
		C.keystead_reader_free((*C.keystead_reader)(p))
	}, o.handle.family)}
	endForgotten(r, r.handle)
	var item C.keystead_version_info
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	var failure *C.keystead_error
	if err := check(C.keystead_reader_info(out, &item, &failure), failure); err != nil {
		r.handle.end()
		return nil, err
	}
	r.info = versionInfo(&item)
	return r, nil
}

// Info is what is known of the version that is being read.
func (r *SecretReader) Info() VersionInfo {
	return r.info
}

// Read reads the next part; io.EOF at the value's end.
func (r *SecretReader) Read(buffer []byte) (int, error) {
	if len(buffer) == 0 {
		return 0, nil
	}
	pointer, err := r.handle.begin()
	if err != nil {
		return 0, err
	}
	defer r.handle.release()
	room, capacity := bytesOf(buffer)
	var out C.size_t
	var failure *C.keystead_error
	code := C.keystead_reader_read((*C.keystead_reader)(pointer), room, capacity, &out, &failure)
	if err := check(code, failure); err != nil {
		return 0, err
	}
	if out == 0 {
		return 0, io.EOF
	}
	return int(out), nil
}

// Close ends the reader.
func (r *SecretReader) Close() error {
	r.handle.end()
	return nil
}
