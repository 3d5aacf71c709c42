package benchmarks

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aglq/aglq/internal/child"
)

// Process is a server that the benchmark started.
type Process struct {
	URL string
	PID int
	cmd *exec.Cmd
	end chan error
	log *child.Tail
}

// StartServer starts command, in which {port} stands for a free port, and waits
// until GET path on that port answers 200.
func StartServer(ctx context.Context, command []string, path string) (*Process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	args := ReplaceAll(command, map[string]string{"{port}": strconv.Itoa(port)})
	p := &Process{URL: "http://127.0.0.1:" + strconv.Itoa(port), end: make(chan error, 1), log: &child.Tail{Most: 2000}}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = own()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", args[0], err)
	}
	p.PID = p.cmd.Process.Pid
	go func() { p.end <- p.cmd.Wait() }()

	deadline := time.Now().Add(60 * time.Second)
	for {
		if answers(ctx, p.URL+path) {
			return p, nil
		}
		select {
		case err := <-p.end:
			p.end <- err
			return nil, fmt.Errorf("%s ended before it served: %v: %s", args[0], err, p.log.Bytes())
		case <-ctx.Done():
			p.Stop()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.Stop()
			return nil, fmt.Errorf("%s did not answer %s within 60 s: %s", args[0], path, p.log.Bytes())
		}
	}
}

// Stop ends the server, by force if it has not gone after 10 s.
func (p *Process) Stop() {
	syscall.Kill(-p.PID, syscall.SIGTERM)
	select {
	case err := <-p.end:
		p.end <- err
	case <-time.After(10 * time.Second):
		syscall.Kill(-p.PID, syscall.SIGKILL)
		p.end <- <-p.end
	}
}

// ReplaceAll puts values in the place of names in every word.
func ReplaceAll(words []string, values map[string]string) []string {
	out := slices.Clone(words)
	for i := range out {
		for name, value := range values {
			out[i] = strings.ReplaceAll(out[i], name, value)
		}
	}
	return out
}

func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("cannot find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
