package react_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/react"
)

// told runs one step with one call and gives what the call was told.
func told(t *testing.T, opts react.Options, name, arguments string) react.ToolCall {
	t.Helper()
	o := newRig(t, sequence(calls("a", name, arguments), says("done")), opts).succeed(`{"question":"go","files":{"dir/seed.txt":"42"}}`)
	return o.conv.Turns[0].Steps[0].Calls[0]
}

func TestPrograms(t *testing.T) {
	sh := func(script string) react.Options {
		return react.Options{Sandbox: react.Folder{}, Tools: []react.Tool{{
			Name: "sh", MaxResult: 24, Parameters: rawjson.Value(`{"type":"object"}`),
			Run: react.Program{Command: []string{"sh", "-c", script}, Env: []string{"MINE=own"}}.Run,
		}}}
	}
	for name, c := range map[string]struct{ script, arguments, want string }{
		"arguments on standard input": {`cat`, `{"a":1.0, "b":"x"}`, `{"a":1.0,"b":"x"}`},
		"input never read":            {`exec 0<&-; echo yes`, `{"x":"` + strings.Repeat("y", 1<<20) + `"}`, "yes\n"},
		"silence":                     {`true`, `{}`, ""},
		"the environment":             {`echo $AGL_TOOL_NAME $AGL_CALL_ID $MINE`, `{}`, "sh a own\n"},
		"the session":                 {`echo ${#AGL_SESSION_ID}; cat dir/seed.txt`, `{}`, "36\n42"},
		"too much":                    {`yes | head -c 1000000`, `{}`, strings.Repeat("y\n", 12) + "\n… (cut after 24 bytes)"},
		"cut within a character":      {`printf 'aaaaaaaaaaaaaaaaaaaaaaaöü'`, `{}`, "aaaaaaaaaaaaaaaaaaaaaaa\n… (cut after 24 bytes)"},
		"no UTF-8":                    {`printf '\377x'`, `{}`, "\uFFFDx"},
		"a failure":                   {`echo out; echo why >&2; exit 3`, `{}`, "Error: exit status 3"},
		"a signal":                    {`kill -9 $$`, `{}`, "Error: signal: killed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := told(t, sh(c.script), "sh", c.arguments)
			failed := strings.HasPrefix(c.want, "Error: ")
			if got.Failed != failed || !failed && got.Result != c.want || failed && !strings.HasPrefix(got.Result, c.want) {
				t.Errorf("failed %v with %q, want %q", got.Failed, got.Result, c.want)
			}
		})
	}
	t.Run("no such program", func(t *testing.T) {
		t.Parallel()
		got := told(t, react.Options{Tools: []react.Tool{{Name: "x", Run: react.Program{Command: []string{"no-such-program"}}.Run}}}, "x", "{}")
		if !got.Failed || !strings.Contains(got.Result, "no-such-program") {
			t.Errorf("%+v", got)
		}
	})
}

func TestTheEndOfACallEndsAProgramsFamily(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/pids"
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		p := react.Program{Command: []string{"sh", "-c", waiting}, Env: []string{"PIDS=" + file}}
		_, err := p.Run(ctx, react.Call{ID: "a", Tool: "wait", Arguments: rawjson.EmptyObject, MaxResult: 100})
		ended <- err
	}()
	_, pids := family(t, file)
	cancel(enough)
	if err := <-ended; !errors.Is(err, enough) {
		t.Error(err)
	}
	for _, pid := range pids {
		until(t, "the end of a tool's child", func() bool { return !alive(pid) })
	}
}

func TestEndpoints(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s %s %s", r.Method, body, r.Header.Get("X-Key"), r.Header.Get("Aglq-Call-Id"), r.Header.Get("Content-Type"))
		case "/query":
			fmt.Fprint(w, r.URL.RawQuery)
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		case "/long":
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
		case "/break":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
		case "/hang":
			_, _ = io.Copy(io.Discard, r.Body) // or the server would not see the client leave
			<-r.Context().Done()
		default:
			http.Error(w, "nobody home", http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	for name, c := range map[string]struct{ path, method, arguments, want string }{
		"post":       {"/echo", "", `{"a": 1}`, `POST {"a":1} secret a application/json`},
		"put":        {"/echo", "PUT", `{}`, `PUT {} secret a application/json`},
		"get":        {"/query?fixed=1", "GET", `{"q":"a b","n":2,"l":[1,"x"],"none":null}`, `fixed=1&l=%5B1%2C%22x%22%5D&n=2&none=&q=a+b`},
		"no content": {"/empty", "", `{}`, ""},
		"long":       {"/long", "", `{}`, strings.Repeat("x", 100) + "\n… (cut after 100 bytes)"},
		"a status":   {"/nowhere", "", `{}`, "Error: 404 Not Found: nobody home\n"},
		"broken":     {"/break", "", `{}`, "Error: reading the answer of "},
		"hangs":      {"/hang", "", `{}`, "Error: the tool did not answer within 500ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := react.Endpoint{URL: server.URL + c.path, Method: c.method, Header: http.Header{"X-Key": {"secret"}}}
			timeout := react.DefaultToolTimeout
			if name == "hangs" {
				timeout = 500 * time.Millisecond
			}
			got := told(t, react.Options{Tools: []react.Tool{{
				Name: "http", MaxResult: 100, Timeout: timeout, Parameters: rawjson.Value(`{"type":"object"}`), Run: e.Run,
			}}}, "http", c.arguments)
			if name == "broken" && strings.HasPrefix(got.Result, c.want) {
				return
			}
			if got.Result != c.want || got.Failed != strings.HasPrefix(c.want, "Error") {
				t.Errorf("failed %v with %q, want %q", got.Failed, got.Result, c.want)
			}
		})
	}
}

