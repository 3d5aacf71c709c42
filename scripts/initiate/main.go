// Command initiate makes a mongod that was started with --replSet the only
// member of its replica set, as rs.initiate() of mongosh does, for machines
// without mongosh. A set that exists is left as it is.
//
//	go run ./scripts/initiate [HOST:PORT]
//
// HOST:PORT, localhost:27017 when missing, is also the address at which clients
// will look for the member.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

func main() {
	host := "localhost:27017"
	if len(os.Args) > 1 {
		host = os.Args[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	set, err := initiate(ctx, host)
	if err != nil {
		fmt.Fprintln(os.Stderr, "initiate:", err)
		os.Exit(1)
	}
	fmt.Printf("mongodb://%s/?replicaSet=%s\n", host, set)
}

// initiate returns the name of the set once its member takes writes.
func initiate(ctx context.Context, host string) (set string, err error) {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + host + "/?directConnection=true"))
	if err != nil {
		return "", err
	}
	defer client.Disconnect(context.WithoutCancel(ctx))
	admin := client.Database("admin")
	// Without a configuration mongod takes the name it was started with, and
	// the machine's name for the member: that may not be an address it listens on.
	var started struct {
		Parsed struct {
			Replication struct {
				Set     string `bson:"replSet"`
				SetName string `bson:"replSetName"`
			}
		}
	}
	if err := admin.RunCommand(ctx, bson.D{{Key: "getCmdLineOpts", Value: 1}}).Decode(&started); err != nil {
		return "", fmt.Errorf("asking the mongod at %s how it was started: %w", host, err)
	}
	if set = started.Parsed.Replication.Set; set == "" {
		set = started.Parsed.Replication.SetName
	}
	if set == "" {
		return "", fmt.Errorf("the mongod at %s has no replica set: start it with --replSet rs0", host)
	}
	member := bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: host}}
	config := bson.D{{Key: "_id", Value: set}, {Key: "members", Value: bson.A{member}}}
	err = admin.RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err()
	var refused mongo.CommandError
	if err != nil && !(errors.As(err, &refused) && refused.Name == "AlreadyInitialized") {
		return "", fmt.Errorf("initiating replica set %s: %w", set, err)
	}
	return set, writable(ctx, admin)
}

// writable waits for the end of the election.
func writable(ctx context.Context, admin *mongo.Database) error {
	for {
		var hello struct {
			Primary bool `bson:"isWritablePrimary"`
		}
		err := admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
		if err != nil || hello.Primary {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the set has no primary: %w", ctx.Err())
		}
	}
}
