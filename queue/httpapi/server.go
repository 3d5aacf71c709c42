// Package httpapi serves a store over HTTP: the reference's API under /v1/agl,
// OTLP at /v1/traces, metrics at /v1/prometheus, and the dashboard everywhere
// else.
//
// One table ([Server] routes by it, /openapi.json is made from it) names every
// route. A request body is checked once into canonical JSON and then walked by
// hand; what callers own goes to the store as text. Answers are written with one
// Write.
//
// Checks run in the reference's order: the shape of path, query and body
// together (422, one entry for each problem), then paging and explicit nulls
// (400), then the store.
package httpapi

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/aglq/aglq/queue"
)

// Store is what the server needs of a store.
type Store interface {
	queue.Store
	// Ready reports whether the backend can be reached.
	Ready(ctx context.Context) error
}

// Limits that no option changes.
const (
	// DefaultMaxBody bounds a request body, decompressed, in bytes.
	DefaultMaxBody = 64 << 20
	// MaxWait bounds how long a dequeue may wait for work.
	MaxWait = 60 * time.Second
	// DefaultBodyStall is how long a request's body may make no progress.
	DefaultBodyStall = 30 * time.Second
	// DrainTimeout bounds how long Serve waits for open requests.
	DrainTimeout = 10 * time.Second

	headerTimeout = 10 * time.Second
	readyTimeout  = 2 * time.Second
	idleTimeout   = 75 * time.Second // above the 15 s that aiohttp keeps connections
	maxHeader     = 512 << 10        // ids travel in query strings
)

// Options says how a Server works; the zero Options serve the API alone.
type Options struct {
	// MaxBody bounds a request body in bytes; 0 is DefaultMaxBody.
	MaxBody int64
	// BodyStall ends requests served by Serve whose body makes no progress for so
	// long; 0 is DefaultBodyStall.
	BodyStall time.Duration
	// CORSOrigins may call from browsers; "*" is everybody, none is no CORS.
	CORSOrigins []string
	// AuthToken, if not empty, is the bearer token that every request must bring
	// save for /v1/agl/health and the dashboard's own files.
	AuthToken string
	// Dashboard holds index.html and assets/; nil is no dashboard.
	Dashboard fs.FS
	// Archive answers /v1/agl/archive; nil is 404.
	Archive Archive
	// Metrics answers /v1/prometheus and below, and /metrics; nil is 404.
	Metrics http.Handler
	// Observe, if not nil, is told of every answer: the route's template or
	// "other", the method, the status (499 when the client went away first), and
	// how long it took. It must not block.
	Observe func(route, method string, status int, took time.Duration)
	// Logger is where the server reports; nil is slog.Default().
	Logger *slog.Logger
}

// Server is the http.Handler. Use New; it is safe for concurrent use.
type Server struct {
	store   Store
	options Options
	log     *slog.Logger
	cors    *cors
	routes  *node
	static  *static
	openAPI []byte
	ending  context.Context // ends when open waits must be answered
	end     context.CancelFunc
}

// New makes a Server for a store, which the caller closes after the server has
// ended.
func New(s Store, o Options) *Server {
	o.MaxBody = cmp.Or(o.MaxBody, DefaultMaxBody)
	o.BodyStall = cmp.Or(o.BodyStall, DefaultBodyStall)
	srv := &Server{store: s, options: o, log: cmp.Or(o.Logger, slog.Default()), cors: newCORS(o.CORSOrigins)}
	srv.ending, srv.end = context.WithCancel(context.Background())
	table := srv.table()
	srv.routes = newRouter(table)
	srv.openAPI = describe(table)
	if o.Dashboard != nil {
		srv.static = newStatic(o.Dashboard, srv.log)
	}
	return srv
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	c := &call{server: s, r: r, route: other}
	c.w.ResponseWriter = w
	defer s.finish(c, began)
	if s.cors != nil && s.cors.handle(&c.w, r) {
		return
	}
	s.dispatch(c)
}

