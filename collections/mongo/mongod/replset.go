package mongod

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// hello is what a member says of itself.
type hello struct {
	SetName  string `bson:"setName"`
	Writable bool   `bson:"isWritablePrimary"`
}

// admin runs commands on one member, whatever its place in the set.
func (m *member) admin(ctx context.Context, do func(db *driver.Database) error) error {
	client, err := driver.Connect(options.Client().ApplyURI("mongodb://" + m.addr + "/?directConnection=true").
		SetServerSelectionTimeout(time.Second))
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	return do(client.Database("admin"))
}

// initiate makes a set of the members and waits until it takes writes. An
// election is held 2 s after a primary is lost.
func (s *Set) initiate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	members := bson.A{}
	for i, m := range s.members {
		members = append(members, bson.D{{Key: "_id", Value: i}, {Key: "host", Value: m.known}})
	}
	config := bson.D{{Key: "replSetInitiate", Value: bson.D{
		{Key: "_id", Value: replicaSet}, {Key: "members", Value: members},
		{Key: "settings", Value: bson.D{{Key: "electionTimeoutMillis", Value: 2000}, {Key: "heartbeatIntervalMillis", Value: 500}}},
	}}}
	for _, m := range s.members {
		if err := m.answers(ctx); err != nil {
			return err
		}
	}
	err := s.members[0].admin(ctx, func(db *driver.Database) error { return db.RunCommand(ctx, config).Err() })
	if err != nil {
		return fmt.Errorf("making a replica set: %w", err)
	}
	return s.Ready(ctx)
}

// answers waits until the member answers at all.
func (m *member) answers(ctx context.Context) error {
	return m.admin(ctx, func(db *driver.Database) error {
		return until(ctx, func() (bool, error) {
			if m.ended() {
				return false, errors.New("mongod has ended")
			}
			var h hello
			return db.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&h) == nil, nil
		})
	})
}

// Ready waits until the set has a primary that takes writes, a minute at most.
func (s *Set) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := until(ctx, func() (bool, error) {
		for _, m := range s.members {
			if m.ended() {
				return false, errors.New("mongod has ended")
			}
		}
		i, err := s.Primary(ctx)
		return err == nil && i >= 0, nil
	})
	if err != nil {
		return fmt.Errorf("mongod takes no writes: %w", err)
	}
	return nil
}

// Primary is the number of the member that takes writes, -1 when there is none
// at the moment.
func (s *Set) Primary(ctx context.Context) (int, error) {
	for i, m := range s.members {
		if !m.alive() {
			continue
		}
		var h hello
		err := m.admin(ctx, func(db *driver.Database) error {
			return db.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&h)
		})
		if ctx.Err() != nil {
			return -1, ctx.Err()
		}
		if err == nil && h.Writable {
			return i, nil
		}
	}
	return -1, nil
}

// StepDown makes the primary a secondary for that time, whole seconds, and
// returns when it has stepped down. The only member of a set takes writes again
// after it; of several another one is elected.
func (s *Set) StepDown(ctx context.Context, rest time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	i, err := s.Primary(ctx)
	if err == nil && i < 0 {
		err = errors.New("the set has no primary")
	}
	if err == nil {
		seconds := max(1, int(rest/time.Second))
		command := bson.D{{Key: "replSetStepDown", Value: seconds}, {Key: "secondaryCatchUpPeriodSecs", Value: min(seconds, 5)},
			{Key: "force", Value: len(s.members) == 1}}
		if len(s.members) == 1 {
			command[1].Value = 0
		}
		err = s.members[i].admin(ctx, func(db *driver.Database) error { return db.RunCommand(ctx, command).Err() })
	}
	if err != nil {
		return fmt.Errorf("making the primary step down: %w", err)
	}
	return nil
}

// until polls a condition.
func until(ctx context.Context, holds func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
