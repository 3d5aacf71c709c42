package llmproxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/limit"
)

// Store is what the proxy needs of a store: numbers for calls, a place for
// spans, and the resources that name models.
type Store interface {
	NextSequence(ctx context.Context, rolloutID string, n int) (int64, error)
	AddSpans(ctx context.Context, spans []queue.Span) (queue.SpansAdded, error)
	LatestResources(ctx context.Context) (*queue.ResourcesUpdate, error)
}

// Defaults of Options.
const (
	DefaultRetries        = 2
	DefaultRequestTimeout = 10 * time.Minute // long answers of slow models; LiteLLM's own
	DefaultMaxBody        = 32 << 20         // bytes; images travel in requests
	DefaultMaxAnswer      = 256 << 20        // bytes
	DefaultLimitWait      = 30 * time.Second
	DefaultDrainTimeout   = 30 * time.Second
	DefaultReloadInterval = 2 * time.Second
	DefaultSpanName       = "litellm_request"
	// DefaultPendingSpans and DefaultPendingBytes bound what waits for the store:
	// some seconds of a busy proxy.
	DefaultPendingSpans = 32 << 10
	DefaultPendingBytes = 256 << 20
)

// Options says how a Proxy works. The zero Options are useful but for the
// models, which may also come from a file, the admin API or the store.
type Options struct {
	// Models is the model table at the start.
	Models []Entry
	// ModelsFile, if not "", holds a model table that goes before Models. It is read
	// again when it changes; a broken one changes nothing and is logged.
	ModelsFile string
	// FollowResources adds the language models (type llm) of the latest resources
	// in the store, which win over entries of the same name.
	FollowResources bool
	// ReloadInterval is how often file and resources are looked at; 0 is
	// DefaultReloadInterval.
	ReloadInterval time.Duration

	// Keys open the API, AdminKeys the model table; see docs/llm-proxy.md for who
	// may do what without them.
	Keys, AdminKeys []string

	// Retries is how often a call that failed before anything of it was forwarded
	// is made again; 0 is DefaultRetries, less than 0 none.
	Retries int
	// RequestTimeout bounds the time to an upstream's headers, and each silence in
	// its answer; 0 is DefaultRequestTimeout.
	RequestTimeout time.Duration
	// MaxBody bounds a request's body, in bytes; 0 is DefaultMaxBody.
	MaxBody int64
	// MaxAnswer bounds an upstream's answer, in bytes: it is kept in memory until it
	// is filed; 0 is DefaultMaxAnswer.
	MaxAnswer int64
	// MaxConcurrency bounds the calls at a time; 0 is no bound. What is above is
	// refused with status 429.
	MaxConcurrency int
	// Limit bounds the calls of upstreams, over all models; nil is no bound. What is
	// above waits as at a model's own limits.
	Limit *limit.Group
	// LimitWait is how long a call waits for a model that is at its limits before
	// it is refused with status 429; 0 is DefaultLimitWait, less than 0 not at all.
	LimitWait time.Duration
	// DrainTimeout is how long Serve lets open calls go on; 0 is
	// DefaultDrainTimeout.
	DrainTimeout time.Duration

	// NoTokenIDs leaves out return_token_ids, which upstreams of one's own are sent
	// otherwise. Logprobs asks them for log probabilities.
	NoTokenIDs, Logprobs bool
	// CacheBytes keeps answers up to so many bytes and gives them again for the
	// same request; 0 keeps none.
	CacheBytes int64

	// SpanName is the name of the span that holds the conversation of a call that
	// went well; "" is DefaultSpanName. "openai.chat.completion" is what the
	// reference's tracer adapter looks for.
	SpanName string
	// SequenceBlock is how many numbers of a rollout are fetched at a time; 0 is 1,
	// which keeps spans in the order of what else the attempt reports.
	SequenceBlock int
	// PendingSpans and PendingBytes bound what waits for the store; 0 is
	// DefaultPendingSpans and DefaultPendingBytes.
	PendingSpans, PendingBytes int

	// Observe, if not nil, is told of every call at its end. It must not block.
	Observe func(Observation)
	// Dropped, if not nil, is told of spans that are given up.
	Dropped func(n int)
	// Metrics answers /metrics; nil is 404.
	Metrics http.Handler
	// Logger is where the proxy reports; nil is slog.Default().
	Logger *slog.Logger
}

