package mongobench

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/queue/store"
)

// Options say against what, and how long, the benchmarks run.
type Options struct {
	// URI is the MongoDB, a replica set on which nothing else happens.
	URI string
	// PIDs are processes of the database, to report what it costs; none is fine.
	PIDs []int
	// Aglq is the command that starts stores, an aglq binary.
	Aglq string
	// Reference is the reference's agl command; "" leaves it out.
	Reference string
	// Rounds is how often each thing is measured. 0 is 5.
	Rounds int
	// Duration is how long one measurement lasts. 0 is 2 s.
	Duration time.Duration
	// Claimers are the numbers of waiting workers. None is 1, 8, 64 and 128.
	Claimers []int
	// Stores are the numbers of store processes. None is 1, 2 and 4.
	Stores []int
	// Workers is how many drive whole lives. 0 is 32.
	Workers int
	// Rollouts is how many lives one measurement takes. 0 is 3000.
	Rollouts int
	// ReferenceRollouts is the same for the reference. 0 is 300.
	ReferenceRollouts int
	// Samples is how many wake-ups are timed a round. 0 is 200.
	Samples int
	// IdleWorkers wait at an empty queue. 0 is 1000.
	IdleWorkers int
	// IdleFor is how long they are watched: what happens once in some seconds has
	// to be seen. 0 is 15 s.
	IdleFor time.Duration
	// Posts is how many span posts are sent at once to one attempt. 0 is 50.
	Posts int
	// Progress, when not nil, is told of each measurement.
	Progress func(what string)
}

func (o *Options) fill() {
	o.Rounds = cmp.Or(o.Rounds, 5)
	o.Duration = cmp.Or(o.Duration, 2*time.Second)
	o.Workers = cmp.Or(o.Workers, 32)
	o.Rollouts = cmp.Or(o.Rollouts, 3000)
	o.ReferenceRollouts = cmp.Or(o.ReferenceRollouts, 300)
	o.Samples = cmp.Or(o.Samples, 200)
	o.IdleWorkers = cmp.Or(o.IdleWorkers, 1000)
	o.IdleFor = cmp.Or(o.IdleFor, 15*time.Second)
	o.Posts = cmp.Or(o.Posts, 50)
	if len(o.Claimers) == 0 {
		o.Claimers = []int{1, 8, 64, 128}
	}
	if len(o.Stores) == 0 {
		o.Stores = []int{1, 2, 4}
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
}

// Table is the outcome of one benchmark.
type Table interface {
	// WriteText prints it for people; encoding/json prints it for programs.
	WriteText(w io.Writer) error
}

// Benchmark is one of the benchmarks, by its name.
type Benchmark struct {
	Name  string
	About string
	run   func(*bench, context.Context) (Table, error)
}

// Benchmarks are all there are, in the order in which they run.
var Benchmarks = []Benchmark{
	{"claims", "claims a second beside a bare findOneAndUpdate", (*bench).claims},
	{"spans", "spans a second beside a bare insertMany of 100", (*bench).spans},
	{"stores", "one, two and four stores on one database", (*bench).stores},
	{"wakeups", "from enqueue to a waiting claim, from finish to a wait", (*bench).wakeups},
	{"idle", "what the database sees of workers that wait at an empty queue", (*bench).idle},
	{"contention", "concurrent span posts to one attempt", (*bench).contention},
	{"life", "whole lives over HTTP beside the reference", (*bench).life},
}

// Run runs one benchmark. It fails when a call fails, and when a rollout or a
// span is lost or doubled.
func Run(ctx context.Context, b Benchmark, o Options) (Table, error) {
	o.fill()
	client, err := driver.Connect(options.Client().ApplyURI(o.URI).SetMaxPoolSize(512))
	if err != nil {
		return nil, fmt.Errorf("reading the MongoDB URI: %w", err)
	}
	defer client.Disconnect(context.WithoutCancel(ctx))
	if err := client.Ping(ctx, nil); err != nil {
		return nil, fmt.Errorf("cannot reach the database: %w", err)
	}
	run := &bench{Options: o, client: client, log: slog.New(slog.DiscardHandler)}
	table, err := b.run(run, ctx)
	if err != nil {
		return nil, fmt.Errorf("benchmark %s: %w", b.Name, err)
	}
	return table, nil
}

// bench is one benchmark under way.
type bench struct {
	Options
	client *driver.Client
	log    *slog.Logger
}

// database makes a name, and a function that drops what is in it.
func (b *bench) database() (name string, drop func()) {
	name = "aglq_bench_" + strconv.FormatUint(rand.Uint64(), 36)
	return name, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = b.client.Database(name).Drop(ctx) // the next benchmark has another
	}
}

