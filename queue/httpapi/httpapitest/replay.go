// Package httpapitest replays recorded traffic of the reference's server against
// a store behind this one, and compares the answers.
package httpapitest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/httpapi"
)

//go:embed testdata/captures.jsonl
var captures []byte

// exchange is one line of the captures.
type exchange struct {
	line           int
	Method         string            `json:"method"`
	Path           string            `json:"path"`
	RequestBody    json.RawMessage   `json:"request_body"`
	Status         int               `json:"status"`
	ResponseBody   json.RawMessage   `json:"response_body"`
	Note           string            `json:"note"`
	RequestHeaders map[string]string `json:"request_headers"`
}

// Scripts are the recordings, each made on a fresh store.
var Scripts = []string{"memory", "mongo", "memory cors=a,b prometheus", "memory cors=*", "client→memory"}

// Options are those of the store that is replayed to.
type Options struct {
	Clock *Clock
	// NewID makes the same ids in each run, and so the same order of what is sorted
	// by them.
	NewID queue.IDFunc
}

func newOptions() Options {
	var made atomic.Int64
	return Options{Clock: &Clock{now: time.Unix(1795000000, 0)}, NewID: func(prefix queue.IDPrefix) string {
		sum := sha256.Sum256(fmt.Append(nil, made.Add(1)))
		return string(prefix) + hex.EncodeToString(sum[:])[:len(queue.RandomID(prefix))-len(prefix)]
	}}
}

// Clock is the time of a replayed store: it shows the times of the recording.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now is the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *Clock) set(seconds float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond)
	if t := time.UnixMicro(int64(seconds * 1e6)); t.After(c.now) {
		c.now = t
	}
}

// Replay runs one script against the store that open makes, which must be empty
// and take its time and its ids from the options. Every answer must have the
// status and the JSON that the reference gave, ids and times mapped on first
// sight, or else be exactly the listed deviation.
func Replay(t *testing.T, script string, open func(t *testing.T, o Options) httpapi.Store) {
	o := newOptions()
	options := httpapi.Options{
		Logger:    slog.New(slog.DiscardHandler),
		Dashboard: fstest.MapFS{"index.html": {Data: []byte("<html></html>")}},
	}
	if strings.Contains(script, "cors=a,b") {
		options.CORSOrigins = []string{"http://a.example", "http://b.example"}
		options.Metrics = http.NotFoundHandler()
	}
	if strings.Contains(script, "cors=*") {
		options.CORSOrigins = []string{"*"}
	}
	list := readDeviations(t)
	fresh := func() *replayer {
		return &replayer{
			server: httpapi.New(open(t, o), options), clock: o.Clock, deviations: list,
			ids: map[string]string{}, times: map[string]string{}, unknown: map[string]string{},
		}
	}
	var r *replayer
	for _, e := range recording(t, script) {
		if r == nil || freshStore.MatchString(e.Note) {
			r = fresh()
		}
		if changesState(e) {
			fresh().run(t, e)
		} else {
			r.run(t, e)
		}
		list.leave(t, e)
	}
	list.write(t)
}

// recording is the exchanges of a script, in order.
func recording(t *testing.T, script string) []exchange {
	t.Helper()
	var out []exchange
	for i, line := range bytes.Split(bytes.TrimSpace(captures), []byte("\n")) {
		e := exchange{line: i + 1}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if strings.HasPrefix(e.Note, "["+script+"]") {
			out = append(out, e)
		}
	}
	return out
}

type replayer struct {
	server     http.Handler
	clock      *Clock
	deviations *deviations
	ids        map[string]string // the reference's to ours
	times      map[string]string
	unknown    map[string]string // ids of ours that the reference has not, to their numbers
}

// freshStore is what the notes say where a recording went on with a new store.
var freshStore = regexp.MustCompile(`\] setup (NaN|stale worker)$`)

var (
	idPattern   = regexp.MustCompile(`ro-[0-9a-f]{12}|at-[0-9a-f]{8}|rs-[0-9a-f]{12}`)
	timePattern = regexp.MustCompile(`\b1[78][0-9]{8}\.[0-9]+`)
)

