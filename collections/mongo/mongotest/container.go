package mongotest

import (
	"context"
	"fmt"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// startContainer runs a server in a container. The set's only member knows
// itself by an address inside the container, so clients connect directly.
func startContainer() (uri string, stop func(), err error) {
	defer func() {
		// The library panics where there is no container engine at all.
		if p := recover(); p != nil {
			err = fmt.Errorf("no container engine: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		ContainerRequest: testcontainers.ContainerRequest{
			Image:        "mongo:7.0",
			Cmd:          []string{"--replSet", "aglq", "--bind_ip_all", "--wiredTigerCacheSizeGB", "0.5"},
			ExposedPorts: []string{"27017/tcp"},
			WaitingFor:   wait.ForListeningPort("27017/tcp"),
		},
		Started: true,
	})
	if err != nil {
		return "", nil, err
	}
	stop = func() { _ = testcontainers.TerminateContainer(c) }
	endpoint, err := c.PortEndpoint(ctx, "27017/tcp", "")
	if err == nil {
		uri = "mongodb://" + endpoint + "/?directConnection=true"
		err = initiate(ctx, uri)
	}
	if err != nil {
		stop()
		return "", nil, err
	}
	return uri, stop, nil
}

func initiate(ctx context.Context, uri string) error {
	client, err := driver.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	config := bson.D{{Key: "_id", Value: "aglq"}, {Key: "members", Value: bson.A{
		bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: "127.0.0.1:27017"}},
	}}}
	if err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err(); err != nil {
		return err
	}
	for {
		var hello struct {
			Writable bool `bson:"isWritablePrimary"`
		}
		err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
		if err != nil || hello.Writable {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
