//go:build go1.21

package keystead

import (
	"context"
	"log/slog"
	"sort"
)

// LogToSlog is LogTo with a logger of log/slog, at the level that the logger is enabled for now. What a record is about becomes its
// attributes.
func LogToSlog(logger *slog.Logger) (*Log, error) {
	least := LogError
	for _, level := range []LogLevel{LogWarn, LogInfo, LogDebug} {
		if logger.Enabled(context.Background(), slogLevel(level)) {
			least = level
		}
	}
	return LogTo(least, func(record LogRecord) {
		names := make([]string, 0, len(record.Fields))
		for name := range record.Fields {
			names = append(names, name)
		}
		sort.Strings(names)
		attributes := []slog.Attr{slog.String("target", record.Target)}
		for _, name := range names {
			attributes = append(attributes, slog.Any(name, record.Fields[name]))
		}
		logger.LogAttrs(context.Background(), slogLevel(record.Level), record.Message, attributes...)
	})
}

func slogLevel(level LogLevel) slog.Level {
	switch level {
	case LogError:
		return slog.LevelError
	case LogWarn:
		return slog.LevelWarn
	case LogInfo:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}
