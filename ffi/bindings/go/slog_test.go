//go:build go1.21

package keystead_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"keystead"
)

func TestWhatHappensIsLoggedBySlogAtTheLevelOfTheLogger(t *testing.T) {
	directory := t.TempDir()
	for _, test := range []struct {
		level slog.Level
		name  string
		want  string
	}{
		{slog.LevelWarn, "a", "level=WARN msg=\"made the keyring %s/a.keyring; back it up: without it nothing under it opens\" " +
			"target=keystead::keyring::registry key=managed organization=acme\n"},
		{slog.LevelError, "b", ""},
	} {
		var out bytes.Buffer
		handler := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: test.level,
			ReplaceAttr: func(_ []string, attribute slog.Attr) slog.Attr {
				if attribute.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return attribute
			}})
		log := must[*keystead.Log](t)(keystead.LogToSlog(slog.New(handler)))
		makeAKeyring(t, directory, test.name)
		ok(t, log.Close())
		if test.want != "" {
			test.want = fmt.Sprintf(test.want, directory)
		}
		equal(t, out.String(), test.want)
	}
}
