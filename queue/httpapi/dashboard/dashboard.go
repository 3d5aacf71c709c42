// Package dashboard holds aglq's web dashboard: static files, embedded in the
// binary, that show a store through its HTTP API and need nothing else.
//
// The views and their addresses are /rollouts, /traces, /resources, /runners
// and /settings; index.html serves them all, so a server answers it for every
// path that is neither an asset nor part of the API.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"
)

//go:embed static
var static embed.FS

const (
	index  = "index.html"
	assets = "assets"

	// placeholder stands in index.html where the version of the assets goes.
	// It has a version's length, so that the file keeps its size.
	placeholder = "000000000000"
)

// FS is the dashboard: index.html, and the assets it refers to under
// assets/VERSION/. The version is derived from the content of all files, so an
// asset's address never gets other content and may be cached for ever, while
// index.html has to be revalidated. It is safe for concurrent use.
func FS() fs.FS { return versioned() }

var versioned = sync.OnceValue(func() *files {
	root, err := fs.Sub(static, "static")
	if err != nil {
		panic(fmt.Sprintf("dashboard: %v", err)) // the name is a constant that fs.Sub accepts
	}
	sum := sha256.New()
	var page []byte
	err = fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		if name == index {
			page = content
		}
		fmt.Fprintf(sum, "%s %d\n", name, len(content))
		_, err = sum.Write(content)
		return err
	})
	if err != nil {
		panic(fmt.Sprintf("dashboard: %v", err)) // embedded files are always readable
	}
	version := hex.EncodeToString(sum.Sum(nil))[:len(placeholder)]
	page = bytes.ReplaceAll(page, []byte(placeholder), []byte(version))
	return &files{root: root, version: version, page: page}
})

// files is the embedded tree with the version put into index.html and taken
// out of the names of assets.
type files struct {
	root    fs.FS
	version string
	page    []byte
}

// Open opens a file or folder of the dashboard.
func (f *files) Open(name string) (fs.File, error) {
	if name == index {
		return &pageFile{Reader: bytes.NewReader(f.page)}, nil
	}
	if name == assets {
		return &assetsDir{entries: []fs.DirEntry{fs.FileInfoToDirEntry(dirInfo{f.version})}}, nil
	}
	inner := name
	if rest, ok := strings.CutPrefix(name, assets+"/"+f.version); ok && (rest == "" || rest[0] == '/') {
		inner = assets + rest
	} else if strings.HasPrefix(name, assets+"/") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	file, err := f.root.Open(inner)
	var failed *fs.PathError
	if errors.As(err, &failed) {
		failed.Path = name
	}
	if dir, ok := file.(fs.ReadDirFile); ok && inner == assets {
		return versionDir{dir, f.version}, nil
	}
	return file, err
}

// assetsDir is the folder assets while it is open: it holds the version's folder.
type assetsDir struct{ entries []fs.DirEntry }

// Read fails: a folder has no content.
func (*assetsDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: assets, Err: fs.ErrInvalid}
}

// Close does nothing.
func (*assetsDir) Close() error { return nil }

// Stat describes the folder.
func (*assetsDir) Stat() (fs.FileInfo, error) { return dirInfo{assets}, nil }

// ReadDir lists what was not listed yet, as fs.ReadDirFile says.
func (d *assetsDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.entries) == 0 {
		return nil, io.EOF
	}
	entries := d.entries
	d.entries = nil
	return entries, nil
}

// versionDir is the embedded folder of the assets under the version's name.
type versionDir struct {
	fs.ReadDirFile
	version string
}

// Stat describes the folder.
func (d versionDir) Stat() (fs.FileInfo, error) { return dirInfo{d.version}, nil }

type dirInfo struct{ name string }

func (i dirInfo) Name() string     { return i.name }
func (dirInfo) Size() int64        { return 0 }
func (dirInfo) Mode() fs.FileMode  { return fs.ModeDir | 0o555 }
func (dirInfo) ModTime() time.Time { return time.Time{} }
func (dirInfo) IsDir() bool        { return true }
func (dirInfo) Sys() any           { return nil }

// pageFile is index.html while it is open; it can seek, as embedded files can.
type pageFile struct{ *bytes.Reader }

// Close does nothing: the content stays in memory.
func (p *pageFile) Close() error { return nil }

// Stat describes index.html.
func (p *pageFile) Stat() (fs.FileInfo, error) { return pageInfo{size: p.Size()}, nil }

type pageInfo struct{ size int64 }

func (pageInfo) Name() string       { return index }
func (i pageInfo) Size() int64      { return i.size }
func (pageInfo) Mode() fs.FileMode  { return 0o444 }
func (pageInfo) ModTime() time.Time { return time.Time{} }
func (pageInfo) IsDir() bool        { return false }
func (pageInfo) Sys() any           { return nil }
