package keystead

/*
#include <keystead.h>
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"time"
	"unsafe"
)

// KeyState is whether new epochs may be opened under a key.
type KeyState int32

// The states of a key.
const (
	KeyEnabled KeyState = C.KEYSTEAD_KEY_ENABLED
	// KeyDisabling: its data keys are being re-wrapped to another key.
	KeyDisabling KeyState = C.KEYSTEAD_KEY_DISABLING
	// KeyDisabled: no data key is under it, and none will be.
	KeyDisabled KeyState = C.KEYSTEAD_KEY_DISABLED
	// KeySecond: the second key; it wraps every live epoch as well, and opens them while the other KMS is out of reach.
	KeySecond KeyState = C.KEYSTEAD_KEY_SECOND
	// KeySecondEither: the same, where revoking one of the two is not enough.
	KeySecondEither KeyState = C.KEYSTEAD_KEY_SECOND_EITHER
)

// KeyInfo is a registered key.
type KeyInfo struct {
	Name, Backend string
	// Config is the backend's config of this key, as JSON.
	Config json.RawMessage
	State  KeyState
	// IsDefault is true for the key under which the active epoch was opened.
	IsDefault bool
	CreatedAt time.Time
}

// Keys is every registered key, by name. It asks no KMS.
func (o *Organization) Keys() (keys []KeyInfo, err error) {
	var list *C.keystead_key_list
	err = o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_key_list_read(p, &list, failure)
	})
	if err != nil {
		return nil, err
	}
	defer C.keystead_key_list_free(list)
	var item C.keystead_key_info
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	var failure *C.keystead_error
	for index := C.size_t(0); index < C.keystead_key_list_len(list); index++ {
		if err := check(C.keystead_key_list_get(list, index, &item, &failure), failure); err != nil {
			return nil, err
		}
		keys = append(keys, KeyInfo{
			Name:      goText(item.name),
			Backend:   goText(item.backend),
			Config:    json.RawMessage(goText(item.config_json)),
			State:     KeyState(item.state),
			IsDefault: item.is_default != 0,
			CreatedAt: goTime(item.created_at_ms),
		})
	}
	return keys, nil
}

// job makes a change of keys. Each is one atomic commit with its audit records; one that fails at a KMS has changed nothing.
func (o *Organization) job(call func(*C.keystead_organization, **C.keystead_rewrap_job, **C.keystead_error) C.int32_t) (*RewrapJob, error) {
	var out *C.keystead_rewrap_job
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return call(p, &out, failure)
	})
	if err != nil {
		return nil, err
	}
	return newRewrapJob(out, o), nil
}

// AddKey registers a key of the KMS behind backend, a name that the store was opened with, after a probe. config is the key's,
// made JSON; it is kept in the store, in clear. It may be nil.
//
// The first customer-managed key becomes the default and takes over everything: its KMS wraps the epochs before this returns;
// re-wrapping the data keys goes on in the background.
func (o *Organization) AddKey(name, backend string, config any) (*RewrapJob, error) {
	encoded := []byte("{}")
	if config != nil {
		var err error
		if encoded, err = json.Marshal(config); err != nil {
			return nil, fmt.Errorf("keystead: making the config JSON: %w", err)
		}
	}
	nameData, nameLen := text(name)
	backendData, backendLen := text(backend)
	configData, configLen := text(string(encoded))
	return o.job(func(p *C.keystead_organization, out **C.keystead_rewrap_job, failure **C.keystead_error) C.int32_t {
		return C.keystead_key_add(p, nameData, nameLen, backendData, backendLen, configData, configLen, out, failure)
	})
}

// SetDefaultKey opens a new epoch under a key, which takes the new data keys from now on. Existing ones stay where they are
// unless rewrap is true.
func (o *Organization) SetDefaultKey(name string, rewrap bool) (*RewrapJob, error) {
	data, length := text(name)
	var flag C.int32_t
	if rewrap {
		flag = 1
	}
	return o.job(func(p *C.keystead_organization, out **C.keystead_rewrap_job, failure **C.keystead_error) C.int32_t {
		return C.keystead_key_set_default(p, data, length, flag, out, failure)
	})
}

// DisableKey disables a key: everything under it is handed over and re-wrapped to the key target first. If its KMS cannot be
// reached, it stays on the way until it can.
func (o *Organization) DisableKey(name, target string) (*RewrapJob, error) {
	data, length := text(name)
	targetData, targetLen := text(target)
	return o.job(func(p *C.keystead_organization, out **C.keystead_rewrap_job, failure **C.keystead_error) C.int32_t {
		return C.keystead_key_disable(p, data, length, targetData, targetLen, out, failure)
	})
}

// DisableAllKeys goes back to the managed key: everything moves there, and all customer-managed keys are disabled.
func (o *Organization) DisableAllKeys() (*RewrapJob, error) {
	return o.job(func(p *C.keystead_organization, out **C.keystead_rewrap_job, failure **C.keystead_error) C.int32_t {
		return C.keystead_key_disable_all(p, out, failure)
	})
}

// RotateKey opens a new epoch under the same key, re-wraps to it what the key held, and retires the older epochs.
func (o *Organization) RotateKey(name string) (*RewrapJob, error) {
	data, length := text(name)
	return o.job(func(p *C.keystead_organization, out **C.keystead_rewrap_job, failure **C.keystead_error) C.int32_t {
		return C.keystead_key_rotate(p, data, length, out, failure)
	})
}

// RetargetKey gives the running re-wrap job another target.
func (o *Organization) RetargetKey(name string) (*RewrapJob, error) {
	data, length := text(name)
	return o.job(func(p *C.keystead_organization, out **C.keystead_rewrap_job, failure **C.keystead_error) C.int32_t {
		return C.keystead_key_retarget(p, data, length, out, failure)
	})
}

// SetSecondKey makes a registered key the second key: it wraps every live epoch as well, now and from now on. While one of the
// two KMSs is out of reach, the other opens everything.
//
// Revoking either key is honoured, as far as it is the one that is asked. With eitherOpens it is not: then both must be revoked
// to take the data away. The job moves nothing, and is done when every live epoch is wrapped by both.
func (o *Organization) SetSecondKey(name string, eitherOpens bool) (*RewrapJob, error) {
	data, length := text(name)
	var flag C.int32_t
	if eitherOpens {
		flag = 1
	}
	return o.job(func(p *C.keystead_organization, out **C.keystead_rewrap_job, failure **C.keystead_error) C.int32_t {
		return C.keystead_key_set_second(p, data, length, flag, out, failure)
	})
}

// RemoveSecondKey makes the second key one like the others again, which opens nothing: its wraps are erased. It asks no KMS.
func (o *Organization) RemoveSecondKey() error {
	return o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_key_remove_second(p, failure)
	})
}

// SecondKey is an organization's second key, and how far it has come.
type SecondKey struct {
	Key string
	// EitherOpens is true when revoking one of the two keys is not enough: the other opens the epochs alone.
	EitherOpens bool
	// Wrapped is how many live epochs it wraps, Missing how many it does not wrap yet; the organization's re-wrap job goes on
	// until there are none.
	Wrapped, Missing uint64
	// Blocked is why the job waits, if it does.
	Blocked string
	// StandingIn is set while one key serves because another does not answer, as this process last saw it.
	StandingIn *StandingIn
}

// StandingIn is one key that serves because another does not answer.
type StandingIn struct {
	Key   string
	Since time.Time
	// Because is what the other one met, in the words of the error.
	Because string
}

// SecondKey is the second key, and how it stands; nil where there is none. It asks no KMS.
func (o *Organization) SecondKey() (*SecondKey, error) {
	var out *C.keystead_second_key
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_second_key_read(p, &out, failure)
	})
	if err != nil || out == nil {
		return nil, err
	}
	defer C.keystead_second_key_free(out)
	var item C.keystead_second_key_status
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	var failure *C.keystead_error
	if err := check(C.keystead_second_key_look(out, &item, &failure), failure); err != nil {
		return nil, err
	}
	second := &SecondKey{
		Key:         goText(item.key),
		EitherOpens: item.either_opens != 0,
		Wrapped:     uint64(item.wrapped),
		Missing:     uint64(item.missing),
		Blocked:     goText(item.blocked),
	}
	if item.standing_in_since_ms != 0 {
		second.StandingIn = &StandingIn{
			goText(item.standing_in), goTime(item.standing_in_since_ms), goText(item.standing_in_because),
		}
	}
	return second, nil
}

// ProbeKey asks the KMS of a key now, by wrapping and unwrapping random bytes: three KMS calls.
func (o *Organization) ProbeKey(name string) error {
	data, length := text(name)
	return o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_key_probe(p, data, length, failure)
	})
}

// EpochState is what an epoch is good for.
type EpochState int32

// The states of an epoch.
const (
	// EpochActive: new data keys are wrapped under it.
	EpochActive EpochState = C.KEYSTEAD_EPOCH_ACTIVE
	// EpochLive: data keys are, or are going to be, wrapped under it.
	EpochLive EpochState = C.KEYSTEAD_EPOCH_LIVE
	// EpochRetired: no data key refers to it; its wraps are erased.
	EpochRetired EpochState = C.KEYSTEAD_EPOCH_RETIRED
)

// String is "active", "live" or "retired".
func (s EpochState) String() string {
	switch s {
	case EpochActive:
		return "active"
	case EpochLive:
		return "live"
	case EpochRetired:
		return "retired"
	}
	return fmt.Sprintf("EpochState(%d)", int32(s))
}

// EpochCause is why an epoch was opened. Later versions of the library may have more.
type EpochCause int32

// Why epochs are opened.
const (
	CauseOrganizationCreated EpochCause = C.KEYSTEAD_CAUSE_ORGANIZATION_CREATED
	CauseFirstOwnKey         EpochCause = C.KEYSTEAD_CAUSE_FIRST_OWN_KEY
	CauseSetDefault          EpochCause = C.KEYSTEAD_CAUSE_SET_DEFAULT
	CauseRotation            EpochCause = C.KEYSTEAD_CAUSE_ROTATION
	CauseKeyDisabled         EpochCause = C.KEYSTEAD_CAUSE_KEY_DISABLED
	CauseAllKeysDisabled     EpochCause = C.KEYSTEAD_CAUSE_ALL_KEYS_DISABLED
	// CauseRecordLost: its record was lost to damage, and a salvage put another one in its place.
	CauseRecordLost EpochCause = C.KEYSTEAD_CAUSE_RECORD_LOST
)

// WrappedBy is a registered key that wraps an epoch, and the KMS's own id of it.
type WrappedBy struct {
	Key, KMSKeyID string
}

// Epoch is a key epoch, as an organization's owner or auditor sees it.
type Epoch struct {
	Number        uint32
	Key, KMSKeyID string
	// WrappedBy are the registered keys that wrap it now; empty when it is retired.
	WrappedBy []WrappedBy
	OpenedAt  time.Time
	// Actor and Reason are "" if they were not said.
	Actor, Reason string
	Cause         EpochCause
	// DataKeys is how many data keys refer to it.
	DataKeys uint64
	State    EpochState
	// RetiredAt is zero when it is not retired.
	RetiredAt time.Time
	Hash      string
}

// String is "2 acme-cmk active, 7 data keys".
func (e Epoch) String() string {
	noun := "data keys"
	if e.DataKeys == 1 {
		noun = "data key"
	}
	return fmt.Sprintf("%d %s %s, %d %s", e.Number, e.Key, e.State, e.DataKeys, noun)
}

// Epochs is every epoch since the first. It asks no KMS.
func (o *Organization) Epochs() (epochs []Epoch, err error) {
	var list *C.keystead_epoch_list
	err = o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_epoch_list_read(p, &list, failure)
	})
	if err != nil {
		return nil, err
	}
	defer C.keystead_epoch_list_free(list)
	var item C.keystead_epoch
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	var failure *C.keystead_error
	for index := C.size_t(0); index < C.keystead_epoch_list_len(list); index++ {
		if err := check(C.keystead_epoch_list_get(list, index, &item, &failure), failure); err != nil {
			return nil, err
		}
		epoch := Epoch{
			Number:    uint32(item.number),
			Key:       goText(item.key),
			KMSKeyID:  goText(item.kms_key_id),
			OpenedAt:  goTime(item.opened_at_ms),
			Actor:     goText(item.actor),
			Reason:    goText(item.reason),
			Cause:     EpochCause(item.cause),
			DataKeys:  uint64(item.data_keys),
			State:     EpochState(item.state),
			RetiredAt: goTime(item.retired_at_ms),
			Hash:      goText(item.hash),
		}
		if item.wrapped_by_len > 0 {
			for _, wrap := range unsafe.Slice(item.wrapped_by, int(item.wrapped_by_len)) {
				epoch.WrappedBy = append(epoch.WrappedBy, WrappedBy{goText(wrap.key), goText(wrap.kms_key_id)})
			}
		}
		epochs = append(epochs, epoch)
	}
	return epochs, nil
}
