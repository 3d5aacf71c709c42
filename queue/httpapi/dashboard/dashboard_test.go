package dashboard

import (
	"bytes"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

func TestFSIsAFileSystem(t *testing.T) {
	below := "assets/" + versioned().version
	if err := fstest.TestFS(FS(), "index.html", below+"/app.js", below+"/app.css", below+"/icon.svg"); err != nil {
		t.Fatal(err)
	}
}

var (
	pageReference = regexp.MustCompile(`(?:href|src)="(/assets/[^"]+)"`)
	moduleImport  = regexp.MustCompile(`(?m)^(?:import|export)[^;]*?from '([^']+)'`)
	address       = regexp.MustCompile(`(?i)https?://[^\s"'<>)]*|["'(]//[a-z0-9][^\s"'<>)]*`)
)

// Every reference, from the page through the modules, names a file there is,
// and every asset is referred to.
func TestReferencesExist(t *testing.T) {
	page := read(t, "index.html")
	if bytes.Contains(page, []byte(placeholder)) {
		t.Error("index.html still has the placeholder of the version")
	}
	reached := map[string]bool{}
	var follow func(name string)
	follow = func(name string) {
		if reached[name] {
			return
		}
		reached[name] = true
		content := read(t, name)
		for _, found := range moduleImport.FindAllSubmatch(content, -1) {
			follow(path.Join(path.Dir(name), string(found[1])))
		}
	}
	prefix := "/assets/" + versioned().version + "/"
	for _, found := range pageReference.FindAllSubmatch(page, -1) {
		if !strings.HasPrefix(string(found[1]), prefix) {
			t.Errorf("index.html refers to %s, which is not below %s", found[1], prefix)
		}
		follow(strings.TrimPrefix(string(found[1]), "/"))
	}
	for _, name := range names(t) {
		if name != "index.html" && !reached[name] {
			t.Errorf("nothing refers to %s", name)
		}
	}
}

// The dashboard works without the internet.
func TestNoOutsideAddresses(t *testing.T) {
	for _, name := range names(t) {
		for _, found := range address.FindAll(read(t, name), -1) {
			if !bytes.HasPrefix(found, []byte("http://www.w3.org/")) { // XML namespaces
				t.Errorf("%s mentions %s", name, found)
			}
		}
	}
}

// Text of the server never becomes markup or code.
func TestNoMarkupFromText(t *testing.T) {
	for _, name := range names(t) {
		if strings.HasSuffix(name, ".svg") {
			continue
		}
		content := read(t, name)
		for _, danger := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "new Function", "srcdoc", "javascript:"} {
			if bytes.Contains(content, []byte(danger)) {
				t.Errorf("%s uses %s", name, danger)
			}
		}
	}
	if !bytes.Contains(read(t, "index.html"), []byte("default-src 'none'; script-src 'self'")) {
		t.Error("index.html has no content security policy")
	}
}

func TestOpen(t *testing.T) {
	version := versioned().version
	for name, exists := range map[string]bool{
		"index.html":                        true,
		"assets/app.js":                     false,
		"assets/" + version + "/app.js":     true,
		"assets/" + version + "/missing.js": false,
		"assets/" + version + "x/app.js":    false,
		"assets/0123456789ab/app.js":        false,
		"../dashboard.go":                   false,
		"static/index.html":                 false,
	} {
		file, err := FS().Open(name)
		if (err == nil) != exists {
			t.Errorf("Open(%q): error %v, want exists %v", name, err, exists)
		}
		if err == nil {
			file.Close()
		} else if !strings.Contains(err.Error(), name) {
			t.Errorf("Open(%q): error %q does not name the file", name, err)
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := fs.ReadFile(FS(), name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func names(t *testing.T) []string {
	t.Helper()
	var all []string
	err := fs.WalkDir(FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			all = append(all, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
