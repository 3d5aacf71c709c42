package httpapi_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

// TestMetricsPaths scrapes at every place, with and without a token, and where
// there are no metrics.
func TestMetricsPaths(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	defer s.Close(context.Background())
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })
	routes := map[string]int{}
	observe := func(route, _ string, _ int, _ time.Duration) { routes[route]++ }
	with := httpapi.New(s, httpapi.Options{Metrics: metrics, AuthToken: "secret", Observe: observe, Logger: quiet})
	without := httpapi.New(s, httpapi.Options{Logger: quiet})
	for _, path := range []string{"/metrics", "/v1/prometheus", "/v1/prometheus/"} {
		for _, c := range []struct {
			server        http.Handler
			method, token string
			want          int
		}{
			{with, "GET", "secret", 200}, {with, "HEAD", "secret", 200}, {with, "POST", "secret", 405},
			{with, "GET", "", 401}, {with, "GET", "wrong", 401}, {without, "GET", "", 404},
		} {
			r := httptest.NewRequest(c.method, path, nil)
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			w := httptest.NewRecorder()
			c.server.ServeHTTP(w, r)
			if w.Code != c.want || c.want == 200 && w.Body.String() != "up 1\n" {
				t.Errorf("%s %s with token %q: status %d, want %d: %s", c.method, path, c.token, w.Code, c.want, w.Body)
			}
		}
	}
	if routes["/v1/prometheus"] != 9 || len(routes) != 2 {
		t.Errorf("observed %v", routes)
	}
}
