//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package lockfile

import "os"

func open(string, os.FileMode) (*os.File, error) { return nil, ErrUnsupported }
