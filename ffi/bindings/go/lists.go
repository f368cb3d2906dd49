package keystead

/*
#include <keystead.h>
*/
import "C"

import (
	"encoding/json"
	"time"
	"unsafe"
)

// SecretInfo is a secret in a list. Nothing of it was decrypted.
type SecretInfo struct {
	Path string
	// Latest is its latest version.
	Latest uint32
	// Deleted is how many of its versions are deleted, and can be undeleted.
	Deleted uint32
	// Retention is how many versions are kept; 0: all.
	Retention            uint32
	CreatedAt, UpdatedAt time.Time
}

// List is the secrets whose paths begin with prefix, in the order of their bytes, behind after (a path; "": from the first),
// at most limit (1 to 10,000) of them; next is what to pass as after for the next page, "" when this was the last one. It
// opens nothing and asks no KMS.
func (o *Organization) List(prefix, after string, limit int) (page []SecretInfo, next string, err error) {
	prefixData, prefixLen := text(prefix)
	afterData, afterLen := optionalText(after)
	var list *C.keystead_secret_list
	err = o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_list(p, prefixData, prefixLen, afterData, afterLen, limitOf(limit), &list, failure)
	})
	if err != nil {
		return nil, "", err
	}
	defer C.keystead_secret_list_free(list)
	page, err = secretInfos(list)
	return page, C.GoString(C.keystead_secret_list_next(list)), err
}

// Info is what is known of a secret without opening it.
func (o *Organization) Info(path string) (*SecretInfo, error) {
	data, length := text(path)
	var list *C.keystead_secret_list
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_info(p, data, length, &list, failure)
	})
	if err != nil {
		return nil, err
	}
	defer C.keystead_secret_list_free(list)
	infos, err := secretInfos(list)
	if err != nil {
		return nil, err
	}
	return &infos[0], nil
}

func secretInfos(list *C.keystead_secret_list) (infos []SecretInfo, err error) {
	var item C.keystead_secret_info
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	var failure *C.keystead_error
	for index := C.size_t(0); index < C.keystead_secret_list_len(list); index++ {
		if err := check(C.keystead_secret_list_get(list, index, &item, &failure), failure); err != nil {
			return nil, err
		}
		infos = append(infos, SecretInfo{
			Path:      goText(item.path),
			Latest:    uint32(item.latest),
			Deleted:   uint32(item.deleted),
			Retention: uint32(item.retention),
			CreatedAt: goTime(item.created_at_ms),
			UpdatedAt: goTime(item.updated_at_ms),
		})
	}
	return infos, nil
}

// VersionState is whether a version can be read.
type VersionState int32

// The states of a version.
const (
	VersionLive VersionState = C.KEYSTEAD_VERSION_LIVE
	// VersionDeleted: Undelete brings it back.
	VersionDeleted VersionState = C.KEYSTEAD_VERSION_IS_DELETED
	// VersionDestroyed: its data key and its value are gone for good.
	VersionDestroyed VersionState = C.KEYSTEAD_VERSION_IS_DESTROYED
	// VersionLost: it fell to damage of the file, from which the rest was salvaged.
	VersionLost VersionState = C.KEYSTEAD_VERSION_IS_LOST
)

// VersionInfo is a version in a history. Nothing of it was decrypted.
type VersionInfo struct {
	Version uint32
	State   VersionState
	// StateAt is when it was deleted, destroyed or lost; zero when it is live.
	StateAt     time.Time
	CreatedAt   time.Time
	SizeBytes   uint64
	ContentType string
	Labels      map[string]string
}

func versionInfo(item *C.keystead_version_info) VersionInfo {
	return VersionInfo{
		Version:     uint32(item.version),
		State:       VersionState(item.state),
		StateAt:     goTime(item.state_at_ms),
		CreatedAt:   goTime(item.created_at_ms),
		SizeBytes:   uint64(item.size_bytes),
		ContentType: goText(item.content_type),
		Labels:      goLabels(item.labels, item.labels_len),
	}
}

// History is the versions of a secret behind after (0: from the first), oldest first, at most limit (1 to 10,000) of them. It
// opens nothing and asks no KMS.
func (o *Organization) History(path string, after uint32, limit int) (versions []VersionInfo, err error) {
	data, length := text(path)
	var list *C.keystead_version_list
	err = o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_history(p, data, length, C.uint32_t(after), limitOf(limit), &list, failure)
	})
	if err != nil {
		return nil, err
	}
	defer C.keystead_version_list_free(list)
	var item C.keystead_version_info
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	var failure *C.keystead_error
	for index := C.size_t(0); index < C.keystead_version_list_len(list); index++ {
		if err := check(C.keystead_version_list_get(list, index, &item, &failure), failure); err != nil {
			return nil, err
		}
		versions = append(versions, versionInfo(&item))
	}
	return versions, nil
}

// AuditRecord is one record of the audit trail.
type AuditRecord struct {
	Sequence uint64
	At       time.Time
	// Event is what happened: "VersionPut", "KeyAdded", "EpochOpened", …
	Event string
	// Details of the event, as JSON.
	Details json.RawMessage
	// Actor and Reason are "" if they were not said.
	Actor, Reason string
	// Hash chains it to the record before, in hexadecimal digits.
	Hash string
}

// Audit is the audit records behind number after (0: from the first), oldest first, at most limit (1 to 10,000) of them; each
// is checked to chain to the one before it. It asks no KMS.
func (o *Organization) Audit(after uint64, limit int) (records []AuditRecord, err error) {
	var list *C.keystead_audit_list
	err = o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_audit_list_read(p, C.uint64_t(after), limitOf(limit), &list, failure)
	})
	if err != nil {
		return nil, err
	}
	defer C.keystead_audit_list_free(list)
	var item C.keystead_audit_record
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	var failure *C.keystead_error
	for index := C.size_t(0); index < C.keystead_audit_list_len(list); index++ {
		if err := check(C.keystead_audit_list_get(list, index, &item, &failure), failure); err != nil {
			return nil, err
		}
		records = append(records, AuditRecord{
			Sequence: uint64(item.sequence),
			At:       goTime(item.at_ms),
			Event:    goText(item.event),
			Details:  json.RawMessage(goText(item.details_json)),
			Actor:    goText(item.actor),
			Reason:   goText(item.reason),
			Hash:     goText(item.hash),
		})
	}
	return records, nil
}

// AuditHead is the newest audit record's place in its chain: noted elsewhere, it shows later that nothing before was changed.
type AuditHead struct {
	Sequence uint64
	Hash     string
}

// AuditHead is number and hash of the newest audit record.
func (o *Organization) AuditHead() (AuditHead, error) {
	var head C.keystead_audit_head
	head.struct_size = C.uint32_t(unsafe.Sizeof(head))
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_audit_head_read(p, &head, failure)
	})
	return AuditHead{uint64(head.sequence), C.GoString(&head.hash[0])}, err
}
