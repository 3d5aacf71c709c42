// Package atomicfile puts files in their place when they are whole: whoever opens one
// by its name sees all of it or what was there before, after a crash too.
package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Write makes a file of what write writes. Until all of it is on disk the file is called
// name+suffix, and an error removes it.
func Write(name, suffix string, write func(io.Writer) error) error {
	f, err := os.Create(name + suffix)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncDir(filepath.Dir(name))
}

// SyncDir puts the names in a folder on disk.
func SyncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
