package keystead

/*
#include <stdint.h>
#include <keystead.h>

extern int32_t keysteadGoIdentityToken(void *, keystead_identity_request *, uint8_t *, size_t, size_t *);
extern void keysteadGoVerifyProgress(void *, uint64_t);

static void keystead_go_mint(keystead_store_options *options, uintptr_t context) {
	options->identity_token = (keystead_identity_token)keysteadGoIdentityToken;
	options->identity_context = (void *)context;
}

static int32_t keystead_go_verify(const keystead_store *store, uint32_t flags, uintptr_t context,
                                  keystead_verify_report **out, keystead_error **error) {
	return keystead_verify(store, flags, context ? keysteadGoVerifyProgress : NULL, (void *)context, out, error);
}
*/
import "C"

import (
	"runtime/cgo"
	"time"
	"unsafe"
)

// Store is an open store. One process at a time has a store open. In the child of a fork, which Go programs do not do
// without exec, each call fails with CodeForked.
type Store struct {
	handle *handle
	family *family
	path   string
}

// StoreOptions is how a store is created or opened. What is zero has its default.
type StoreOptions struct {
	// Backends under their names. One named "managed" wraps the key that every organization is born with.
	Backends []*Backend
	// CacheBytes is memory for pages of the file. 0: 64 MiB.
	CacheBytes uint64
	// KeyLifetime is how long an epoch's key stays in memory: the bound of revocation, and the grace in an outage.
	// 0: 5 minutes.
	KeyLifetime time.Duration
	// KMSTimeout is the deadline of one KMS call. 0: 10 seconds.
	KMSTimeout time.Duration
	// KMSAttemptsMax is how often a KMS is tried while it is out of reach, the first time included. 0: 3.
	KMSAttemptsMax uint32
	// EpochKeysMax is how many epoch keys stay in memory. 0: 10,000.
	EpochKeysMax uint64
	// WithoutBackgroundRewrap: re-wrap jobs go on in RewrapJob.RunHere alone.
	WithoutBackgroundRewrap bool
	// RewrapBatch is how many data keys one batch of a re-wrap moves. 0: 2,048.
	RewrapBatch uint32
	// WrapsPerEpochMax is how many data keys an epoch wraps before its key must be rotated. 0: 2^30.
	WrapsPerEpochMax uint64
	// IdentityToken mints tokens for backends that log in with them. It lives as long as the process. An error, or a panic, is
	// an outage: what is cached serves on. One that wraps a code of a KMS is that, and CodeKMSAccessDenied or the like takes the
	// key away. No more of it is told.
	IdentityToken func(IdentityRequest) (string, error)
	// Checkpoint is what Store.Checkpoint said: Open refuses a store that has not come as far, with ClassIntegrity. "": nothing is
	// asked of it. Of no use to Create.
	Checkpoint string
}

// IdentityRequest is for whom a token is asked.
type IdentityRequest struct {
	// Audience is what the key's config names.
	Audience     string
	Organization string
	Key          string
}

// Create creates a store; the file appears when it is whole and synced, mode 0600. options may be nil.
func Create(path string, options *StoreOptions) (*Store, error) {
	return begin(path, options, func(data *C.char, length C.size_t, given *C.keystead_store_options,
		out **C.keystead_store, failure **C.keystead_error) C.int32_t {
		return C.keystead_store_create(data, length, given, out, failure)
	})
}

// Open opens a store, and lets its re-wrap jobs go on. It asks no KMS. options may be nil.
func Open(path string, options *StoreOptions) (*Store, error) {
	return begin(path, options, func(data *C.char, length C.size_t, given *C.keystead_store_options,
		out **C.keystead_store, failure **C.keystead_error) C.int32_t {
		return C.keystead_store_open(data, length, given, out, failure)
	})
}

type beginning func(*C.char, C.size_t, *C.keystead_store_options, **C.keystead_store, **C.keystead_error) C.int32_t

func begin(path string, options *StoreOptions, function beginning) (*Store, error) {
	data, length := text(path)
	var out *C.keystead_store
	err := withOptions(options, func(given *C.keystead_store_options) error {
		var failure *C.keystead_error
		return check(function(data, length, given, &out, &failure), failure)
	})
	if err != nil {
		return nil, err
	}
	store := &Store{family: new(family), path: path}
	store.handle = newHandle("store", unsafe.Pointer(out), func(p unsafe.Pointer) {
		C.keystead_store_free((*C.keystead_store)(p))
	}, nil)
	// Organizations keep the store open: only the handle goes with what is forgotten.
	endForgotten(store, store.handle)
	return store, nil
}

