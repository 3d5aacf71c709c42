package react_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/react"
)

const (
	// mcpServerProcess makes the test binary an MCP server.
	mcpServerProcess = "AGLQ_TEST_MCP_SERVER"
	// workerProcess makes it a worker whose one task talks to the model at this URL.
	workerProcess = "AGLQ_TEST_WORKER"
)

type addition struct {
	A int `json:"a"`
	B int `json:"b,omitempty"`
}

// mcpServer is a real server with a few tools.
func mcpServer() *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	text := func(t string) *mcp.CallToolResult {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: t}}}
	}
	mcp.AddTool(s, &mcp.Tool{Name: "add", Description: "adds"}, func(_ context.Context, _ *mcp.CallToolRequest, in addition) (*mcp.CallToolResult, any, error) {
		return text(fmt.Sprint(in.A + in.B)), nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "fail"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return nil, nil, fmt.Errorf("no luck")
	})
	mcp.AddTool(s, &mcp.Tool{Name: "silent"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{}}, nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "picture"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.ImageContent{Data: []byte("abc"), MIMEType: "image/png"}, &mcp.TextContent{Text: "a cat"}}}, nil, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "structured"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, addition, error) {
		return nil, addition{A: 1}, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "hang"}, func(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		<-ctx.Done()
		return nil, nil, ctx.Err()
	})
	mcp.AddTool(s, &mcp.Tool{Name: "die"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		os.Exit(3)
		return nil, nil, nil
	})
	return s
}

// serveMCP serves it by standard input and output; "broken" dies at once.
func serveMCP() int {
	if os.Getenv(mcpServerProcess) == "broken" {
		fmt.Fprintln(os.Stderr, "there is no licence")
		return 7
	}
	if err := mcpServer().Run(context.Background(), &mcp.StdioTransport{}); err != nil && !strings.Contains(err.Error(), "closed") {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serveMCPOverHTTP serves it by streamable HTTP, to those who know the password.
func serveMCPOverHTTP(t tester) *httptest.Server {
	h := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return mcpServer() }, nil)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer password" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// runWorkerProcess runs one task in a sandbox until it is killed.
func runWorkerProcess() int {
	ctx := context.Background()
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	if _, err := s.Enqueue(ctx, []queue.Request{{Input: rawjson.Value(`{"question":"go","files":{"seed":"1"}}`)}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	a, err := react.New(ctx, react.Options{
		Tools:   []react.Tool{{Name: "wait", Run: react.Program{Command: []string{"sh", "-c", waiting}}.Run}},
		Sandbox: react.Folder{},
		LLM: func(*worker.Task) (*llmclient.Client, error) {
			return &llmclient.Client{BaseURL: os.Getenv(workerProcess), Model: "m"}, nil
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_ = worker.New(s, a.Handle, worker.Options{Logger: quiet}).Run(ctx) // until killed
	return 0
}

// waiting is a tool that ends with its whole family only when it is made to: it leaves
// its folder and its processes in $PIDS.
const waiting = `(trap "" TERM; while :; do sleep 1; done) & echo $PWD $$ $! > "$PIDS.new"; mv "$PIDS.new" "$PIDS"; wait`