// open makes a store in this process, as aglq store would, without HTTP.
func (b *bench) open(ctx context.Context, database string) (*store.Store, error) {
	backend, err := mongo.Open(ctx, mongo.Options{URI: b.URI, Database: database, Logger: b.log})
	if err != nil {
		return nil, err
	}
	return store.New(backend, store.Options{
		ScanDebounce: store.DefaultScanDebounce, ScanInterval: store.DefaultScanInterval, Logger: b.log,
	}), nil
}

// bare is a collection for the driver alone, as safe as a store's.
func (b *bench) bare(database, name string) *driver.Collection {
	journal := true
	return b.client.Database(database).Collection(name,
		options.Collection().SetWriteConcern(&writeconcern.WriteConcern{W: "majority", Journal: &journal}))
}

// servers starts n stores on one database.
func (b *bench) servers(ctx context.Context, n int, database string) (_ []*benchmarks.Process, stop func(), err error) {
	var all []*benchmarks.Process
	stop = func() {
		for _, p := range all {
			p.Stop()
		}
	}
	for range n {
		p, err := benchmarks.StartServer(ctx, []string{
			b.Aglq, "store", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "WARNING",
			"--backend", "mongo", "--mongo-uri", b.URI, "--mongo-database", database,
		}, "/v1/agl/health")
		if err != nil {
			stop()
			return nil, nil, err
		}
		all = append(all, p)
	}
	return all, stop, nil
}

// counters are what the database has counted since its start.
type counters struct {
	committed, aborted, conflicts int64
	commands                      map[string]int64
}

func (b *bench) counters(ctx context.Context) (counters, error) {
	var status struct {
		Transactions struct {
			Committed int64 `bson:"totalCommitted"`
			Aborted   int64 `bson:"totalAborted"`
		} `bson:"transactions"`
		Metrics struct {
			Operation struct {
				Conflicts int64 `bson:"writeConflicts"`
			} `bson:"operation"`
			Commands map[string]bson.RawValue `bson:"commands"`
		} `bson:"metrics"`
	}
	if err := b.client.Database("admin").RunCommand(ctx, bson.D{{Key: "serverStatus", Value: 1}}).Decode(&status); err != nil {
		return counters{}, fmt.Errorf("asking the database for its counters: %w", err)
	}
	c := counters{
		committed: status.Transactions.Committed, aborted: status.Transactions.Aborted,
		conflicts: status.Metrics.Operation.Conflicts, commands: map[string]int64{},
	}
	for name, value := range status.Metrics.Commands {
		if value.Type != bson.TypeEmbeddedDocument { // <UNKNOWN> is a number
			continue
		}
		if total, err := value.Document().LookupErr("total"); err == nil {
			c.commands[name] = total.AsInt64()
		}
	}
	return c, nil
}

// since is what was counted after before.
func (c counters) since(before counters) counters {
	d := counters{
		committed: c.committed - before.committed, aborted: c.aborted - before.aborted,
		conflicts: c.conflicts - before.conflicts, commands: map[string]int64{},
	}
	for name, n := range c.commands {
		if more := n - before.commands[name]; more > 0 {
			d.commands[name] = more
		}
	}
	return d
}

// Sample is one thing measured over several rounds.
type Sample struct {
	Rates  []float64 `json:"rates"` // a second, one a round
	Median float64   `json:"median"`
	// P50 and P99 are the medians of the rounds, in milliseconds.
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	// Committed and Aborted are transactions; Conflicts are write conflicts that
	// the database saw, each of which it or the store repeated. All rounds.
	Committed int64 `json:"transactions_committed"`
	Aborted   int64 `json:"transactions_aborted"`
	Conflicts int64 `json:"write_conflicts"`
	p50, p99  []float64
}

// add adds a round.
func (s *Sample) add(rate float64, l benchmarks.Latency, d counters) {
	s.Rates, s.p50, s.p99 = append(s.Rates, rate), append(s.p50, l.P50), append(s.p99, l.P99)
	s.Median, s.P50, s.P99 = benchmarks.Median(s.Rates), benchmarks.Median(s.p50), benchmarks.Median(s.p99)
	s.Committed += d.committed
	s.Aborted += d.aborted
	s.Conflicts += d.conflicts
}

// spread is the least and the greatest rate.
func (s *Sample) spread() string {
	if len(s.Rates) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f-%.0f", slices.Min(s.Rates), slices.Max(s.Rates))
}