// withOptions makes the options of the library, and holds what they point to while they are used. options may be nil.
func withOptions(options *StoreOptions, use func(*C.keystead_store_options) error) error {
	var held memory
	defer held.free()
	var given C.keystead_store_options
	given.struct_size = C.uint32_t(unsafe.Sizeof(given))
	if options != nil {
		size := int(unsafe.Sizeof(uintptr(0)))
		list := held.take(size * len(options.Backends))
		for index, backend := range options.Backends {
			pointer, err := backend.handle.begin()
			if err != nil {
				return err
			}
			defer backend.handle.release()
			*(*unsafe.Pointer)(unsafe.Add(list, size*index)) = pointer
		}
		given.backends, given.backends_len = (**C.keystead_backend)(list), C.size_t(len(options.Backends))
		given.cache_bytes = C.uint64_t(options.CacheBytes)
		given.key_lifetime_ms = milliseconds(options.KeyLifetime)
		given.kms_timeout_ms = milliseconds(options.KMSTimeout)
		given.kms_attempts_max = C.uint32_t(options.KMSAttemptsMax)
		given.epoch_keys_max = C.uint64_t(options.EpochKeysMax)
		given.rewrap_batch = C.uint32_t(options.RewrapBatch)
		given.wraps_per_epoch_max = C.uint64_t(options.WrapsPerEpochMax)
		given.checkpoint_json, given.checkpoint_json_len = held.optionalText(options.Checkpoint)
		if options.WithoutBackgroundRewrap {
			given.without_background_rewrap = 1
		}
		if options.IdentityToken != nil {
			C.keystead_go_mint(&given, C.uintptr_t(cgo.NewHandle(options.IdentityToken)))
		}
	}
	return use(&given)
}

// milliseconds rounds up, so that a duration that is short does not become the default.
func milliseconds(d time.Duration) C.uint64_t {
	if d <= 0 {
		return 0
	}
	return C.uint64_t((d + time.Millisecond - 1) / time.Millisecond)
}

// Path is where the store is.
func (s *Store) Path() string {
	return s.path
}

// Close stops the background work, brings the file into its resting state and releases it. Every handle on the store fails
// with CodeClosed from then on. Doing it twice does nothing.
func (s *Store) Close() error {
	pointer, err := s.handle.begin()
	if err != nil {
		return nil
	}
	var failure *C.keystead_error
	err = check(C.keystead_store_close((*C.keystead_store)(pointer), &failure), failure)
	s.handle.release()
	s.family.end()
	s.handle.end()
	return err
}

// ID is its random id.
func (s *Store) ID() (id [16]byte, err error) {
	pointer, err := s.handle.begin()
	if err != nil {
		return id, err
	}
	defer s.handle.release()
	var failure *C.keystead_error
	err = check(C.keystead_store_id((*C.keystead_store)(pointer), (*C.uint8_t)(&id[0]), &failure), failure)
	return id, err
}

// CreateOrganization creates an organization, with its first epoch under the key "managed". One KMS call.
func (s *Store) CreateOrganization(name string) (*Organization, error) {
	pointer, err := s.handle.begin()
	if err != nil {
		return nil, err
	}
	defer s.handle.release()
	data, length := text(name)
	var out *C.keystead_organization
	var failure *C.keystead_error
	code := C.keystead_organization_create((*C.keystead_store)(pointer), data, length, &out, &failure)
	if err := check(code, failure); err != nil {
		return nil, err
	}
	return newOrganization(out, s.family), nil
}

// Organization is the organization of this name; ClassNotFound when there is none.
func (s *Store) Organization(name string) (*Organization, error) {
	pointer, err := s.handle.begin()
	if err != nil {
		return nil, err
	}
	defer s.handle.release()
	data, length := text(name)
	var out *C.keystead_organization
	var failure *C.keystead_error
	code := C.keystead_organization_open((*C.keystead_store)(pointer), data, length, &out, &failure)
	if err := check(code, failure); err != nil {
		return nil, err
	}
	return newOrganization(out, s.family), nil
}

// OrganizationInfo is an organization in a list.
type OrganizationInfo struct {
	ID        uint32
	Name      string
	CreatedAt time.Time
	Secrets   uint64
}

// Organizations are those behind after (a name; "": from the first), by name, at most limit (1 to 10,000) of them; next is
// what to pass as after for the next page, "" when this was the last one. It asks no KMS.
func (s *Store) Organizations(after string, limit int) (page []OrganizationInfo, next string, err error) {
	pointer, err := s.handle.begin()
	if err != nil {
		return nil, "", err
	}
	defer s.handle.release()
	data, length := optionalText(after)
	var list *C.keystead_organization_list
	var failure *C.keystead_error
	code := C.keystead_organization_list_read((*C.keystead_store)(pointer), data, length, limitOf(limit), &list, &failure)
	if err := check(code, failure); err != nil {
		return nil, "", err
	}
	defer C.keystead_organization_list_free(list)
	var item C.keystead_organization_info
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	for index := C.size_t(0); index < C.keystead_organization_list_len(list); index++ {
		if err := check(C.keystead_organization_list_get(list, index, &item, &failure), failure); err != nil {
			return nil, "", err
		}
		page = append(page, OrganizationInfo{
			ID:        uint32(item.id),
			Name:      goText(item.name),
			CreatedAt: goTime(item.created_at_ms),
			Secrets:   uint64(item.secrets),
		})
	}
	return page, C.GoString(C.keystead_organization_list_next(list)), nil
}

func limitOf(limit int) C.size_t {
	if limit < 0 {
		return 0
	}
	return C.size_t(limit)
}

