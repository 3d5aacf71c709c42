package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// The words for levels, those of Python's logging.
var levelNames = []struct {
	name  string
	level slog.Level
}{
	{"DEBUG", slog.LevelDebug}, {"INFO", slog.LevelInfo}, {"WARNING", slog.LevelWarn}, {"ERROR", slog.LevelError},
}

// The parts of the program that have a log level of their own.
var logParts = []string{"store", "http", "worker", "algorithm"}

// logs makes the logger of each part of the program.
type logs struct {
	handler slog.Handler
	levels  map[string]slog.Level // "" is all other parts
}

func (l *logs) of(part string) *slog.Logger {
	level, ok := l.levels[part]
	if !ok {
		level = l.levels[""]
	}
	return slog.New(leveled{l.handler, level}).With("part", part)
}

// leveled is a handler with a level of its own.
type leveled struct {
	slog.Handler
	level slog.Level
}

// Enabled implements slog.Handler.
func (h leveled) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// WithAttrs implements slog.Handler.
func (h leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return leveled{h.Handler.WithAttrs(attrs), h.level}
}

// WithGroup implements slog.Handler.
func (h leveled) WithGroup(name string) slog.Handler {
	return leveled{h.Handler.WithGroup(name), h.level}
}

// nameWarning writes WARNING where slog says WARN.
func nameWarning(groups []string, attr slog.Attr) slog.Attr {
	if len(groups) == 0 && attr.Key == slog.LevelKey && attr.Value.Any() == slog.LevelWarn {
		attr.Value = slog.StringValue("WARNING")
	}
	return attr
}

func validLogLevels(text string) error {
	_, err := parseLogLevels(text)
	return err
}

// parseLogLevels reads "INFO", "store=DEBUG,worker=INFO" or both together.
func parseLogLevels(text string) (map[string]slog.Level, error) {
	levels := map[string]slog.Level{"": slog.LevelInfo}
	for word := range strings.SplitSeq(text, ",") {
		part, name, of := strings.Cut(strings.TrimSpace(word), "=")
		if !of {
			part, name = "", part
		} else if !slices.Contains(logParts, part) {
			return nil, fmt.Errorf("%q is no part of the program; those with a level of their own are %s", part, orList(logParts))
		}
		level, ok := levelOf(name)
		if !ok {
			return nil, fmt.Errorf("%q is no level; it must be DEBUG, INFO, WARNING or ERROR", name)
		}
		levels[part] = level
	}
	return levels, nil
}

func levelOf(name string) (slog.Level, bool) {
	name = strings.ToUpper(strings.TrimSpace(name))
	for _, l := range levelNames {
		if l.name == name {
			return l.level, true
		}
	}
	return 0, name == "" // an empty variable says nothing
}