// Observation is one call, for metrics.
type Observation struct {
	Model    string // of the table, "other" where it has none
	Endpoint string // as "chat"
	Status   int    // of the answer; 499 when the client went away first
	Outcome  string // see the Outcome constants
	Stream   bool
	Took     time.Duration
	// FirstByte is the time to the first byte of the upstream's answer, 0 without.
	FirstByte                      time.Duration
	PromptTokens, CompletionTokens int64
	Cost                           float64 // in dollars, 0 where the table has no prices
}

// Proxy is the http.Handler. It is safe for concurrent use. Use New, and Close
// after the server has ended.
type Proxy struct {
	opts            Options
	store           Store // nil files nothing
	log             *slog.Logger
	keys, adminKeys keyring
	client          *http.Transport
	spans           *spanQueue
	numbers         *numbers
	cache           *lru[*cached] // nil keeps nothing
	history         *lru[rawjson.Value]

	models    atomic.Pointer[table]
	reloading sync.Mutex
	base      []Entry // of the file or the admin API
	followed  []Entry // of the resources

	active     atomic.Int64
	running    sync.WaitGroup // calls
	ending     context.Context
	end        context.CancelFunc
	background sync.WaitGroup
	unfiled    atomic.Int64 // calls without attribution
}

// New makes a Proxy for a store; a nil one files nothing. Its errors are Invalid
// and about the model table.
func New(store Store, o Options) (*Proxy, error) {
	o = withDefaults(o)
	p := &Proxy{
		opts: o, store: store, log: o.Logger, keys: newKeyring(o.Keys), adminKeys: newKeyring(o.AdminKeys),
		client: &http.Transport{
			Proxy:       http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			// Each open stream is a connection of HTTP/1.1.
			MaxIdleConns: 8192, MaxIdleConnsPerHost: 4096, IdleConnTimeout: 90 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
			DisableCompression: true, // the answers are read on their way
		},
		base: o.Models, history: newLRU[rawjson.Value](historyBytes),
	}
	var file *modelsFile
	if o.ModelsFile != "" {
		file = &modelsFile{path: o.ModelsFile, more: o.Models}
		entries, err := file.read()
		if err != nil {
			return nil, err
		}
		p.base = entries
	}
	p.models.Store(newTable(p.base, nil))
	p.ending, p.end = context.WithCancel(context.Background())
	if o.CacheBytes > 0 {
		p.cache = newLRU[*cached](o.CacheBytes)
	}
	if store != nil {
		p.spans = newSpanQueue(store, o)
		p.numbers = newNumbers(store, o.SequenceBlock, p.log)
	}
	if file != nil {
		p.background.Go(func() { p.watchFile(file) })
	}
	if store != nil && o.FollowResources {
		p.background.Go(p.watchResources)
	}
	return p, nil
}

func withDefaults(o Options) Options {
	o.Retries = max(0, cmp.Or(o.Retries, DefaultRetries))
	o.LimitWait = max(0, cmp.Or(o.LimitWait, DefaultLimitWait))
	o.RequestTimeout = cmp.Or(o.RequestTimeout, DefaultRequestTimeout)
	o.MaxBody = cmp.Or(o.MaxBody, DefaultMaxBody)
	o.MaxAnswer = cmp.Or(o.MaxAnswer, DefaultMaxAnswer)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, DefaultDrainTimeout)
	o.ReloadInterval = cmp.Or(o.ReloadInterval, DefaultReloadInterval)
	o.SpanName = cmp.Or(o.SpanName, DefaultSpanName)
	o.SequenceBlock = max(1, o.SequenceBlock)
	o.PendingSpans = cmp.Or(o.PendingSpans, DefaultPendingSpans)
	o.PendingBytes = cmp.Or(o.PendingBytes, DefaultPendingBytes)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return o
}

// endpoint is one of the calls that are forwarded.
type endpoint string

const (
	chat        endpoint = "chat"
	completions endpoint = "completions"
	responses   endpoint = "responses"
	embeddings  endpoint = "embeddings"
	messages    endpoint = "messages"
	countTokens endpoint = "count_tokens"
)