// finish recovers a panic, and reports the answer.
func (s *Server) finish(c *call, began time.Time) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			panic(p)
		}
		s.log.Error("handler panicked", "method", c.r.Method, "route", c.route, "panic", p, "stack", string(debug.Stack()))
		if c.w.status == 0 {
			c.fail(http.StatusInternalServerError, fmt.Errorf("panic: %v", p))
		}
	}
	took, status := time.Since(began), cmp.Or(c.w.status, http.StatusOK) // an empty answer sets none
	if s.options.Observe != nil {
		s.options.Observe(c.route, c.r.Method, status, took)
	}
	if s.log.Enabled(c.r.Context(), slog.LevelDebug) {
		s.log.Debug("request", "client", c.r.RemoteAddr, "method", c.r.Method, "path", c.r.URL.RequestURI(),
			"proto", c.r.Proto, "status", status, "ms", float64(took.Microseconds())/1000)
	}
}

// dispatch finds the route and runs it.
// maxKey bounds idempotency keys: the store keeps each for a while.
const maxKey = 255

func (s *Server) dispatch(c *call) {
	path := c.r.URL.EscapedPath()
	found := s.routes.find(path, c)
	if !s.authorized(c, path) {
		c.w.Header().Set("WWW-Authenticate", "Bearer")
		c.detail(http.StatusUnauthorized, "Missing or wrong bearer token")
		return
	}
	route := found.methods[c.r.Method]
	switch {
	case len(c.r.Header.Get("Idempotency-Key")) > maxKey:
		c.detail(http.StatusBadRequest, fmt.Sprintf("Idempotency-Key is longer than %d bytes", maxKey))
	case route != nil:
		c.route = route.path
		if err := route.serve(c); err != nil {
			c.error(err)
		}
	case isMetrics(path) && (s.options.Metrics != nil || path != plainMetrics):
		s.serveMetrics(c)
	case len(found.methods) == 0 && !strings.HasPrefix(path, "/v1/"):
		s.serveStatic(c)
	case c.r.Method == http.MethodGet:
		c.detail(http.StatusNotFound, "Not Found")
	default:
		c.notAllowed(found.allow())
	}
}

// Where the metrics are: at the reference's place, with or without a slash at its
// end, and where Prometheus looks by itself. Without metrics the latter is the
// dashboard's.
const (
	referenceMetrics = "/v1/prometheus"
	plainMetrics     = "/metrics"
)

func isMetrics(path string) bool {
	return path == plainMetrics || path == referenceMetrics || strings.HasPrefix(path, referenceMetrics+"/")
}

func (s *Server) serveMetrics(c *call) {
	c.route = referenceMetrics
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		c.notAllowed("GET, HEAD")
		return
	}
	if s.options.Metrics == nil {
		c.detail(http.StatusNotFound, "Not Found")
		return
	}
	s.options.Metrics.ServeHTTP(&c.w, c.r)
}

func (s *Server) authorized(c *call, path string) bool {
	if s.options.AuthToken == "" || path == health || !strings.HasPrefix(path, "/v1/") && !isMetrics(path) {
		return true
	}
	token, ok := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	return ok && subtle.ConstantTimeCompare([]byte(token), []byte(s.options.AuthToken)) == 1
}

// Serve answers requests on l until ctx ends. Then it accepts no more, answers
// open waits with what they have, and waits up to DrainTimeout for the others;
// what still runs after that is cut off. It closes l. An end by ctx is no error.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: min(headerTimeout, s.options.BodyStall),
		ReadTimeout:       s.options.BodyStall, // readBody extends it
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	drained := make(chan struct{})
	served := make(chan struct{})
	go func() {
		defer close(drained)
		select {
		case <-ctx.Done():
		case <-served:
		}
		s.end()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), DrainTimeout)
		defer cancel()
		if err := hs.Shutdown(grace); err != nil {
			s.log.Warn("requests still open at the end of the grace period were cut off", "error", err)
			_ = hs.Close() // nothing more to do for them
		}
	}()
	err := hs.Serve(l)
	close(served)
	<-drained
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving HTTP on %s: %w", l.Addr(), err)
}
