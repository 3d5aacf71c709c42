package mongotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// startTimeout bounds the start of a server until it takes writes, on a slow
// and busy machine.
const startTimeout = 60 * time.Second

// findMongod returns "" when there is none.
func findMongod() string {
	if path := os.Getenv("AGLQ_MONGOD"); path != "" {
		return path
	}
	if path, err := exec.LookPath("mongod"); err == nil {
		return path
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	path := filepath.Join(cache, "aglq", "mongod")
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return ""
	}
	return path
}

// Server is a mongod process that is the only member of a replica set.
type Server struct {
	binary string
	dir    string
	port   int
	uri    string
	run    *process
}

// process is one run of the mongod.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has been waited for
}

// startServer tries several ports: another process may take one first.
func startServer(binary string) (*Server, error) {
	dir, err := os.MkdirTemp("", "aglq-mongod-")
	if err != nil {
		return nil, err
	}
	s := &Server{binary: binary, dir: dir}
	for range 5 {
		if s.port, err = freePort(); err != nil {
			break
		}
		s.uri = fmt.Sprintf("mongodb://127.0.0.1:%d/?replicaSet=aglq", s.port)
		if err = s.start(); err == nil {
			return s, nil
		}
	}
	_ = os.RemoveAll(dir)
	return nil, err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// URI is the address to connect to.
func (s *Server) URI() string { return s.uri }

// Kill ends the server at once, as a crash would, and returns when it is gone.
func (s *Server) Kill() {
	if s.run == nil {
		return
	}
	_ = s.run.cmd.Process.Kill()
	<-s.run.ended
	s.run = nil
}

// Restart starts a killed server again on its data and port, and returns when
// it takes writes.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		t.Fatalf("restarting mongod: %v", err)
	}
}

func (s *Server) close() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}

func (s *Server) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	data := filepath.Join(s.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	log := filepath.Join(s.dir, "mongod.log")
	run, err := launch(exec.Command(s.binary,
		"--replSet", "aglq", "--dbpath", data, "--port", strconv.Itoa(s.port), "--bind_ip", "127.0.0.1",
		"--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "256", "--nounixsocket", "--logpath", log, "--logappend",
		"--setParameter", "diagnosticDataCollectionEnabled=false"))
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.binary, err)
	}
	s.run = run
	if err := s.ready(ctx); err != nil {
		s.Kill()
		return fmt.Errorf("%w; mongod's last words: %s", err, tail(log))
	}
	return nil
}

// launch starts cmd so that it dies with this process, even a killed one. The
// kernel watches the thread that started it, so that thread stays until the end.
func launch(cmd *exec.Cmd) (*process, error) {
	dieWithParent(cmd)
	p := &process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.ended)
		}
	}()
	return p, <-started
}

// ready initiates the set if it is new and waits until it takes writes.
func (s *Server) ready(ctx context.Context) error {
	host := fmt.Sprintf("127.0.0.1:%d", s.port)
	client, err := driver.Connect(options.Client().ApplyURI("mongodb://" + host + "/?directConnection=true").
		SetServerSelectionTimeout(time.Second))
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	admin := client.Database("admin")
	config := bson.D{{Key: "replSetInitiate", Value: bson.D{
		{Key: "_id", Value: "aglq"},
		{Key: "members", Value: bson.A{bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: host}}}},
	}}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for initiated := false; ; {
		var hello struct {
			SetName  string `bson:"setName"`
			Writable bool   `bson:"isWritablePrimary"`
		}
		last = admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
		switch {
		case last == nil && hello.Writable:
			return nil
		case last == nil && hello.SetName == "" && !initiated:
			err := admin.RunCommand(ctx, config).Err()
			var refused driver.CommandError
			initiated = err == nil || (errors.As(err, &refused) && refused.Name == "AlreadyInitialized")
			last = err
		}
		select {
		case <-tick.C:
		case <-s.run.ended:
			return errors.New("mongod has ended")
		case <-ctx.Done():
			return fmt.Errorf("mongod took no writes within %v: %w", startTimeout, errors.Join(last, ctx.Err()))
		}
	}
}

func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "none"
	}
	text = bytes.TrimSpace(text)
	return string(text[max(0, len(text)-1500):])
}
