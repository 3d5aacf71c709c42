package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/internal/sleep"
)

// Mongod is a MongoDB of the benchmark's own: one node, a replica set, its data
// in a temporary folder.
type Mongod struct {
	URI string
	PID int
	cmd *exec.Cmd
	dir string
}

// StartMongod starts the binary and waits until it takes writes.
func StartMongod(ctx context.Context, binary string) (*Mongod, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "aglq-bench-mongod-")
	if err != nil {
		return nil, err
	}
	m := &Mongod{
		URI: fmt.Sprintf("mongodb://127.0.0.1:%d/?replicaSet=rs0", port),
		cmd: exec.Command(binary, "--dbpath", dir, "--port", strconv.Itoa(port), "--bind_ip", "127.0.0.1",
			"--replSet", "rs0", "--wiredTigerCacheSizeGB", "1", "--logpath", dir+"/log"),
		dir: dir,
	}
	m.cmd.SysProcAttr = own()
	if err := m.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start %s: %w", binary, err), os.RemoveAll(dir))
	}
	m.PID = m.cmd.Process.Pid
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := initiate(ctx, port); err != nil {
		m.Stop()
		return nil, fmt.Errorf("cannot make a replica set of %s: %w", binary, err)
	}
	return m, nil
}

// Stop ends the server and removes its data.
func (m *Mongod) Stop() {
	// Nothing in it is worth a clean shutdown.
	m.cmd.Process.Signal(syscall.SIGKILL)
	m.cmd.Wait()
	os.RemoveAll(m.dir)
}

// initiate makes the server on port the only member of a replica set, and waits
// until it is the primary.
func initiate(ctx context.Context, port int) error {
	client, err := mongo.Connect(options.Client().ApplyURI(fmt.Sprintf("mongodb://127.0.0.1:%d/?directConnection=true", port)))
	if err != nil {
		return err
	}
	defer client.Disconnect(context.WithoutCancel(ctx))
	member := bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: fmt.Sprintf("127.0.0.1:%d", port)}}
	config := bson.D{{Key: "_id", Value: "rs0"}, {Key: "members", Value: bson.A{member}}}
	if err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err(); err != nil {
		return err
	}
	for {
		var hello struct {
			Primary bool `bson:"isWritablePrimary"`
		}
		if err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
			return err
		}
		if hello.Primary {
			return nil
		}
		if err := sleep.For(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
