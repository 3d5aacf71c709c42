package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

// static is the dashboard, read once.
type static struct {
	index  *file
	assets map[string]*file // by path
}

type file struct {
	name, etag, contentType string
	content                 []byte
	modified                time.Time
}

// contentTypes are fixed: what a machine's own table says of them differs.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func newStatic(files fs.FS, log *slog.Logger) *static {
	s := &static{assets: make(map[string]*file)}
	started := time.Now()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		f := &file{name: name, content: content, modified: started, etag: `"` + hex.EncodeToString(sum[:16]) + `"`}
		if info, err := d.Info(); err == nil && !info.ModTime().IsZero() {
			f.modified = info.ModTime()
		}
		if f.contentType = contentTypes[path.Ext(name)]; f.contentType == "" {
			f.contentType = mime.TypeByExtension(path.Ext(name))
		}
		switch {
		case name == "index.html":
			s.index = f
		case strings.HasPrefix(name, "assets/"):
			s.assets["/"+name] = f
		}
		return nil
	})
	if err != nil || s.index == nil {
		log.Error("dashboard is missing", "error", err)
	}
	return s
}

// serveStatic answers every path that is not the API's: an asset, or the page,
// whose script reads the rest of the path.
func (s *Server) serveStatic(c *call) {
	asset := strings.HasPrefix(c.r.URL.Path, "/assets/")
	switch {
	case c.r.Method != http.MethodGet && c.r.Method != http.MethodHead:
		c.notAllowed("GET, HEAD")
	case s.static == nil:
		c.detail(http.StatusNotFound, "Not Found")
	case asset:
		c.route = "/assets"
		c.file(s.static.assets[c.r.URL.Path], "public, max-age=31536000, immutable")
	default:
		c.route = "/"
		c.file(s.static.index, "no-cache")
	}
}

func (c *call) file(f *file, caching string) {
	if f == nil {
		c.detail(http.StatusNotFound, "Not Found")
		return
	}
	h := c.w.Header()
	h.Set("Cache-Control", caching)
	h.Set("Etag", f.etag)
	if f.contentType != "" {
		h.Set("Content-Type", f.contentType)
	}
	http.ServeContent(&c.w, c.r, f.name, f.modified, bytes.NewReader(f.content))
}
