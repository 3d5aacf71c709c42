package mongo

import (
	"cmp"
	"context"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	"github.com/aglq/aglq/queue"
)

// Server is the state of a MongoDB deployment as far as it matters to a store.
type Server struct {
	Version string
	// Set is the replica set's name, "" without one; Sharded is a mongos.
	Set     string
	Sharded bool
	// Initiated is false for a member of a set that has no configuration yet, and
	// Primary for one without a primary.
	Initiated, Primary bool
	Members            []Member // nil where the server does not tell
	// Ahead is how far its clock is ahead of this machine's, give or take Within.
	Ahead, Within time.Duration
	// Connections in use, and how many more it takes.
	Connections, Available int64
	// Profiling is the profiling level of the database: 2 logs every command.
	Profiling int64
	// Warnings are those of the server's own start.
	Warnings []string
}

// Member is one of a replica set.
type Member struct {
	Name, State string
	Health      float64 // 1 is up
}

// Examine looks at the deployment at uri without changing it, and needs neither
// a primary nor an initiated set. Database is as in [Options]. What the user may
// not see stays empty.
func Examine(ctx context.Context, uri, database string) (Server, error) {
	var s Server
	parsed, err := connstring.Parse(uri)
	if err != nil {
		return s, queue.Wrap(queue.Invalid, err, "reading the MongoDB URI")
	}
	o := options.Client().ApplyURI(uri).SetAppName(appName).SetServerSelectionTimeout(selectTimeout).SetTimeout(callTimeout)
	// One server by itself answers even where its set has no primary; the driver
	// would wait for one.
	o.SetDirect(len(o.Hosts) == 1)
	if len(o.Hosts) == 1 {
		o.ReplicaSet = nil
	}
	client, err := driver.Connect(o)
	if err != nil {
		return s, queue.Wrap(queue.Invalid, err, "connecting to MongoDB")
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }() // nothing is lost with it
	if err := s.hello(ctx, client); err != nil {
		return s, err
	}
	s.status(ctx, client)
	var profile struct {
		Was int64 `bson:"was"`
	}
	if run(ctx, client, cmp.Or(database, parsed.Database, DefaultDatabase), "profile", -1, &profile) == nil {
		s.Profiling = profile.Was
	}
	return s, nil
}

// run asks for a command's answer.
func run(ctx context.Context, client *driver.Client, database, command string, value, answer any) error {
	return client.Database(database).RunCommand(ctx, bson.D{{Key: command, Value: value}}).Decode(answer)
}

func (s *Server) hello(ctx context.Context, client *driver.Client) error {
	var hello struct {
		SetName string    `bson:"setName"`
		Message string    `bson:"msg"`
		Primary string    `bson:"primary"`
		Info    string    `bson:"info"`
		IsSet   bool      `bson:"isreplicaset"`
		Local   time.Time `bson:"localTime"`
	}
	// The first command makes the connection, which is no part of the journey.
	if err := run(ctx, client, "admin", "hello", 1, &hello); err != nil {
		return wrap(err, "asking MongoDB who it is")
	}
	began := time.Now()
	if err := run(ctx, client, "admin", "hello", 1, &hello); err != nil {
		return wrap(err, "asking MongoDB who it is")
	}
	took := time.Since(began)
	s.Ahead, s.Within = hello.Local.Sub(began.Add(took/2)), took/2+time.Millisecond
	s.Set, s.Sharded = hello.SetName, hello.Message == "isdbgrid"
	s.Initiated, s.Primary = hello.SetName != "", hello.Primary != "" || s.Sharded
	if hello.IsSet { // started as a member, without a configuration
		s.Set = "?"
	}
	return nil
}

// status reads what only a user with the right to may see.
func (s *Server) status(ctx context.Context, client *driver.Client) {
	var server struct {
		Version     string `bson:"version"`
		Connections struct {
			Current   int64 `bson:"current"`
			Available int64 `bson:"available"`
		} `bson:"connections"`
	}
	if run(ctx, client, "admin", "serverStatus", 1, &server) == nil {
		s.Version, s.Connections, s.Available = server.Version, server.Connections.Current, server.Connections.Available
	}
	var set struct {
		Members []struct {
			Name   string  `bson:"name"`
			State  string  `bson:"stateStr"`
			Health float64 `bson:"health"`
		} `bson:"members"`
	}
	if s.Initiated && run(ctx, client, "admin", "replSetGetStatus", 1, &set) == nil {
		for _, m := range set.Members {
			s.Members = append(s.Members, Member(m))
		}
	}
	var log struct {
		Lines []string `bson:"log"`
	}
	if run(ctx, client, "admin", "getLog", "startupWarnings", &log) == nil {
		for _, line := range log.Lines {
			s.Warnings = append(s.Warnings, message(line))
		}
	}
}

// message is the text of a line of the server's log, which is JSON.
func message(line string) string {
	var entry struct {
		Message string `bson:"msg"`
	}
	if bson.UnmarshalExtJSON([]byte(line), false, &entry) != nil || entry.Message == "" {
		return strings.TrimSpace(line)
	}
	return entry.Message
}
