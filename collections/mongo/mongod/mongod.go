// Package mongod runs MongoDB servers of this process's own: replica sets on
// the loopback interface, in temporary folders, whose members can be killed,
// restarted and made to step down. Tests and aglq verify use it; their servers
// end with the process.
package mongod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aglq/aglq/internal/child"
)

// HowTo says what to do where no mongod is found.
const HowTo = "run scripts/get-mongod once, or set AGLQ_MONGOD to a mongod"

// readyTimeout bounds the start of a set until it takes writes, on a slow and
// busy machine.
const readyTimeout = 60 * time.Second

// replicaSet is the name of every set.
const replicaSet = "aglq"

// Find is the path of a mongod: AGLQ_MONGOD, the one on PATH, or the one that
// scripts/get-mongod keeps; "" when there is none.
func Find() string {
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

// Options says what to start.
type Options struct {
	// Binary is the mongod; "" is the one that Find finds.
	Binary string
	// Members is the size of the set; 0 is 1.
	Members int
	// Advertise gives the address by which clients and the other members are to
	// reach the member that listens on addr: that of a proxy, say. Nil is addr.
	Advertise func(addr string) (string, error)
}

// Set is a running replica set. Its methods are safe for concurrent use, but
// what Kill, Restart and StepDown do to one member excludes each other's
// promises.
type Set struct {
	members []*member
	dir     string
}

// member is one mongod of a set.
type member struct {
	binary  string
	addr    string // it listens on
	known   string // by which others reach it
	data    string
	logPath string

	mu  sync.Mutex
	run *child.Process // nil while it is dead
}

// Start runs a set and returns when it takes writes. It tries several ports:
// another process may take one first.
func Start(ctx context.Context, o Options) (*Set, error) {
	binary := cmp.Or(o.Binary, Find())
	if binary == "" {
		return nil, errors.New("there is no mongod to start; " + HowTo)
	}
	if o.Advertise == nil {
		o.Advertise = func(addr string) (string, error) { return addr, nil }
	}
	var err error
	for range 5 {
		var s *Set
		if s, err = start(ctx, binary, max(1, o.Members), o.Advertise); err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func start(ctx context.Context, binary string, members int, advertise func(string) (string, error)) (*Set, error) {
	dir, err := os.MkdirTemp("", "aglq-mongod-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for mongod's data: %w", err)
	}
	s := &Set{dir: dir}
	for i := range members {
		m := &member{
			binary: binary, data: filepath.Join(dir, "data-"+strconv.Itoa(i)),
			logPath: filepath.Join(dir, fmt.Sprintf("mongod-%d.log", i)),
		}
		if m.addr, err = freeAddr(); err == nil {
			m.known, err = advertise(m.addr)
		}
		if err == nil {
			s.members = append(s.members, m)
			err = m.start()
		}
		if err != nil {
			s.Close()
			return nil, err
		}
	}
	if err := s.initiate(ctx); err != nil {
		err = fmt.Errorf("%w; mongod's last words: %s", err, s.members[0].lastWords())
		s.Close()
		return nil, err
	}
	return s, nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// URI is the address to connect to.
func (s *Set) URI() string {
	hosts := make([]string, len(s.members))
	for i, m := range s.members {
		hosts[i] = m.known
	}
	return "mongodb://" + strings.Join(hosts, ",") + "/?replicaSet=" + replicaSet
}

// Members is the size of the set, dead members included.
func (s *Set) Members() int { return len(s.members) }

// Kill ends member i at once, as a crash would, and returns when it is gone.
func (s *Set) Kill(i int) { s.members[i].kill() }

// Restart kills member i if it runs, starts it on its data and address, and
// returns when the set takes writes.
func (s *Set) Restart(ctx context.Context, i int) error {
	s.members[i].kill()
	if err := s.members[i].start(); err != nil {
		return err
	}
	return s.Ready(ctx)
}

// Close ends all members and removes their data.
func (s *Set) Close() {
	for _, m := range s.members {
		m.kill()
	}
	_ = os.RemoveAll(s.dir)
}

func (m *member) start() error {
	if err := os.MkdirAll(m.data, 0o700); err != nil {
		return fmt.Errorf("making a folder for mongod's data: %w", err)
	}
	_, port, _ := net.SplitHostPort(m.addr) // our own
	run, err := child.Start(exec.Command(m.binary,
		"--replSet", replicaSet, "--dbpath", m.data, "--port", port, "--bind_ip", "127.0.0.1",
		"--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "256", "--nounixsocket", "--logpath", m.logPath, "--logappend",
		"--setParameter", "diagnosticDataCollectionEnabled=false"))
	if err != nil {
		return fmt.Errorf("starting %s: %w", m.binary, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.run = run
	return nil
}

func (m *member) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == nil {
		return
	}
	m.run.Kill()
	m.run = nil
}

// ended reports whether the process is gone without having been killed.
func (m *member) ended() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.run != nil && m.run.Ended()
}

func (m *member) alive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.run != nil
}

func (m *member) lastWords() string {
	text, err := os.ReadFile(m.logPath)
	if err != nil {
		return "none"
	}
	return strings.TrimSpace(string(text[max(0, len(text)-1500):]))
}