// CachedEpochKeys is how many epoch keys are in memory now.
func (s *Store) CachedEpochKeys() (int, error) {
	pointer, err := s.handle.begin()
	if err != nil {
		return 0, err
	}
	defer s.handle.release()
	var out C.size_t
	var failure *C.keystead_error
	err = check(C.keystead_store_cached_epoch_keys((*C.keystead_store)(pointer), &out, &failure), failure)
	return int(out), err
}

// ForgetEpochKeys drops every epoch key from memory: the next use of each asks its KMS.
func (s *Store) ForgetEpochKeys() error {
	pointer, err := s.handle.begin()
	if err != nil {
		return err
	}
	defer s.handle.release()
	var failure *C.keystead_error
	return check(C.keystead_store_forget_epoch_keys((*C.keystead_store)(pointer), &failure), failure)
}

// Checkpoint is how far every organization of the store has come, as JSON. Kept where whoever can write the store cannot write,
// and given to Open, it has a store that was rolled back refused.
func (s *Store) Checkpoint() (string, error) {
	pointer, err := s.handle.begin()
	if err != nil {
		return "", err
	}
	defer s.handle.release()
	var out *C.keystead_checkpoint
	var failure *C.keystead_error
	if err := check(C.keystead_checkpoint_take((*C.keystead_store)(pointer), &out, &failure), failure); err != nil {
		return "", err
	}
	defer C.keystead_checkpoint_free(out)
	return C.GoString(C.keystead_checkpoint_json(out)), nil
}

// VerifyOptions is what is verified.
type VerifyOptions struct {
	// OpenValues opens every data key and every value, too: it asks the KMS of every live epoch.
	OpenValues bool
	// Progress is told how many versions were looked at so far. May be nil.
	Progress func(lookedAt uint64)
}

// VerifyReport is what a verification found: how much it looked at, and what is wrong. Without problems, all is well.
type VerifyReport struct {
	Organizations, Secrets, Versions, ValuesOpened, Epochs, AuditRecords uint64
	// Problems are what is wrong.
	Problems []Problem
	// Unopened says why some values were not opened: a KMS that did not answer, a key that was taken away.
	Unopened []Problem
	// Blocks of 4 KiB were read from the disk and compared with their tags. StaleBlocks of them do not match, and nothing refers to
	// them: a crash in the middle of a commit leaves such ones.
	Blocks, StaleBlocks uint64
	// Chunks of large values, and Wraps of epoch keys that were opened under the shred keys in their cells.
	Chunks, Wraps uint64
	// Complete is false when something was so damaged that not all could be looked at: what it was is among the problems.
	Complete bool
}

// Problem is one thing that is wrong, or that could not be opened. What does not apply is zero.
type Problem struct {
	Organization, Path string
	Version            uint32
	What               string
}

// Verify checks the whole store: every page, row, chain and count. What is damaged is in the report, not an error.
func (s *Store) Verify(options VerifyOptions) (*VerifyReport, error) {
	pointer, err := s.handle.begin()
	if err != nil {
		return nil, err
	}
	defer s.handle.release()
	var flags C.uint32_t
	if options.OpenValues {
		flags |= C.KEYSTEAD_VERIFY_OPEN_VALUES
	}
	var context C.uintptr_t
	if options.Progress != nil {
		progress := cgo.NewHandle(options.Progress)
		defer progress.Delete()
		context = C.uintptr_t(progress)
	}
	var report *C.keystead_verify_report
	var failure *C.keystead_error
	code := C.keystead_go_verify((*C.keystead_store)(pointer), flags, context, &report, &failure)
	if err := check(code, failure); err != nil {
		return nil, err
	}
	defer C.keystead_verify_report_free(report)

	var counts C.keystead_verify_counts
	counts.struct_size = C.uint32_t(unsafe.Sizeof(counts))
	if err := check(C.keystead_verify_report_counts(report, &counts, &failure), failure); err != nil {
		return nil, err
	}
	found := &VerifyReport{
		Organizations: uint64(counts.organizations),
		Secrets:       uint64(counts.secrets),
		Versions:      uint64(counts.versions),
		ValuesOpened:  uint64(counts.values_opened),
		Epochs:        uint64(counts.epochs),
		AuditRecords:  uint64(counts.audit_records),
		Blocks:        uint64(counts.blocks),
		StaleBlocks:   uint64(counts.stale_blocks),
		Chunks:        uint64(counts.chunks),
		Wraps:         uint64(counts.wraps),
		Complete:      counts.complete != 0,
	}
	var item C.keystead_problem
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	problem := func() Problem {
		return Problem{goText(item.organization), goText(item.path), uint32(item.version), goText(item.what)}
	}
	for index := C.size_t(0); index < C.size_t(counts.problems); index++ {
		if err := check(C.keystead_verify_report_problem(report, index, &item, &failure), failure); err != nil {
			return nil, err
		}
		found.Problems = append(found.Problems, problem())
	}
	for index := C.size_t(0); index < C.size_t(counts.unopened); index++ {
		if err := check(C.keystead_verify_report_unopened(report, index, &item, &failure), failure); err != nil {
			return nil, err
		}
		found.Unopened = append(found.Unopened, problem())
	}
	return found, nil
}
