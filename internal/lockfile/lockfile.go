// Package lockfile has one process at a time do what must not be done by two: the
// one that holds a lock on a file. The lock ends with the process, however it ends.
package lockfile

import (
	"errors"
	"os"
)

var (
	// ErrHeld says that another process, or another holder in this one, has the lock.
	ErrHeld = errors.New("the file is locked by another")
	// ErrUnsupported says that the system has no such locks.
	ErrUnsupported = errors.New("this system has no locks on files")
)

// Lock is a lock that is held. Its methods are not safe for concurrent use.
type Lock struct{ file *os.File }

// Try takes the lock on a file, and makes the file where there is none, with these
// permissions before umask. It does not wait: the error wraps ErrHeld where another has
// it. A symbolic link is an error.
func Try(path string, perm os.FileMode) (*Lock, error) {
	for {
		f, err := open(path, perm)
		if err != nil {
			return nil, err
		}
		// Whoever had it before may have removed it: then this is that file.
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := os.Lstat(path); err == nil && os.SameFile(mine, there) {
			return &Lock{f}, nil
		}
		f.Close()
	}
}

// Close ends the lock and leaves the file.
func (l *Lock) Close() error { return l.file.Close() }

// Remove removes the file and ends the lock.
func (l *Lock) Remove() error { return errors.Join(os.Remove(l.file.Name()), l.file.Close()) }
