package archive_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue"
)

func TestDamageIsFound(t *testing.T) {
	file, counts := export(t, sample(t))
	if got, err := archive.Check(bytes.NewReader(file)); err != nil || got != counts {
		t.Fatalf("as it was written: %s, %v", got, err)
	}
	lines := text(t, file)
	step := max(1, len(file)/400)
	for at := 0; at < len(file); at += step {
		if _, err := archive.Check(bytes.NewReader(file[:at])); queue.KindOf(err) != queue.Invalid {
			t.Fatalf("cut to %d of %d bytes: %v", at, len(file), err)
		}
		changed := bytes.Clone(file)
		changed[at] ^= 0x10
		_, err := archive.Check(bytes.NewReader(changed))
		if err == nil && text(t, changed) == lines {
			continue // a bit that means nothing to the decompressor
		}
		if queue.KindOf(err) != queue.Invalid {
			t.Errorf("byte %d of %d changed: %v", at, len(file), err)
		}
	}
	if _, err := archive.Check(bytes.NewReader(append(bytes.Clone(file), compress(t, "{}\n")...))); queue.KindOf(err) != queue.Invalid {
		t.Errorf("something added: %v", err)
	}
	if _, err := archive.Check(bytes.NewReader(append(bytes.Clone(file), 'x'))); queue.KindOf(err) != queue.Invalid {
		t.Errorf("a byte added: %v", err)
	}
}

func TestChangedLines(t *testing.T) {
	file, _ := export(t, sample(t))
	lines := strings.SplitAfter(text(t, file), "\n")
	end := len(lines) - 2
	edit := func(at int, old, new string) string {
		if !strings.Contains(lines[at], old) {
			t.Fatalf("line %d has no %s: %s", at+1, old, lines[at])
		}
		return strings.Join(lines[:at], "") + strings.Replace(lines[at], old, new, 1) + strings.Join(lines[at+1:], "")
	}
	for _, c := range []struct{ name, lines, want string }{
		{"number changed", edit(4, `"n":1`, `"n":2`), "was changed after it was written"},
		{"line left out", strings.Join(lines[:3], "") + strings.Join(lines[4:], ""), "lines were lost or added"},
		{"line twice", strings.Join(lines[:3], "") + lines[2] + strings.Join(lines[3:], ""), "lines were lost or added"},
		{"end left out", strings.Join(lines[:end], ""), "cut short"},
		{"end twice", strings.Join(lines, "") + lines[end], "follows the end"},
		{"last line break left out", strings.TrimSuffix(strings.Join(lines, ""), "\n"), "cut short"},
		{"nothing", "", "cut short"},
		{"other file", "hello\n", "line 1"},
		{"other JSON", `{"a":1}` + "\n", "no archive"},
		{"newer version", edit(0, `"version":1`, `"version":2`), "reads version 1"},
		{"unknown kind", edit(2, `"kind":"worker"`, `"kind":"wrkr"`), "does not know"},
		{"no kind", edit(2, `"kind":"worker",`, ``), "neither with its kind"},
		{"unknown member", edit(2, `"status"`, `"color":1,"status"`), `"color" is a member`},
		{"wrong type", edit(2, `"w-1"`, `7`), `"worker_id" is not a string`},
		{"unknown status", edit(2, `"busy"`, `"lazy"`), `"status" is "lazy"`},
		{"attempt missing", strings.Join(lines[:5], "") + strings.Join(lines[6:], ""), "has 1 attempts, and here are only 0"},
		{"attempt of another", edit(5, `"rollout_id":"ro-000"`, `"rollout_id":"ro-001"`), "attempt at-1 is of rollout ro-001"},
		{"queued without a place", edit(6, `,"place":2`, ``), `"place" is 0`},
		{"NaN", edit(6, `"start_time":101.0`, `"start_time":NaN`), `"start_time" is not a number`},
		{"error", strings.Join(lines[:4], "") + `{"kind":"error","detail":"disk full"}` + "\n", "could not finish it: disk full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := archive.Check(bytes.NewReader(compress(t, c.lines)))
			if queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want one with %q", err, c.want)
			}
		})
	}
}

func TestReadFails(t *testing.T) {
	file, _ := export(t, sample(t))
	away := errors.New("connection reset")
	_, err := archive.Check(io.MultiReader(bytes.NewReader(file[:len(file)/2]), failing{away}))
	if !errors.Is(err, away) || queue.KindOf(err) == queue.Invalid {
		t.Errorf("a connection that broke is reported as %v", err)
	}
}

type failing struct{ error }

func (e failing) Read([]byte) (int, error) { return 0, e.error }

func FuzzRead(f *testing.F) {
	file, _ := export(f, sample(f))
	lines := strings.SplitAfter(text(f, file), "\n")
	f.Add(strings.Join(lines[:12], ""))
	f.Add(strings.Join(lines[:2], "") + lines[len(lines)-3])
	f.Add(lines[0] + `{"kind":"end","resources":0,"workers":0,"rollouts":0,"attempts":0,"spans":0,"sha256":"` + hex.EncodeToString(make([]byte, 32)) + `"}` + "\n")
	f.Add(lines[0] + `{"rollout_id":"r","attempt_id":"a","sequence_id":1,"kind":"end","span_id":{}}` + "\n")
	f.Fuzz(func(t *testing.T, lines string) {
		read := func(file []byte) (items []archive.Item, err error) {
			r, err := archive.NewReader(bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for item, err := range r.Items() {
				if err != nil {
					return items, err
				}
				items = append(items, item)
			}
			return items, nil
		}
		items, err := read(compress(t, lines))
		if err != nil && queue.KindOf(err) != queue.Invalid {
			t.Fatalf("error %v is not Invalid", err)
		}
		write := func(items []archive.Item) []byte {
			var out bytes.Buffer
			_, err := archive.Write(&out, func(yield func(archive.Item, error) bool) {
				for _, i := range items {
					if !yield(i, nil) {
						return
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			return out.Bytes()
		}
		first := write(items)
		again, err := read(first)
		if err != nil {
			t.Fatalf("what was read and written cannot be read: %v\n%s", err, text(t, first))
		}
		if second := write(again); !bytes.Equal(first, second) {
			t.Fatalf("read and written again it differs:\n%s\n%s", text(t, first), text(t, second))
		}
	})
}
