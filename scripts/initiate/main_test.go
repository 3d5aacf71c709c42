package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mongod starts one that is no member of anything, and returns its address.
func mongod(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../get-mongod").Output()
	if err != nil {
		t.Fatalf("finding a mongod: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	cmd := exec.Command(strings.TrimSpace(string(out)), append(args, "--dbpath", dir, "--port", strconv.Itoa(port),
		"--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64", "--logpath", log)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log); t.Failed() && err == nil {
			t.Logf("%.4000s", text)
		}
	})
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func TestInitiate(t *testing.T) {
	t.Parallel()
	host := mongod(t, "--replSet", "mine")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, when := range []string{"the first time", "once more"} {
		if set, err := initiate(ctx, host); err != nil || set != "mine" {
			t.Errorf("%s: set %q, %v", when, set, err)
		}
	}
}

func TestInitiateNeedsASet(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := initiate(ctx, mongod(t)); err == nil || !strings.Contains(err.Error(), "--replSet rs0") {
		t.Errorf("a mongod of its own: %v", err)
	}
}