// stdioServer is the test binary as an MCP server.
func stdioServer(t *testing.T) react.MCPServer {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	return react.MCPServer{Command: []string{self}, Env: []string{mcpServerProcess + "=1"}, Prefix: "p_"}
}

func TestMCPServers(t *testing.T) {
	overHTTP := serveMCPOverHTTP(t)
	for name, server := range map[string]react.MCPServer{
		"stdio": stdioServer(t),
		"http":  {URL: overHTTP.URL, Header: http.Header{"Authorization": {"Bearer password"}}, Prefix: "p_"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hanging := server
			server.Only, hanging.Only = []string{"add", "fail", "silent", "picture", "structured"}, []string{"hang"}
			hanging.Timeout = 200 * time.Millisecond
			o := newRig(t, sequence(
				calls("a", "p_add", `{"a":1,"b":2}`, "b", "p_add", `{"a":"x"}`, "c", "p_fail", `{}`, "d", "p_silent", `{}`, "e", "p_picture", `{}`,
					"f", "p_structured", ``, "g", "p_hang", `{}`),
				says("done"),
			), react.Options{MCP: []react.MCPServer{server, hanging}}).succeed(`"go"`)
			var got []string
			for _, c := range o.conv.Turns[0].Steps[0].Calls {
				got = append(got, c.Result)
			}
			want := []string{
				"3", `Error: the arguments do not fit the tool's parameters: validating root: validating /properties/a: type: x has type "string", want "integer"`,
				"Error: no luck", "", "[an image, image/png, 3 bytes]\na cat", `{"a":1}`, "Error: the tool did not answer within 200ms",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			converts(t, o)
		})
	}
}

func TestMCPServerThatDiesIsStartedAgain(t *testing.T) {
	t.Parallel()
	o := newRig(t, sequence(calls("a", "p_die", `{}`), calls("b", "p_add", `{"a":1,"b":1}`), says("done")),
		react.Options{MCP: []react.MCPServer{stdioServer(t)}}).succeed(`"go"`)
	steps := o.conv.Turns[0].Steps
	if !steps[0].Calls[0].Failed || steps[1].Calls[0].Result != "2" {
		t.Errorf("%+v", steps)
	}
}

func TestMCPServersThatAreOfNoUse(t *testing.T) {
	broken := stdioServer(t)
	broken.Env = []string{mcpServerProcess + "=broken"}
	missing := stdioServer(t)
	missing.Only = []string{"add", "subtract"}
	for name, c := range map[string]struct {
		server react.MCPServer
		want   string
	}{
		"dies":          {broken, "there is no licence"},
		"no program":    {react.MCPServer{Command: []string{"no-such-program"}}, "no-such-program"},
		"no way":        {react.MCPServer{}, "neither a command nor a URL"},
		"refuses":       {react.MCPServer{URL: serveMCPOverHTTP(t).URL}, "Unauthorized"},
		"lacks a tool":  {missing, "it has no tools subtract"},
		"nobody there":  {react.MCPServer{URL: "http://127.0.0.1:1"}, "connection refused"},
		"not a program": {react.MCPServer{Command: []string{"true"}}, "exit status 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := react.New(context.Background(), react.Options{MCP: []react.MCPServer{c.server}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if a != nil {
				t.Error("there is an agent")
			}
		})
	}
}

func TestAToolsConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int32
	gate := make(chan struct{})
	tool := react.Tool{Name: "slow", Concurrency: 2, Parameters: rawjson.Value(`{"type":"object"}`), Run: func(context.Context, react.Call) (string, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		gate <- struct{}{}
		return "", nil
	}}
	r := newRig(t, sequence(
		calls("a", "slow", `{"a":1}`, "b", "slow", `{"a":2}`, "c", "slow", `{"a":3}`, "d", "slow", `{"a":4}`, "e", "slow", `{"a":5}`, "f", "slow", `{"a":6}`),
		says("done"),
	), react.Options{Tools: []react.Tool{tool}})
	var pulling sync.WaitGroup
	pulling.Go(func() {
		for range 6 {
			until(t, "two at a time, or the last", func() bool { return now.Load() > 0 })
			<-gate
		}
	})
	r.succeed(`"go"`)
	pulling.Wait()
	if most.Load() != 2 {
		t.Errorf("%d calls at a time", most.Load())
	}
}

func TestToolsThatCannotBe(t *testing.T) {
	run := func(context.Context, react.Call) (string, error) { return "", nil }
	for name, c := range map[string]struct {
		tools []react.Tool
		want  string
	}{
		"a name with a dot": {[]react.Tool{{Name: "a.b", Run: run}}, `"a.b"`},
		"no name":           {[]react.Tool{{Run: run}}, `""`},
		"two of a name":     {[]react.Tool{{Name: "a", Run: run}, {Name: "a", Run: run}}, "two tools a"},
		"no schema":         {[]react.Tool{{Name: "a", Run: run, Parameters: rawjson.Value(`{"type":1}`)}}, "parameters of the tool a"},
		"a remote schema":   {[]react.Tool{{Name: "a", Run: run, Parameters: rawjson.Value(`{"$ref":"http://example.com/x"}`)}}, "parameters of the tool a"},
		"a bad bound":       {[]react.Tool{{Name: "a", Run: run, Concurrency: -1}}, "must not be negative"},
		"nothing runs it":   {[]react.Tool{{Name: "a"}}, "neither how it runs nor is there a sandbox"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := react.New(context.Background(), react.Options{Tools: c.tools})
			if queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	type bad struct {
		C chan int `json:"c"`
	}
	if _, err := react.Func("x", "", func(context.Context, bad) (string, error) { return "", errors.New("never") }); queue.KindOf(err) != queue.Invalid {
		t.Errorf("%v", err)
	}
}
