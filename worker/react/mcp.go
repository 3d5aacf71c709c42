package react

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/aglq/aglq/internal/child"
	"github.com/aglq/aglq/queue/rawjson"
)

// MCPServer is a server of the Model Context Protocol, whose tools an agent has. All
// conversations share one connection, which is made anew when it breaks.
type MCPServer struct {
	// Command starts a server that is spoken to by its standard input and output. It
	// runs as long as the agent.
	Command []string
	Env     []string // "name=value", over the worker's own
	// URL is a server that speaks streamable HTTP, where there is no Command.
	URL    string
	Header http.Header // sent with each request

	// Prefix is put before the names of the server's tools.
	Prefix string
	// Only are the names of the tools to take, without the prefix; nil takes all.
	Only []string
	// Timeout, Concurrency and MaxResult are those of each of its tools.
	Timeout     time.Duration
	Concurrency int
	MaxResult   int
}

func (s *MCPServer) name() string {
	if len(s.Command) > 0 {
		return strings.Join(s.Command, " ")
	}
	return s.URL
}

// connectLimit bounds the making of a connection.
const connectLimit = 30 * time.Second

// mcpServer is a server in use.
type mcpServer struct {
	MCPServer
	life    context.Context // of the agent
	running *sync.WaitGroup // what must end with it

	// mu guards conn, which is nil for none. It is a channel with room for one, since
	// it is held while a connection is made and nobody is to wait longer than its task.
	mu   chan struct{}
	conn *mcpConn
}

// mcpConn is one connection.
type mcpConn struct {
	session *mcp.ClientSession
	stop    context.CancelFunc // ends the program
	ended   <-chan struct{}    // closed when the program has ended
}

// connect gives the connection, a new one if there is none.
func (s *mcpServer) connect(ctx context.Context) (*mcpConn, error) {
	select {
	case s.mu <- struct{}{}:
		defer func() { <-s.mu }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.conn != nil {
		return s.conn, nil
	}
	life, stop := context.WithCancel(s.life)
	conn := &mcpConn{stop: stop}
	transport, explain := s.transport(life, conn)
	limited, cancel := context.WithTimeout(life, connectLimit)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	client := mcp.NewClient(&mcp.Implementation{Name: "aglq", Version: "1"}, nil)
	session, err := client.Connect(limited, transport, nil)
	if err != nil {
		stop()
		return nil, explain(err)
	}
	conn.session, s.conn = session, conn
	return conn, nil
}

// transport is the way to the server. Explain adds to an error what the server said
// of it; the server must have been stopped.
func (s *mcpServer) transport(life context.Context, conn *mcpConn) (t mcp.Transport, explain func(error) error) {
	if len(s.Command) == 0 {
		client := &http.Client{Transport: headed{s.Header}}
		// What the server has to tell by itself is of no use here.
		return &mcp.StreamableClientTransport{Endpoint: s.URL, HTTPClient: client, DisableStandaloneSSE: true}, func(err error) error { return err }
	}
	input, toServer := io.Pipe()
	fromServer, output := io.Pipe()
	stderr := &child.Tail{Most: stderrTail}
	ended := make(chan struct{})
	conn.ended = ended
	var failed error
	s.running.Go(func() {
		defer close(ended)
		cmd := exec.Command(s.Command[0], s.Command[1:]...)
		cmd.Env = append(os.Environ(), s.Env...)
		var state *os.ProcessState
		state, failed = child.Run(life, cmd, child.Options{
			Feed: func(ctx context.Context, stdin io.WriteCloser) {
				defer context.AfterFunc(ctx, func() { input.Close() })()
				_, _ = io.Copy(stdin, input)
				_ = stdin.Close()
			},
			Stdout: output, Stderr: stderr, Grace: programGrace,
		})
		if failed == nil {
			failed = errors.New(state.String())
		}
		_ = input.Close()
		_ = output.Close()
	})
	return &mcp.IOTransport{Reader: fromServer, Writer: toServer}, func(err error) error {
		<-ended
		return fmt.Errorf("%w (%w) %s", err, failed, bytes.TrimSpace(stderr.Bytes()))
	}
}

// leaveLimit bounds telling a server that its session is over.
const leaveLimit = 5 * time.Second

// headed adds header fields to requests.
type headed struct{ header http.Header }

// RoundTrip implements http.RoundTripper.
func (h headed) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if req.Method == http.MethodDelete { // of the session, at the end
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, leaveLimit)
		defer cancel()
	}
	req = req.Clone(ctx)
	for key, values := range h.header {
		req.Header[key] = values
	}
	return http.DefaultTransport.RoundTrip(req)
}

