package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

var quiet = slog.New(slog.DiscardHandler)

// served puts a store behind HTTP. Ordinary requests may have 100 bytes.
func served(t *testing.T, s *store.Store) *client.Client {
	t.Helper()
	server := httptest.NewServer(httpapi.New(s, httpapi.Options{Archive: s, MaxBody: 100, Logger: quiet, AuthToken: "secret"}))
	t.Cleanup(server.Close)
	c := client.New(server.URL, client.Options{AuthToken: "secret"})
	t.Cleanup(c.Close)
	return c
}

func filled(t *testing.T) *store.Store {
	t.Helper()
	s := newStore(t)
	requests := make([]queue.Request, 300)
	for i := range requests {
		requests[i].Input = rawjson.Value(`{"n":` + strings.Repeat("1", 1+i%10) + `}`)
	}
	if _, err := s.Enqueue(t.Context(), requests); err != nil {
		t.Fatal(err)
	}
	return s
}

func exported(t *testing.T, c *client.Client) []byte {
	t.Helper()
	r, err := c.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	file, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestArchiveOverHTTP(t *testing.T) {
	from := filled(t)
	one, two := served(t, from), served(t, newStore(t))
	file := exported(t, one)
	var direct bytes.Buffer
	counts, err := from.Export(t.Context(), &direct)
	if err != nil || !bytes.Equal(file, direct.Bytes()) || counts.Rollouts != 300 {
		t.Fatalf("exported over HTTP are %d bytes, in the process %d: %s, %v", len(file), direct.Len(), counts, err)
	}
	answer, err := two.Import(t.Context(), bytes.NewReader(file), false)
	if err != nil {
		t.Fatal(err)
	}
	report := archive.DecodeReport(answer)
	if diff := cmp.Diff(archive.Report{Stored: counts}, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if again := exported(t, two); !bytes.Equal(file, again) {
		t.Error("the archive of the copy differs")
	}
	// One with something in it takes no more unless it is asked to merge, and does
	// not wait for the file to say so.
	if _, err := two.Import(t.Context(), endless{}, false); queue.KindOf(err) != queue.Conflict || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a second import: %v", err)
	}
	answer, err = two.Import(t.Context(), bytes.NewReader(file), true)
	if report := archive.DecodeReport(answer); err != nil || report.Present != counts {
		t.Errorf("merged: %s, %v", report.String(), err)
	}
}

// endless has no end and nothing in it.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestCutArchiveOverHTTP(t *testing.T) {
	file := exported(t, served(t, filled(t)))
	var lines bytes.Buffer
	_, err := archive.Write(&lines, func(yield func(archive.Item, error) bool) {
		r, err := archive.NewReader(bytes.NewReader(file))
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		n := 0
		for item := range r.Items() {
			if n++; n == 250 {
				yield(archive.Item{}, errors.New("disk full"))
				return
			}
			if !yield(item, nil) {
				return
			}
		}
	})
	if err == nil {
		t.Fatal("the failing source gave a whole archive")
	}
	c := served(t, newStore(t))
	answer, err := c.Import(t.Context(), &lines, false)
	if queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("error %v", err)
	}
	if report := archive.DecodeReport(answer); report.Stored.Rollouts != 249 {
		t.Errorf("report: %s", report.String())
	}
	st, err := c.Statistics(t.Context())
	if err != nil || st.Rollouts != 249 {
		t.Errorf("%d rollouts are stored: %v", st.Rollouts, err)
	}
	if _, err := c.Import(t.Context(), strings.NewReader("hello"), true); queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), "no archive of aglq") {
		t.Errorf("what is no archive: %v", err)
	}
}

func TestArchiveRequests(t *testing.T) {
	without := newServer(t, httpapi.Options{})
	for _, method := range []string{"GET", "POST"} {
		if w := send(t, without, method, "/v1/agl/archive", ""); w.Code != 404 {
			t.Errorf("%s of a server without: %d", method, w.Code)
		}
	}
	s := newStore(t)
	h := httpapi.New(s, httpapi.Options{Archive: s, Logger: quiet})
	if w := send(t, h, "POST", "/v1/agl/archive?merge=perhaps", ""); w.Code != 422 || !strings.Contains(w.Body.String(), `["query","merge"]`) {
		t.Errorf("a wrong parameter: %d %s", w.Code, w.Body)
	}
	if w := send(t, h, "POST", "/v1/agl/archive?merge=1", ""); w.Code != 400 {
		t.Errorf("an empty body: %d %s", w.Code, w.Body)
	}
	if w := send(t, h, "GET", "/v1/agl/archive", ""); w.Code != 200 || w.Header().Get("Content-Type") != "application/zstd" {
		t.Errorf("an empty store: %d %s", w.Code, w.Header())
	}
}

// TestArchiveElsewhere asks a server that knows nothing of archives.
func TestArchiveElsewhere(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"404":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		"page": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler)
			defer server.Close()
			c := client.New(server.URL, client.Options{})
			defer c.Close()
			if _, err := c.Export(t.Context()); queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), "not aglq's") {
				t.Errorf("export: %v", err)
			}
		})
	}
	c := client.New("http://127.0.0.1:1", client.Options{})
	defer c.Close()
	if _, err := c.Import(t.Context(), strings.NewReader(""), false); queue.KindOf(err) != queue.Unavailable {
		t.Errorf("import into nothing: %v", err)
	}
}

// TestStalledArchive sends a body that never comes.
func TestStalledArchive(t *testing.T) {
	s := newStore(t)
	server := httptest.NewServer(httpapi.New(s, httpapi.Options{Archive: s, BodyStall: 100 * time.Millisecond, Logger: quiet}))
	defer server.Close()
	c := client.New(server.URL, client.Options{})
	defer c.Close()
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.Import(ctx, r, false); err == nil || ctx.Err() != nil {
		t.Errorf("a body that never comes: %v", err)
	}
}
