package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/aglq/aglq/queue/rawjson"
)

// table writes rows in columns.
type table struct {
	w *tabwriter.Writer
}

func newTable(out io.Writer, columns ...string) *table {
	t := &table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.row(columns...)
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		if c == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) end() error { return t.w.Flush() }

// cell makes any text fit for one: printable, on one line, of bounded width.
func cell(s string) string {
	const most = 60
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if runes := []rune(clean); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return clean
}

func textCell(s *string) string {
	if s == nil {
		return ""
	}
	return cell(*s)
}

// timeCell is a time in Unix seconds, in the local zone.
func timeCell(seconds *float64) string {
	if seconds == nil {
		return ""
	}
	return unixTime(*seconds).Format("2006-01-02 15:04:05")
}

func unixTime(seconds float64) time.Time { return time.UnixMicro(int64(seconds * 1e6)) }

// spanOfTime is the time from start to end in short, "" while it has not ended.
func spanOfTime(start float64, end *float64) string {
	if end == nil {
		return ""
	}
	return shortDuration(time.Duration((*end - start) * 1e9))
}

// writeRecord writes the members of a JSON object, one a line, times readable.
func writeRecord(out io.Writer, record rawjson.Value) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	writeMembers(w, "", record)
	return w.Flush()
}

func writeMembers(w io.Writer, prefix string, record rawjson.Value) {
	for key, val := range record.Members() {
		name := prefix + rawjson.Unescape(key)
		text := val.String()
		switch val.Kind() {
		case rawjson.KindObject:
			if name == "attempt" {
				writeMembers(w, "attempt.", val)
				continue
			}
		case rawjson.KindString:
			text = printable(val.Text())
		case rawjson.KindNull:
			text = "-"
		case rawjson.KindInteger, rawjson.KindFloat:
			if seconds, ok := val.Float(); ok && strings.HasSuffix(name, "_time") {
				text = unixTime(seconds).Format("2006-01-02 15:04:05.000")
			}
		}
		fmt.Fprintf(w, "%s\t%s\n", name, text)
	}
}

// printable keeps text of strangers from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// counted writes how many of something there are.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