// part is a piece of an id that a filter looks for.
var part = regexp.MustCompile(`_contains=([0-9a-f]{4,11})\b`)

// ours replaces the reference's ids by ours.
func (r *replayer) ours(b []byte) []byte {
	if m := part.FindSubmatchIndex(b); m != nil {
		for theirs, id := range r.ids {
			if at := strings.Index(theirs, string(b[m[2]:m[3]])); at >= 0 {
				b = slices.Concat(b[:m[2]], []byte(id[at:at+m[3]-m[2]]), b[m[3]:])
				break
			}
		}
	}
	return idPattern.ReplaceAllFunc(b, func(id []byte) []byte {
		if known, ok := r.ids[string(id)]; ok {
			return []byte(known)
		}
		return id
	})
}

func (r *replayer) run(t *testing.T, e exchange) {
	t.Helper()
	var latest float64
	for _, m := range timePattern.FindAll(e.ResponseBody, -1) {
		var f float64
		if fmt.Sscan(string(m), &f); f > latest && f < 1796000000 {
			latest = f
		}
	}
	r.clock.set(latest)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	body, headers := e.body()
	body = r.ours(body)
	if plain, ok := unzip(body); ok {
		body = zip(r.ours(plain))
	}
	req := httptest.NewRequestWithContext(ctx, e.Method, "http://store"+string(r.ours([]byte(e.Path))), bytes.NewReader(body))
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	got, _ := io.ReadAll(w.Result().Body)
	times := maps.Clone(r.times)
	problem := r.compare(e, w, got)
	if problem != "" {
		r.times = times // of another answer
		problem = r.deviations.check(r, e, w, got, problem)
	}
	if problem != "" {
		t.Errorf("line %d %s: %s %s %.300s\n  %s\n  got  %d %.700s\n  want %d %.700s",
			e.line, e.Note, e.Method, e.Path, body, problem, w.Code, got, e.Status, e.ResponseBody)
	}
}

// theirs replaces our ids by the reference's, and by numbers those that it does
// not have.
func (r *replayer) theirs(b []byte) []byte {
	known := make(map[string]string, len(r.ids))
	for theirs, ours := range r.ids {
		known[ours] = theirs
	}
	return idPattern.ReplaceAllFunc(b, func(id []byte) []byte {
		if theirs, ok := known[string(id)]; ok {
			return []byte(theirs)
		}
		if r.unknown[string(id)] == "" {
			r.unknown[string(id)] = fmt.Sprintf("%s#%d", id[:3], len(r.unknown)+1)
		}
		return []byte(r.unknown[string(id)])
	})
}

// body is the request's body as it was sent.
func (e exchange) body() ([]byte, map[string]string) {
	headers := e.RequestHeaders
	var text string
	if json.Unmarshal(e.RequestBody, &text) == nil {
		if packed, ok := strings.CutPrefix(text, "base64:"); ok {
			raw, err := base64.StdEncoding.DecodeString(packed)
			if err == nil {
				return raw, headers
			}
		}
		return []byte(text), headers
	}
	if string(e.RequestBody) == "null" {
		return nil, headers
	}
	return e.RequestBody, headers
}

func unzip(body []byte) ([]byte, bool) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, false
	}
	plain, err := io.ReadAll(z)
	return plain, err == nil
}

func zip(plain []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(plain) // a bytes.Buffer takes all
	_ = z.Close()
	return out.Bytes()
}

// compare says how the answer differs, "" for not at all.
func (r *replayer) compare(e exchange, w *httptest.ResponseRecorder, got []byte) string {
	if w.Code != e.Status {
		return fmt.Sprintf("status %d, want %d", w.Code, e.Status)
	}
	if strings.Contains(w.Header().Get("Content-Type"), "json") && e.Method != http.MethodHead {
		want, a := decode(e.ResponseBody), decode(got)
		if strings.HasSuffix(e.Path, "/statistics") {
			want, a = counts(want), counts(a)
		}
		if e.Status == http.StatusUnprocessableEntity {
			want, a = places(want), places(a)
		}
		return r.match("", want, a)
	}
	return ""
}

