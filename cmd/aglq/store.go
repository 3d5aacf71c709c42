package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/metrics"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

func (a *app) storeCommand() *cli.Command {
	return &cli.Command{
		Name: "store", Usage: "serve the store over HTTP",
		Flags: local(
			[]cli.Flag{
				&cli.StringFlag{Name: "host", Value: "0.0.0.0", Usage: "`ADDRESS` to listen on", Validator: notEmpty},
				&cli.IntFlag{
					Name: "port", Value: defaultPort, Usage: "`PORT` to listen on; 0 takes a free one",
					Validator: within(0, math.MaxUint16),
				},
				&cli.StringSliceFlag{
					Name: "cors-origin", Usage: "`ORIGIN` of web pages that may use the API, * for all; repeat it for more",
				},
				&cli.IntFlag{
					Name: "n-workers", Value: 1, Sources: cli.EnvVars("AGL_STORE_N_WORKERS"), Validator: within(1, math.MaxInt),
					Usage: "`NUMBER` of processes; taken for the sake of agl store: one process uses all cores",
				},
			},
			backendFlags(), retentionFlags(), []cli.Flag{workerTTLFlag(0), trackerFlag()}, logFlags()),
		Action:   a.action(a.store),
		Commands: []*cli.Command{a.healthcheckCommand()},
	}
}

func (a *app) store(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return err
	}
	logs := a.logger(cmd)
	if n := cmd.Int("n-workers"); n > 1 {
		if cmd.String("backend") == "memory" {
			return fmt.Errorf("--n-workers %d needs --backend mongo: the memory backend does not support zero-copy "+
				"between processes, and one process uses all cores anyway", n)
		}
		logs.of("store").Info("one process serves all", "n_workers", n)
	}
	server, err := a.startServer(cmd, logs, cmd.String("host"), cmd.Int("port"))
	if err != nil {
		return err
	}
	return server.wait(ctx)
}

// server is a store behind a listening socket, in this process.
type server struct {
	store *store.Store
	queue queue.Store // it, as it is recorded
	url   string      // to reach it at
	log   *slog.Logger
	app   *app
	stop  context.CancelFunc
	ended chan error // the outcome of serving
	// probing is the question to itself whether it is well.
	probing sync.WaitGroup
	// ballast makes the collector run less often: the few megabytes that a store
	// holds, of which the data is elsewhere or which has just begun, are soon
	// doubled. It is never written to, so it takes addresses and no memory, but the
	// heap may grow by as much more before it is collected.
	ballast []byte
}

const ballastSize = 32 << 20 // bytes

// startServer opens the backend that the options ask for, and serves it.
func (a *app) startServer(cmd *cli.Command, logs *logs, host string, port int) (*server, error) {
	log := logs.of("store")
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("cannot listen on port %d of %s: %w; give a free port, or stop what has taken it", port, host, err)
	}
	recorder := a.recorder(cmd)
	backend, err := openBackend(a.signals.drain, cmd, log, recorder)
	if err != nil {
		listener.Close()
		return nil, err
	}
	s := store.New(backend, storeOptions(cmd, log, recorder))
	if recorder != nil {
		recorder.Watch(backend, metrics.WatchOptions{WorkerTTL: cmd.Duration("worker-ttl")})
	}
	server, ctx := a.serve(s, newAPI(cmd, s, recorder, logs.of("http")), listener, host, log)
	if recorder != nil {
		server.queue = recorder.Store(s)
	}
	server.ballast = make([]byte, ballastSize)
	log.Info("listening", "address", listener.Addr().String(), "url", server.url, "dashboard", server.url+"/",
		"backend", cmd.String("backend"))
	server.probing.Go(func() { server.probe(ctx) })
	return server, nil
}

// serve answers at a listener until the server is closed; its context ends then.
func (a *app) serve(s *store.Store, api *httpapi.Server, listener net.Listener, host string, log *slog.Logger) (*server, context.Context) {
	ctx, stop := context.WithCancel(a.signals.hard) // agents that drain still need the server
	server := &server{
		store: s, queue: s, url: accessURL(host, listener.Addr()), log: log, app: a, stop: stop, ended: make(chan error, 1),
	}
	go func() { server.ended <- api.Serve(ctx, listener) }()
	return server, ctx
}

func openBackend(ctx context.Context, cmd *cli.Command, log *slog.Logger, recorder *metrics.Recorder) (collections.Backend, error) {
	if cmd.String("backend") == "memory" {
		return memory.New(memory.Options{MaxBytes: cmd.Int64("max-memory"), Logger: log}), nil
	}
	o := mongo.Options{
		URI: cmd.String("mongo-uri"), Database: cmd.String("mongo-database"), Partition: cmd.String("partition-id"), Logger: log,
		SpansUnsafe: cmd.String("span-write-concern") == "1",
	}
	if recorder != nil {
		o.Commands, o.Pool = recorder.Mongo().Commands(), recorder.Mongo().Pool()
	}
	backend, err := mongo.Open(ctx, o)
	if err != nil { // not a nil *mongo.Backend in the interface
		return nil, err
	}
	if recorder != nil {
		recorder.SetDatabase(backend.Database())
	}
	return backend, nil
}

func storeOptions(cmd *cli.Command, log *slog.Logger, recorder *metrics.Recorder) store.Options {
	o := store.Options{
		WorkerTTL: cmd.Duration("worker-ttl"), ScanDebounce: cmd.Duration("scan-debounce"),
		ScanInterval: cmd.Duration("scan-interval"), Logger: log,
		RetainFinished: cmd.Duration("retain-finished"), RetainSpans: cmd.Duration("retain-spans"),
	}
	if recorder != nil {
		o.Observer, o.Purged = recorder.Queue(), recorder.Queue().Purged
	}
	return o
}

// probe asks the server for its health, as a client would.
func (s *server) probe(ctx context.Context) {
	c := client.New(s.url, client.Options{RequestTimeout: 10 * time.Second})
	defer c.Close()
	if err := c.Healthy(ctx); ctx.Err() != nil {
		return
	} else if err != nil {
		s.log.Warn("the store does not answer at its own address", "url", s.url, "error", err)
		return
	}
	s.log.Info("healthy", "url", s.url)
}

// wait serves until ctx ends, then ends in good order, or at once with the
// second signal.
func (s *server) wait(ctx context.Context) error {
	select {
	case err := <-s.ended:
		s.ended <- err // ended before it was asked to
	case <-ctx.Done():
		s.log.Info("stopping", "cause", "signal")
	}
	return s.close()
}

// close stops serving and closes the store.
func (s *server) close() error {
	s.stop()
	s.probing.Wait()
	var err error
	select {
	case err = <-s.ended:
	case <-s.app.signals.hard.Done():
		return nil
	}
	if closed := s.store.Close(s.app.signals.hard); err == nil {
		err = closed
	}
	runtime.KeepAlive(s.ballast)
	return err
}

// accessURL is where others reach a server that listens on host.
func accessURL(host string, addr net.Addr) string {
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = outboundIP()
	}
	_, port, _ := net.SplitHostPort(addr.String())
	return "http://" + net.JoinHostPort(host, port)
}

// outboundIP is this machine's address on the way to the world. Nothing is sent.
func outboundIP() string {
	conn, err := net.Dial("udp4", "192.0.2.1:9")
	if err != nil {
		return "127.0.0.1"
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String()
}
