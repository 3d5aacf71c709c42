package atomicfile_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/internal/atomicfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func content(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWrite(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	put := func(text string, broken error) error {
		return atomicfile.Write(name, ".new", func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return errors.Join(err, broken)
		})
	}
	if err := put("one", nil); err != nil || content(t, name) != "one" {
		t.Fatalf("%v, %q", err, content(t, name))
	}
	away := errors.New("away")
	if err := put("two", away); !errors.Is(err, away) || content(t, name) != "one" {
		t.Errorf("a failure: %v, %q", err, content(t, name))
	}
	if err := put("two", nil); err != nil || content(t, name) != "two" {
		t.Errorf("%v, %q", err, content(t, name))
	}
	if _, err := os.Lstat(name + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is left: %v", err)
	}
}

// TestInTheWay leaves nothing where the name cannot be taken.
func TestInTheWay(t *testing.T) {
	name := filepath.Join(t.TempDir(), "folder")
	if err := os.MkdirAll(filepath.Join(name, "below"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(name, ".new", func(io.Writer) error { return nil }); err == nil {
		t.Error("a folder was replaced")
	}
	if _, err := os.Lstat(name + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is left: %v", err)
	}
}