// endpoints are the paths of the calls, with and without /v1 before them.
var endpoints = map[string]endpoint{
	"/chat/completions":      chat,
	"/completions":           completions,
	"/responses":             responses,
	"/embeddings":            embeddings,
	"/messages":              messages,
	"/messages/count_tokens": countTokens,
}

// protocol is the API that the callers of an endpoint speak.
func (e endpoint) protocol() protocol {
	if e == messages || e == countTokens {
		return anthropic
	}
	return openAI
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.running.Add(1)
	defer p.running.Done()
	defer p.recoverPanic(r)
	ref, path := attribute(r)
	path = strings.TrimSuffix(path, "/")
	if rest, ok := strings.CutPrefix(path, "/v1"); ok {
		path = rest
	}
	e, isCall := endpoints[path]
	speaks := e.protocol()
	if r.Header.Get("Anthropic-Version") != "" {
		speaks = anthropic
	}
	switch {
	case len(p.keys) == 0 && ofForeignPage(r):
		refuse(w, speaks, &refusal{
			status: http.StatusForbidden, kind: "permission_error",
			msg: "a page of " + r.Header.Get("Origin") + " may not call a proxy that asks for no key",
		})
	case path == "/health":
		p.health(w, r)
	case path == "/metrics" && p.opts.Metrics != nil:
		p.opts.Metrics.ServeHTTP(w, r)
	case path == "/admin/models":
		p.adminModels(w, r)
	case !p.allowed(r):
		refuse(w, speaks, &refusal{status: http.StatusUnauthorized, kind: "authentication_error", msg: "missing or wrong API key"})
	case isCall && r.Method == http.MethodPost:
		p.serveCall(w, r, e, ref)
	case isCall:
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, speaks, &refusal{status: http.StatusMethodNotAllowed, kind: "invalid_request_error", msg: "use POST"})
	case path == "/models" && r.Method == http.MethodGet:
		p.listModels(w, r, speaks)
	case strings.HasPrefix(path, "/models/") && r.Method == http.MethodGet:
		p.oneModel(w, strings.TrimPrefix(path, "/models/"), speaks)
	default:
		refuse(w, speaks, &refusal{
			status: http.StatusNotFound, kind: "not_found_error",
			msg: fmt.Sprintf("this proxy has no %s %s; it has chat/completions, completions, responses, embeddings, messages and models, below /v1", r.Method, r.URL.Path),
		})
	}
}

// recoverPanic keeps a fault in one call from the others. The answer may have
// been begun, so all that is left is to cut the connection.
func (p *Proxy) recoverPanic(r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause != http.ErrAbortHandler {
		p.log.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	bodyTimeout   = time.Minute // to read a request
	farewell      = time.Second // to tell clients that they are cut off
)

// Serve answers calls on l until ctx ends. Then it takes no more and lets open
// ones go on for DrainTimeout; those that are left are cut off, and recorded as
// such. It closes l. An end by ctx is no error.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{
		Handler: p, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	served, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		select {
		case <-ctx.Done():
		case <-served:
		}
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.opts.DrainTimeout)
		defer cancel()
		if err := hs.Shutdown(grace); err != nil {
			p.log.Warn("calls still open at the end of the grace period are cut off", "calls", p.active.Load())
			p.end()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
			defer cancel()
			_ = hs.Shutdown(last)
			_ = hs.Close() // nothing more to do for them
		}
	}()
	err := hs.Serve(l)
	close(served)
	<-drained
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving the LLM proxy on %s: %w", l.Addr(), err)
}

// Flush waits until the spans of the calls that have ended are stored, or ctx
// ends.
func (p *Proxy) Flush(ctx context.Context) error {
	if p.spans == nil {
		return nil
	}
	return p.spans.flush(ctx)
}

// Close ends calls that are left, stores the spans that wait, and drops what is
// left of them when ctx ends. Nothing may be served afterwards.
func (p *Proxy) Close(ctx context.Context) error {
	p.end()
	p.running.Wait()
	p.background.Wait()
	p.client.CloseIdleConnections()
	if p.store == nil {
		return nil
	}
	p.numbers.close()
	return p.spans.close(ctx)
}
