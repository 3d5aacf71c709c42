package llmproxy

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

const (
	probeTimeout = 5 * time.Second
	// maxTable bounds a model table, in bytes.
	maxTable = 8 << 20
)

// health answers for the proxy itself, and with ?deep=1 for its upstreams too,
// which are asked for their models.
func (p *Proxy) health(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("deep") == "" {
		writeJSON(w, http.StatusOK, rawjson.Value(`{"status":"ok"}`))
		return
	}
	if !p.allowed(r) {
		refuse(w, openAI, &refusal{status: http.StatusUnauthorized, kind: "authentication_error", msg: "missing or wrong API key"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	order := p.models.Load().order
	var list array
	var out object
	status, word := http.StatusOK, "ok"
	for i, err := range p.probeAll(ctx, order) {
		var one object
		one.text("model_name", i.model)
		one.text("api_base", i.upstream.APIBase)
		one.raw("healthy", truth(err == nil))
		if err != nil {
			one.text("error", err.Error())
			status, word = http.StatusServiceUnavailable, "unhealthy"
		}
		list.add(one.close())
	}
	out.text("status", word)
	if list.empty() {
		out.raw("upstreams", rawjson.EmptyArray)
	}
	out.raw("upstreams", list.close())
	writeJSON(w, status, out.close())
}

// named is an upstream with the name of its model.
type named struct {
	model    string
	upstream *upstream
}

// probeAll asks all upstreams at a time, and yields what came of it in order.
func (p *Proxy) probeAll(ctx context.Context, order []*model) func(func(named, error) bool) {
	var all []named
	for _, m := range order {
		for _, u := range m.upstreams {
			all = append(all, named{m.name, u})
		}
	}
	errs := make([]error, len(all))
	var asking sync.WaitGroup
	for i := range all {
		asking.Go(func() { errs[i] = p.probe(ctx, all[i].upstream) })
	}
	asking.Wait()
	return func(yield func(named, error) bool) {
		for i := range all {
			if !yield(all[i], errs[i]) {
				return
			}
		}
	}
}

func (p *Proxy) probe(ctx context.Context, u *upstream) error {
	_, err := p.ask(ctx, u)
	return err
}

// ask is what an upstream answers to GET /v1/models.
func (p *Proxy) ask(ctx context.Context, u *upstream) (rawjson.Value, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.APIBase+"/models", nil)
	if err != nil {
		return nil, err
	}
	(&call{p: p, r: req}).setHeaders(req.Header, u)
	resp, err := p.client.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, queue.Errorf(queue.Unavailable, "status %d", resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxTable))
	if err != nil {
		return nil, err
	}
	return rawjson.Parse(text)
}

// adminModels shows the model table, and replaces it.
func (p *Proxy) adminModels(w http.ResponseWriter, r *http.Request) {
	if !p.mayAdminister(r) {
		refuse(w, openAI, &refusal{
			status: http.StatusUnauthorized, kind: "authentication_error",
			msg: "the model table needs the admin key; without any key it is open to this machine only",
		})
		return
	}
	switch r.Method {
	case http.MethodGet:
		writeJSON(w, http.StatusOK, p.describe())
	case http.MethodPut:
		text, err := readBody(w, r, maxTable)
		var entries []Entry
		if err == nil {
			entries, err = ParseModels(text)
		}
		if err != nil {
			refuse(w, openAI, &refusal{status: http.StatusBadRequest, kind: "invalid_request_error", msg: err.Error()})
			return
		}
		p.SetModels(entries)
		p.log.Info("model table replaced", "entries", len(entries), "client", r.RemoteAddr)
		writeJSON(w, http.StatusOK, p.describe())
	default:
		w.Header().Set("Allow", "GET, PUT")
		refuse(w, openAI, &refusal{status: http.StatusMethodNotAllowed, kind: "invalid_request_error", msg: "use GET or PUT"})
	}
}

// describe is the model table without its secrets.
func (p *Proxy) describe() rawjson.Value {
	now := time.Now()
	var list array
	for _, m := range p.models.Load().order {
		for _, u := range m.upstreams {
			healthy, failures, lastErr := u.state(now)
			var params, entry, out object
			params.text("model", u.Provider+"/"+u.Model)
			params.text("api_base", withoutPassword(u.APIBase))
			if u.Concurrency > 0 {
				params.int("max_parallel_requests", int64(u.Concurrency))
			}
			if u.RPM > 0 {
				params.int("rpm", int64(u.RPM))
			}
			out.raw("healthy", truth(healthy))
			out.int("failures", int64(failures))
			out.int("running", int64(u.gate.Inside()))
			if lastErr != "" {
				out.text("last_error", lastErr)
			}
			entry.text("model_name", m.name)
			entry.raw("litellm_params", params.close())
			entry.raw("state", out.close())
			list.add(entry.close())
		}
	}
	var out object
	if list.empty() {
		out.raw("model_list", rawjson.EmptyArray)
	}
	out.raw("model_list", list.close())
	return out.close()
}

func withoutPassword(base string) string {
	if u, err := url.Parse(base); err == nil {
		return u.Redacted()
	}
	return base
}

// listModels answers GET /v1/models in the words of the caller's API.
func (p *Proxy) listModels(w http.ResponseWriter, r *http.Request, speaks protocol) {
	list := array{buf: []byte{'['}}
	names := p.allNames(r.Context())
	for i, name := range names {
		if i > 0 {
			list.buf = append(list.buf, ',')
		}
		list.buf = append(list.buf, modelInfo(name, speaks)...)
	}
	var out object
	out.raw("data", list.close())
	if speaks == anthropic {
		out.raw("has_more", truth(false))
		for _, end := range []string{"first_id", "last_id"} {
			switch {
			case len(names) == 0:
				out.raw(end, rawjson.Null)
			case end == "first_id":
				out.text(end, names[0])
			default:
				out.text(end, names[len(names)-1])
			}
		}
	} else {
		out.text("object", "list")
	}
	writeJSON(w, http.StatusOK, out.close())
}

// allNames lists the models of the table, and in place of an entry for all
// others what its upstream lists.
func (p *Proxy) allNames(ctx context.Context) []string {
	var names []string
	for _, name := range p.ModelNames() {
		if name != AnyModel {
			names = append(names, name)
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		for _, u := range p.models.Load().find(AnyModel).candidates(time.Now())[:1] {
			body, err := p.ask(ctx, u)
			if err != nil {
				p.log.Debug("an upstream does not list its models", "upstream", u.APIBase, "error", err)
			}
			for m := range body.Get("data").Elements() {
				names = append(names, m.Get("id").Text())
			}
		}
	}
	return names
}

func (p *Proxy) oneModel(w http.ResponseWriter, escaped string, speaks protocol) {
	name, err := url.PathUnescape(escaped)
	if err != nil || p.models.Load().find(name) == nil {
		refuse(w, speaks, &refusal{status: http.StatusNotFound, kind: "not_found_error", msg: "there is no model " + escaped})
		return
	}
	writeJSON(w, http.StatusOK, modelInfo(name, speaks))
}

func modelInfo(name string, speaks protocol) rawjson.Value {
	var o object
	o.text("id", name)
	if speaks == anthropic {
		o.text("type", "model")
		o.text("display_name", name)
		o.text("created_at", "1970-01-01T00:00:00Z")
	} else {
		o.text("object", "model")
		o.int("created", 0)
		o.text("owned_by", "aglq")
	}
	return o.close()
}
