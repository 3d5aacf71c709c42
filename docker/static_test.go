package docker_test

import (
	"bufio"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// TestStaticBinary builds the binary without C, as the image does, and runs a
// store in a folder that holds nothing else.
func TestStaticBinary(t *testing.T) {
	root := t.TempDir()
	binary := filepath.Join(root, "aglq")
	build := exec.Command("go", "build", "-o", binary, "../cmd/aglq")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary wants a dynamic linker")
		}
	}

	store := confined(root, "store", "--host", "127.0.0.1", "--port", "0")
	log, err := store.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Start(); err != nil {
		t.Skipf("the binary is static; this machine lets nobody change the root folder, so it was not run in an empty one: %v", err)
	}
	defer func() {
		_ = store.Process.Kill()
		_ = store.Wait()
	}()
	url := listeningURL(t, log)
	if out, err := confined(root, "store", "healthcheck", "--url", url).CombinedOutput(); err != nil {
		t.Errorf("healthcheck: %v: %s", err, out)
	}
	if err := store.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _ = store.Wait(); store.ProcessState.ExitCode() != 143 {
		t.Errorf("the store ended with status %d", store.ProcessState.ExitCode())
	}
}

// confined runs the binary with root as its root folder: by right, or in a user
// namespace of its own.
func confined(root string, args ...string) *exec.Cmd {
	cmd := exec.Command("/aglq", args...)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

var listening = regexp.MustCompile(`msg=listening .*address=(\S+)`)

// listeningURL reads a store's log up to the line that says where it listens,
// and goes on reading so that the store is not held up.
func listeningURL(t *testing.T, log io.Reader) string {
	t.Helper()
	found := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
		close(found)
	}()
	select {
	case address, ok := <-found:
		if !ok {
			t.Fatal("the store ended without listening")
		}
		return "http://" + address
	case <-time.After(time.Minute):
		t.Fatal("the store does not say where it listens")
	}
	return ""
}
