package keystead

/*
#include <stdint.h>
#include <keystead.h>

extern void keysteadGoLog(void *, keystead_log_record *);

static int32_t keystead_go_log_open(int32_t level, uintptr_t context, keystead_log **out, keystead_error **error) {
	return keystead_log_open(level, (keystead_log_callback)keysteadGoLog, (void *)context, out, error);
}
*/
import "C"

import (
	"runtime/cgo"
	"sync"
)

// LogLevel is how much a record weighs; each includes those before it.
type LogLevel int32

// The levels.
const (
	// LogError: something failed that somebody must look at.
	LogError LogLevel = C.KEYSTEAD_LOG_ERROR
	// LogWarn: something is odd, or does not go on by itself for now.
	LogWarn LogLevel = C.KEYSTEAD_LOG_WARN
	// LogInfo: something happened.
	LogInfo LogLevel = C.KEYSTEAD_LOG_INFO
	// LogDebug is for the one who looks for a fault.
	LogDebug LogLevel = C.KEYSTEAD_LOG_DEBUG
)

// LogRecord is what was logged. Nothing of it is a secret.
type LogRecord struct {
	Level LogLevel
	// Target is which part of the library says it; "keystead::plugin" for what a plugin says.
	Target string
	// Message is what happened, in words.
	Message string
	// Fields are what it is about: {"organization": "acme", "error": "…"}.
	Fields map[string]any
}

// Log is the log of this process, while it is open.
type Log struct {
	once     sync.Once
	pointer  *C.keystead_log
	listener cgo.Handle
}

// LogTo has whatever the library logs up to level, for every store of this process, told to listener, one record at a time, until
// the log is closed. There is one in a process: CodeLogTaken when there is one already. A listener may use the library, but not
// close its log; what it panics with is dropped.
func LogTo(level LogLevel, listener func(LogRecord)) (*Log, error) {
	log := &Log{listener: cgo.NewHandle(listener)}
	var failure *C.keystead_error
	code := C.keystead_go_log_open(C.int32_t(level), C.uintptr_t(log.listener), &log.pointer, &failure)
	if err := check(code, failure); err != nil {
		log.listener.Delete()
		return nil, err
	}
	return log, nil
}

// Close ends it. What waits is told first; when it returns, nothing is told any more. Doing it twice does nothing. A log that is
// forgotten goes on.
func (l *Log) Close() error {
	l.once.Do(func() {
		C.keystead_log_free(l.pointer)
		l.listener.Delete()
	})
	return nil
}
