package main

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/lmittmann/tint"
)

// newLogger returns the logger of the agent. It is the only one that writes to standard error.
func newLogger(e *env, level, format string) (*slog.Logger, error) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	l, ok := levels[level]
	if !ok {
		return nil, usageError("--log-level %q: allowed are debug, info, warn, error", level)
	}
	if format == "auto" {
		if format = "json"; e.log.terminal {
			format = "text"
		}
	}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(jsonWriter{e.err}, &slog.HandlerOptions{Level: l})), nil
	case "text":
		return slog.New(tint.NewTextHandler(e.err, &tint.Options{
			Level: l, NoColor: !e.log.color, TimeFormat: "15:04:05.000", ReplaceAttr: cleanAttr,
		})), nil
	}
	return nil, usageError("--log-format %q: allowed are auto, text, json", format)
}

// cleanAttr makes values safe for a terminal. tint quotes them, but with colours on it turns the escape character, and
// the four characters that name it, back into the real one (handler.go of v1.2.1), so neither may get that far.
func cleanAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.LevelKey || a.Key == slog.TimeKey) {
		return a
	}
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		return slog.String(a.Key, logText(v.String()))
	case slog.KindAny:
		return slog.String(a.Key, logText(fmt.Sprintf("%+v", v.Any())))
	}
	return a
}

func logText(s string) string { return strings.ReplaceAll(clean(s), `\x1b`, "<ESC>") }
