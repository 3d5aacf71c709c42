//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package leader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// tryLock returns the locked file, or nil where another process has locked it.
// The lock ends with the process.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}

// maxSocketPath is how long the path of a Unix socket may be on every system.
const maxSocketPath = 100

// Path is where the files of a group of that name are, in a folder that only this
// user can write to and that ends with the machine's session: XDG_RUNTIME_DIR,
// else a temporary one.
func Path(name string) (string, error) {
	uid := os.Getuid()
	dir := filepath.Join(os.TempDir(), "aglq-"+strconv.Itoa(uid))
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); runtime != "" {
		dir = filepath.Join(runtime, "aglq")
	}
	path := filepath.Join(dir, name)
	if len(path)+len(".sock") > maxSocketPath {
		return "", fmt.Errorf("%s is too long for the path of a socket", path)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(owner.Uid) != uid || info.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s is not a folder of this user alone", dir)
	}
	return path, nil
}
