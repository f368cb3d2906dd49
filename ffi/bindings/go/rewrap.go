package keystead

/*
#include <keystead.h>
*/
import "C"

import (
	"context"
	"errors"
	"reflect"
	"unsafe"
)

// RewrapPhase is what a re-wrap job is doing.
type RewrapPhase int32

// The phases of a job.
const (
	// RewrapHandOver: some source epoch is still wrapped by its old KMS alone.
	RewrapHandOver RewrapPhase = C.KEYSTEAD_REWRAP_HAND_OVER
	// RewrapMoving: data keys are being moved; no KMS takes part in it.
	RewrapMoving RewrapPhase = C.KEYSTEAD_REWRAP_MOVING
)

// RewrapState is whether a re-wrap job goes on.
type RewrapState int32

// The states of a job.
const (
	RewrapRunning RewrapState = C.KEYSTEAD_REWRAP_RUNNING
	// RewrapBlocked: it waits and tries again; RewrapStatus.Blocked says for what.
	RewrapBlocked RewrapState = C.KEYSTEAD_REWRAP_BLOCKED
	RewrapDone    RewrapState = C.KEYSTEAD_REWRAP_DONE
)

// RewrapSource is one of the epochs that a job moves, and where to.
type RewrapSource struct {
	Epoch, Target uint32
	// HandedOver is true once the target's KMS wraps its key.
	HandedOver, Retired bool
}

// RewrapStatus is how a re-wrap job stands.
type RewrapStatus struct {
	// Job is its number in its organization; 0 when there was nothing to move.
	Job   uint64
	Phase RewrapPhase
	State RewrapState
	// Blocked is why it is blocked, if it is.
	Blocked string
	// Total, Done, Failed and Remaining count data keys. Those that failed did not open in this pass, and stay where they
	// are.
	Total, Done, Failed, Remaining uint64
	Batches                        uint64
	// Rate is data keys a second; 0 when that is not known yet.
	Rate    float64
	Sources []RewrapSource
}

// RewrapJob is a re-wrap job. It goes on without this.
type RewrapJob struct {
	handle       *handle
	organization *Organization
	number       uint64
}

func newRewrapJob(pointer *C.keystead_rewrap_job, o *Organization) *RewrapJob {
	j := &RewrapJob{organization: o, number: uint64(C.keystead_rewrap_job_number(pointer))}
	j.handle = newHandle("re-wrap job", unsafe.Pointer(pointer), func(p unsafe.Pointer) {
		C.keystead_rewrap_job_free((*C.keystead_rewrap_job)(p))
	}, o.handle.family)
	endForgotten(j, j.handle)
	return j
}

// Number is its number in its organization; 0 when the change moved nothing, and there is nothing to wait for.
func (j *RewrapJob) Number() uint64 {
	return j.number
}

// Close frees the handle; the job goes on.
func (j *RewrapJob) Close() error {
	j.handle.end()
	return nil
}

// sliceMS is how long a cancelled context may be overheard.
const sliceMS = 100

// Wait waits until the job is done or ctx is, telling progress (which may be nil) how it stands whenever that has changed. A
// job that is blocked goes on trying, and this goes on waiting.
func (j *RewrapJob) Wait(ctx context.Context, progress func(RewrapStatus)) (*RewrapStatus, error) {
	var told RewrapStatus
	tell := func(status *RewrapStatus) {
		if progress != nil && status != nil && status.Job == j.number && !reflect.DeepEqual(*status, told) {
			told = *status
			progress(told)
		}
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		status, err := j.waitFor(sliceMS)
		if err == nil {
			tell(status)
			return status, nil
		}
		if !errors.Is(err, CodeTimedOut) {
			return nil, err
		}
		if progress != nil {
			status, err := j.organization.RewrapStatus()
			if err != nil {
				return nil, err
			}
			tell(status)
		}
	}
}

func (j *RewrapJob) waitFor(timeoutMS uint64) (*RewrapStatus, error) {
	pointer, err := j.handle.begin()
	if err != nil {
		return nil, err
	}
	defer j.handle.release()
	var out *C.keystead_rewrap_status
	var failure *C.keystead_error
	code := C.keystead_rewrap_wait((*C.keystead_rewrap_job)(pointer), C.uint64_t(timeoutMS), nil, nil, &out, &failure)
	if err := check(code, failure); err != nil {
		return nil, err
	}
	return goRewrapStatus(out)
}

// RunHere does the job's work on this goroutine until it is done or blocked, for stores opened WithoutBackgroundRewrap.
func (j *RewrapJob) RunHere() (*RewrapStatus, error) {
	pointer, err := j.handle.begin()
	if err != nil {
		return nil, err
	}
	defer j.handle.release()
	var out *C.keystead_rewrap_status
	var failure *C.keystead_error
	code := C.keystead_rewrap_run_here((*C.keystead_rewrap_job)(pointer), nil, nil, &out, &failure)
	if err := check(code, failure); err != nil {
		return nil, err
	}
	return goRewrapStatus(out)
}

// RewrapStatus is how the organization's re-wrap job stands: the running one, or the last; nil when there never was one. It
// asks no KMS.
func (o *Organization) RewrapStatus() (*RewrapStatus, error) {
	var out *C.keystead_rewrap_status
	err := o.with(func(p *C.keystead_organization, failure **C.keystead_error) C.int32_t {
		return C.keystead_rewrap_status_read(p, &out, failure)
	})
	if err != nil || out == nil {
		return nil, err
	}
	return goRewrapStatus(out)
}

// RewrapJob is the organization's running re-wrap job, to wait for; ClassNotFound when none runs.
func (o *Organization) RewrapJob() (*RewrapJob, error) {
	return o.job(func(p *C.keystead_organization, out **C.keystead_rewrap_job, failure **C.keystead_error) C.int32_t {
		return C.keystead_rewrap_job_open(p, out, failure)
	})
}

// goRewrapStatus takes a status of the library, which is freed.
func goRewrapStatus(status *C.keystead_rewrap_status) (*RewrapStatus, error) {
	defer C.keystead_rewrap_status_free(status)
	var item C.keystead_rewrap_progress
	item.struct_size = C.uint32_t(unsafe.Sizeof(item))
	var failure *C.keystead_error
	if err := check(C.keystead_rewrap_status_look(status, &item, &failure), failure); err != nil {
		return nil, err
	}
	found := &RewrapStatus{
		Job:       uint64(item.job),
		Phase:     RewrapPhase(item.phase),
		State:     RewrapState(item.state),
		Blocked:   goText(item.blocked),
		Total:     uint64(item.total),
		Done:      uint64(item.done),
		Failed:    uint64(item.failed),
		Remaining: uint64(item.remaining),
		Batches:   uint64(item.batches),
		Rate:      float64(item.rate),
	}
	if item.sources_len > 0 {
		for _, source := range unsafe.Slice(item.sources, int(item.sources_len)) {
			found.Sources = append(found.Sources, RewrapSource{
				uint32(source.epoch), uint32(source.target), source.handed_over != 0, source.retired != 0,
			})
		}
	}
	return found, nil
}
