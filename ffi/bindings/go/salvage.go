package keystead

/*
#include <stdint.h>
#include <keystead.h>

extern void keysteadGoSalvageProgress(void *, keystead_salvage_step *);

static int32_t keystead_go_salvage(const char *damaged, size_t damaged_len, const char *renewed, size_t renewed_len,
                                   const keystead_store_options *options, const keystead_salvage_options *how,
                                   uintptr_t context, keystead_salvage_report **out, keystead_error **error) {
	return keystead_salvage(damaged, damaged_len, renewed, renewed_len, options, how,
	                        context ? (keystead_salvage_progress)keysteadGoSalvageProgress : NULL, (void *)context, out, error);
}
*/
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// SalvageOptions is what is salvaged, and how.
type SalvageOptions struct {
	// Store is how the store is opened, without a checkpoint. A backend that does not answer is in the report, not an error.
	Store StoreOptions
	// WithoutOpening: a value is taken for right when its tags are, and no KMS is asked.
	WithoutOpening bool
	// KeepUndecided keeps values of which nothing left says whether they were destroyed.
	KeepUndecided bool
	// StoreID is what Store.ID said, for a file of which neither copy of the header is whole. May be nil.
	StoreID *[16]byte
	// Progress is told how far it is. May be nil.
	Progress func(SalvageStep)
}

// SalvageStep is how far a salvage is.
type SalvageStep struct {
	// Phase is what it is doing, for people.
	Phase string
	// Done is how much of it is done, of Total; 0 where that is not known.
	Done, Total uint64
}

// SalvageReport is what came of a salvage: what stands in the new store, and what was lost.
type SalvageReport struct {
	StoreID                [16]byte
	Organizations, Secrets uint64
	// Versions are those whose values are in the new store. Opened of them were opened; Tagged ones carry all their tags; whether
	// Unproven ones are right shows when they are read.
	Versions, Opened, Tagged, Unproven uint64
	// Destroyed versions were so before: their numbers stay.
	Destroyed uint64
	// AuditKept records stand in their chain; AuditCarried ones, behind a missing one, in the new one.
	AuditKept, AuditCarried uint64
	JournalRecordsLost      uint64
	// Lost is empty when nothing was lost.
	Lost []Loss
	// Unopened says why values were not opened: an epoch whose KMS did not answer.
	Unopened []Loss
}

// Loss is one thing that was lost, or that was not opened. What does not apply is zero.
type Loss struct {
	Kind           LossKind
	Organization   string
	OrganizationID uint32
	Path           string
	SecretID       uint64
	Version        uint32
	// What it was, and why it is lost.
	What string
}

// LossKind is what kind of thing was lost.
type LossKind int32

// The kinds.
const (
	// LostVersion: a value.
	LostVersion LossKind = C.KEYSTEAD_LOST_VERSION
	// LostUndecided: a value that may have been destroyed before; nothing that is left says.
	LostUndecided LossKind = C.KEYSTEAD_LOST_UNDECIDED
	// LostKey: a registered key; its config is gone.
	LostKey LossKind = C.KEYSTEAD_LOST_KEY
	// LostEpoch: its key cannot be had any more, or its record is gone.
	LostEpoch LossKind = C.KEYSTEAD_LOST_EPOCH
	// LostAuditRecords: audit records.
	LostAuditRecords LossKind = C.KEYSTEAD_LOST_AUDIT_RECORDS
	// LostOrganization: an organization with all that it had; its name is gone.
	LostOrganization LossKind = C.KEYSTEAD_LOST_ORGANIZATION
	// LostJournal: records of the journal, the newest commits.
	LostJournal LossKind = C.KEYSTEAD_LOST_JOURNAL
)

// Salvage copies whatever is provably right in a damaged store into a new one, and says what is lost, each version by name. The
// damaged file is only read; the new one appears when it is whole, with the same id, organizations, histories and keys. Take a new
// checkpoint, and destroy the damaged file when it is no longer needed: both hold the keys to their wraps.
//
// A file that comes from elsewhere, and may have been made to do harm, is for the command keystead salvage.
func Salvage(damaged, renewed string, options SalvageOptions) (*SalvageReport, error) {
	var held memory
	defer held.free()
	var how C.keystead_salvage_options
	how.struct_size = C.uint32_t(unsafe.Sizeof(how))
	if options.WithoutOpening {
		how.without_opening = 1
	}
	if options.KeepUndecided {
		how.keep_undecided = 1
	}
	if options.StoreID != nil {
		id := held.take(len(options.StoreID))
		copy(unsafe.Slice((*byte)(id), len(options.StoreID)), options.StoreID[:])
		how.store_id = (*C.uint8_t)(id)
	}
	var context C.uintptr_t
	if options.Progress != nil {
		progress := cgo.NewHandle(options.Progress)
		defer progress.Delete()
		context = C.uintptr_t(progress)
	}
	damagedData, damagedLen := text(damaged)
	renewedData, renewedLen := text(renewed)
	var report *C.keystead_salvage_report
	var failure *C.keystead_error
	err := withOptions(&options.Store, func(given *C.keystead_store_options) error {
		return check(C.keystead_go_salvage(damagedData, damagedLen, renewedData, renewedLen, given, &how, context, &report,
			&failure), failure)
	})
	if err != nil {
		return nil, err
	}
	defer C.keystead_salvage_report_free(report)

	var counts C.keystead_salvage_counts
	counts.struct_size = C.uint32_t(unsafe.Sizeof(counts))
	if err := check(C.keystead_salvage_report_counts(report, &counts, &failure), failure); err != nil {
		return nil, err
	}
	found := &SalvageReport{
		Organizations:      uint64(counts.organizations),
		Secrets:            uint64(counts.secrets),
		Versions:           uint64(counts.versions),
		Opened:             uint64(counts.opened),
		Tagged:             uint64(counts.tagged),
		Unproven:           uint64(counts.unproven),
		Destroyed:          uint64(counts.destroyed),
		AuditKept:          uint64(counts.audit_kept),
		AuditCarried:       uint64(counts.audit_carried),
		JournalRecordsLost: uint64(counts.journal_records_lost),
	}
	for index := range found.StoreID {
		found.StoreID[index] = byte(counts.store_id[index])
	}
	var item C.keystead_loss
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	loss := func() Loss {
		return Loss{
			Kind:           LossKind(item.kind),
			Organization:   goText(item.organization),
			OrganizationID: uint32(item.organization_id),
			Path:           goText(item.path),
			SecretID:       uint64(item.secret_id),
			Version:        uint32(item.version),
			What:           goText(item.what),
		}
	}
	for index := C.size_t(0); index < C.size_t(counts.lost); index++ {
		if err := check(C.keystead_salvage_report_lost(report, index, &item, &failure), failure); err != nil {
			return nil, err
		}
		found.Lost = append(found.Lost, loss())
	}
	for index := C.size_t(0); index < C.size_t(counts.unopened); index++ {
		if err := check(C.keystead_salvage_report_unopened(report, index, &item, &failure), failure); err != nil {
			return nil, err
		}
		found.Unopened = append(found.Unopened, loss())
	}
	return found, nil
}
