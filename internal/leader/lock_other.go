//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package leader

import (
	"errors"
	"os"
)

var errNoLocks = errors.New("processes cannot agree on a leader on this system")

func tryLock(string) (*os.File, error) { return nil, errNoLocks }

// Path fails: there are no groups on this system.
func Path(string) (string, error) { return "", errNoLocks }
