package keystead

import (
	"runtime"
	"sync"
	"unsafe"
)

// handle is an object of the library. It is freed when it was ended and no call on it is in flight.
type handle struct {
	what    string
	free    func(unsafe.Pointer)
	family  *family
	mutex   sync.Mutex
	idle    *sync.Cond
	ending  sync.Once
	pointer unsafe.Pointer
	calls   int
}

func newHandle(what string, pointer unsafe.Pointer, free func(unsafe.Pointer), family *family) *handle {
	h := &handle{what: what, pointer: pointer, free: free, family: family}
	h.idle = sync.NewCond(&h.mutex)
	family.add(h)
	return h
}

// begin begins a call; release ends it.
func (h *handle) begin() (unsafe.Pointer, error) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.pointer == nil {
		return nil, errClosed(h.what)
	}
	h.calls++
	return h.pointer, nil
}

func (h *handle) release() {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.calls--
	if h.calls == 0 {
		h.idle.Broadcast()
	}
}

// end lets no further call begin, waits for those in flight, and frees the object. Doing it twice does nothing, but wait for whoever
// came first.
func (h *handle) end() {
	h.ending.Do(func() {
		h.mutex.Lock()
		pointer := h.pointer
		h.pointer = nil
		for h.calls > 0 {
			h.idle.Wait()
		}
		h.mutex.Unlock()
		h.family.remove(h)
		h.free(pointer)
	})
}

// endForgotten ends a handle when the collector finds that nothing refers to its owner. It does so on a goroutine of its own: the
// collector runs the finalizers of the whole process on one, and a call that is still in flight takes as long as it takes.
func endForgotten[T any](owner *T, h *handle) {
	runtime.SetFinalizer(owner, func(*T) { go h.end() })
}

// family is the handles within one open store: they end together with it, so that the file is released.
type family struct {
	mutex   sync.Mutex
	members map[*handle]struct{}
}

func (f *family) add(h *handle) {
	if f == nil {
		return
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.members == nil {
		f.members = make(map[*handle]struct{})
	}
	f.members[h] = struct{}{}
}

func (f *family) remove(h *handle) {
	if f == nil {
		return
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	delete(f.members, h)
}

func (f *family) end() {
	f.mutex.Lock()
	members := make([]*handle, 0, len(f.members))
	for member := range f.members {
		members = append(members, member)
	}
	f.mutex.Unlock()
	for _, member := range members {
		member.end()
	}
}