// drop ends a connection that is of no more use. Where another task makes a connection
// for longer than ctx, this one has been dropped already.
func (s *mcpServer) drop(ctx context.Context, conn *mcpConn) {
	select {
	case s.mu <- struct{}{}:
		defer func() { <-s.mu }()
	case <-ctx.Done():
		return
	}
	if s.conn == conn {
		s.conn = nil
		s.running.Go(conn.close)
	}
}

// close ends a connection, and the program. That a server does not like to be left is
// of no consequence.
func (c *mcpConn) close() {
	_ = c.session.Close()
	c.stop()
	if c.ended != nil {
		<-c.ended
	}
}

func (s *mcpServer) close() {
	s.mu <- struct{}{}
	defer func() { <-s.mu }()
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

// tools lists the server's tools.
func (s *mcpServer) tools(ctx context.Context) ([]Tool, error) {
	if len(s.Command) == 0 && s.URL == "" {
		return nil, errors.New("it has neither a command nor a URL")
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	var tools []Tool
	missing := slices.Clone(s.Only)
	for t, err := range conn.session.Tools(limited, nil) {
		if err != nil {
			return nil, err
		}
		if s.Only != nil && !slices.Contains(s.Only, t.Name) {
			continue
		}
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == t.Name })
		parameters, err := rawjson.Marshal(t.InputSchema)
		if err != nil {
			return nil, fmt.Errorf("reading the parameters of the tool %s: %w", t.Name, err)
		}
		_, unreadable := compileSchema(parameters) // of a draft that only the server knows
		tools = append(tools, Tool{
			Name: s.Prefix + t.Name, Description: cmp.Or(t.Description, t.Title), Parameters: parameters,
			Timeout: s.Timeout, Concurrency: s.Concurrency, MaxResult: s.MaxResult, Unchecked: unreadable != nil,
			Run: func(ctx context.Context, c Call) (string, error) { return s.call(ctx, t.Name, c) },
		})
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("it has no tools %s", strings.Join(missing, ", "))
	}
	return tools, nil
}

// call makes a call. A connection that breaks is not the next call's.
func (s *mcpServer) call(ctx context.Context, name string, c Call) (string, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	res, err := conn.session.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: c.Arguments})
	if err != nil {
		var answered *jsonrpc.Error
		if ctx.Err() == nil && !errors.As(err, &answered) {
			s.drop(ctx, conn)
		}
		return "", err
	}
	text := contentText(res)
	if res.IsError {
		return "", errors.New(cmp.Or(text, "the tool failed"))
	}
	return text, nil
}

// contentText is what a model that reads text gets of a result.
func contentText(res *mcp.CallToolResult) string {
	var parts []string
	for _, c := range res.Content {
		switch c := c.(type) {
		case *mcp.TextContent:
			parts = append(parts, c.Text)
		case *mcp.ImageContent:
			parts = append(parts, fmt.Sprintf("[an image, %s, %d bytes]", c.MIMEType, len(c.Data)))
		case *mcp.AudioContent:
			parts = append(parts, fmt.Sprintf("[a sound, %s, %d bytes]", c.MIMEType, len(c.Data)))
		case *mcp.ResourceLink:
			parts = append(parts, fmt.Sprintf("[%s %s]", c.Name, c.URI))
		case *mcp.EmbeddedResource:
			if c.Resource != nil {
				parts = append(parts, cmp.Or(c.Resource.Text, fmt.Sprintf("[%s, %d bytes]", c.Resource.URI, len(c.Resource.Blob))))
			}
		}
	}
	if parts == nil && res.StructuredContent != nil {
		if v, err := rawjson.Marshal(res.StructuredContent); err == nil {
			return string(v)
		}
	}
	return strings.Join(parts, "\n")
}