// counts reduces statistics to what does not depend on the backend, nor on the
// machine.
func counts(answer any) any {
	object, _ := answer.(map[string]any)
	if name := object["name"]; name != "InMemoryLightningStore" && name != "MongoLightningStore" {
		return fmt.Sprint("the store's name is ", name)
	}
	out := map[string]any{}
	for key, n := range object {
		if key != "name" && key != "uptime" && key != "rollouts_by_status" && key != "evicted_spans" && !strings.HasSuffix(key, "_bytes") {
			out[key] = n
		}
	}
	return out
}

// places reduces the entries of a 422 answer to type and place, in any order.
func places(answer any) any {
	object, _ := answer.(map[string]any)
	list, _ := object["detail"].([]any)
	var out []string
	for _, entry := range list {
		e, _ := entry.(map[string]any)
		out = append(out, fmt.Sprint(e["type"], e["loc"], e["msg"]))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func decode(text []byte) any {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var x any
	if err := d.Decode(&x); err != nil {
		return fmt.Sprintf("no JSON: %.100s", text)
	}
	return x
}

// match compares two values, and learns ids and times.
func (r *replayer) match(at string, want, got any) string {
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return fmt.Sprintf("%s: got %v, want an object", at, got)
		}
		for name := range object {
			if _, ok := want[name]; !ok {
				return fmt.Sprintf("%s: unexpected member %s", at, name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			w := want[name]
			if name == "partition_id" {
				continue // storage fields stay hidden
			}
			g, ok := object[name]
			if !ok {
				return fmt.Sprintf("%s: member %s is missing", at, name)
			}
			if p := r.match(at+"."+name, w, g); p != "" {
				return p
			}
		}
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return fmt.Sprintf("%s: got %v, want %d elements", at, got, len(want))
		}
		for i := range want {
			if p := r.match(fmt.Sprintf("%s[%d]", at, i), want[i], list[i]); p != "" {
				return p
			}
		}
	case json.Number:
		return r.number(at, want, got)
	case string:
		return r.text(at, want, got)
	default:
		if want != got {
			return fmt.Sprintf("%s: got %v, want %v", at, got, want)
		}
	}
	return ""
}

func (r *replayer) number(at string, want json.Number, got any) string {
	g, ok := got.(json.Number)
	isFloat := strings.ContainsAny(want.String(), ".eE")
	if !ok || isFloat != strings.ContainsAny(g.String(), ".eE") {
		return fmt.Sprintf("%s: got %v, want a number like %s", at, got, want)
	}
	switch {
	case timePattern.MatchString(want.String()) && !strings.HasPrefix(want.String(), "17000000"):
		if known, ok := r.times[want.String()]; ok && known != g.String() {
			return fmt.Sprintf("%s: time %s was %s before and is now %s", at, want, known, g)
		}
		r.times[want.String()] = g.String()
	case isFloat:
		a, _ := want.Float64()
		if b, _ := g.Float64(); a != b {
			return fmt.Sprintf("%s: got %s, want %s", at, g, want)
		}
	case want != g:
		return fmt.Sprintf("%s: got %s, want %s", at, g, want)
	}
	return ""
}

func (r *replayer) text(at, want string, got any) string {
	g, ok := got.(string)
	if ok && idPattern.MatchString(want) && idPattern.MatchString(g) && len(want) == len(g) && r.ids[want] == "" {
		r.ids[want] = g
	}
	if fixed, _, found := strings.Cut(want, "allowed fields are: "); ok && found && strings.HasPrefix(g, fixed) {
		return "" // the list itself is longer here
	}
	if !ok || string(r.ours([]byte(want))) != g {
		return fmt.Sprintf("%s: got %v, want %q", at, got, want)
	}
	return ""
}
