package main

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
)

// The options that several commands share. An option's name, variable, default
// and help stand here or in its command, and nowhere else: docs/flags.md is
// made from them.

const defaultPort = 4747

// localStoreURL is a store on this machine, with its defaults.
var localStoreURL = fmt.Sprintf("http://localhost:%d", defaultPort)

func logFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "log-level", Value: "INFO", Sources: cli.EnvVars("AGL_LOG_LEVEL"), Validator: validLogLevels,
			Usage: "least `LEVEL` to log: DEBUG, INFO, WARNING or ERROR; parts differ as in INFO,store=DEBUG,worker=ERROR",
		},
		&cli.StringFlag{
			Name: "log-format", Value: "text", Usage: "`FORMAT` of the log: text or json", Validator: oneOf("text", "json"),
		},
	}
}

func backendFlags() []cli.Flag {
	return flags([]cli.Flag{
		&cli.StringFlag{
			Name: "backend", Value: "memory", Validator: oneOf("memory", "mongo"),
			Usage: "`PLACE` of the data: memory, which ends with the process, or mongo",
		},
	}, mongoFlags(), []cli.Flag{
		&cli.StringFlag{
			Name: "partition-id", Value: mongo.DefaultPartition, Sources: cli.EnvVars("AGL_PARTITION_ID"),
			Usage:     "`NAME` of the part of the database to work in; stores of one partition share a queue",
			Validator: notEmpty,
		},
		&cli.StringFlag{
			Name: "span-write-concern", Value: "majority", Validator: oneOf("majority", "1"),
			Usage: "what acknowledges spans in MongoDB: `majority`, once they survive any crash, or 1, once the primary " +
				"has them in memory, whose crash may lose those of the last moment",
		},
		&secondsFlag{
			Name: "scan-debounce", Value: store.DefaultScanDebounce,
			Usage: "least `SECONDS` between two checks for overdue attempts before calls; 0 checks before each call",
		},
		&secondsFlag{
			Name: "scan-interval", Value: store.DefaultScanInterval,
			Usage: "`SECONDS` between checks for overdue attempts in the background; 0 makes none",
		},
		&bytesFlag{
			Name: "max-memory", DefaultText: "70 % of the machine's memory",
			Usage: "`BYTES`, as 2GiB, that the memory backend holds before it drops the spans of the oldest finished rollouts",
		},
	})
}

// mongoFlags say where a database is.
func mongoFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "mongo-uri", Value: "mongodb://localhost:27017/?replicaSet=rs0", Sources: cli.EnvVars("AGL_MONGO_URI"),
			Usage: "`URI` of a MongoDB replica set",
		},
		&cli.StringFlag{
			Name: "mongo-database", Sources: cli.EnvVars("AGL_MONGO_DATABASE"),
			DefaultText: "the one in the URI, else " + mongo.DefaultDatabase, Usage: "`NAME` of the database",
		},
	}
}

// retentionFlags are those of a store that lives long.
func retentionFlags() []cli.Flag {
	return []cli.Flag{
		&secondsFlag{
			Name:  "retain-finished",
			Usage: "`SECONDS` after which a finished rollout is deleted with its attempts and spans, as 168h; 0 keeps it for ever",
		},
		&secondsFlag{
			Name:  "retain-spans",
			Usage: "`SECONDS` after which a span is deleted, whatever its rollout does; 0 keeps it as long as its rollout",
		},
	}
}

func workerTTLFlag(value time.Duration) cli.Flag {
	return &secondsFlag{
		Name: "worker-ttl", Value: value,
		Usage: "`SECONDS` without a sign of life after which a worker is dead and its rollouts return to the queue; 0 is never",
	}
}

func storeURLFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "store-url", Sources: cli.EnvVars("AGL_STORE_URL"), Validator: validStoreURL,
		DefaultText: "http://$AGL_SERVER_HOST:$AGL_SERVER_PORT, else " + localStoreURL,
		Usage:       "`URL` of the store",
	}
}

// storeURL is the store that a command talks to.
func storeURL(cmd *cli.Command) (string, error) {
	if u := cmd.String("store-url"); u != "" {
		return u, nil
	}
	host := os.Getenv("AGL_SERVER_HOST")
	switch host {
	case "":
		host = "localhost"
	case "0.0.0.0", "::":
		host = "127.0.0.1" // an address to listen on, not one to dial
	}
	port := strconv.Itoa(defaultPort)
	if text, ok := os.LookupEnv("AGL_SERVER_PORT"); ok {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > math.MaxUint16 {
			return "", usagef(cmd, "AGL_SERVER_PORT is %q; it must be a port, 1 to 65535", text)
		}
		port = strconv.Itoa(n)
	}
	return "http://" + net.JoinHostPort(host, port), nil
}

func validStoreURL(text string) error {
	if text == "" { // an empty variable is none
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("it must be the URL of a store, as %s", localStoreURL)
	}
	return nil
}

func notEmpty(s string) error {
	if s == "" {
		return fmt.Errorf("it must not be empty")
	}
	return nil
}

const envRunners = "AGL_N_RUNNERS"

// workerFlags are the options of the workers, in a process of their own or not.
func workerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{
			Name: "n-runners", Value: 1, Sources: cli.EnvVars(envRunners), Validator: within(1, 10_000),
			Usage: "`NUMBER` of workers, each of them known to the store by its own id",
		},
		&cli.IntFlag{
			Name: "concurrency", Value: 1, Validator: within(1, 100_000),
			Usage: "`NUMBER` of rollouts that a worker runs at a time",
		},
		&cli.StringFlag{
			Name: "worker-id", Sources: cli.EnvVars("AGL_WORKER_ID"), DefaultText: "made of host, process and number",
			Usage: "`ID` of the worker; several get -0, -1 … behind it",
		},
		&cli.IntFlag{
			Name: "max-rollouts", DefaultText: "unlimited", Validator: within(0, math.MaxInt),
			Usage: "`NUMBER` of rollouts after which a worker ends; 0 is unlimited",
		},
		&secondsFlag{
			Name: "poll-interval", Value: worker.DefaultPollInterval,
			Usage: "most `SECONDS` between two claims from a store that is empty and cannot keep the worker waiting",
		},
		&secondsFlag{
			Name: "heartbeat-interval", Value: worker.DefaultHeartbeatInterval,
			Usage: "`SECONDS` between two heartbeats; 0 sends none",
		},
		&secondsFlag{
			Name: "interval-jitter", Value: worker.DefaultJitter,
			Usage: "`SECONDS` by which both intervals vary at random",
		},
		&secondsFlag{
			Name: "task-timeout", DefaultText: "the rollout's timeout_seconds",
			Usage: "`SECONDS` after which an agent is stopped and its attempt has failed; 0 is the rollout's own limit",
		},
		&secondsFlag{
			Name: "drain-timeout", Value: worker.DefaultDrainTimeout,
			Usage: "`SECONDS` that running agents get to end after the first signal; 0 is as long as they need",
		},
		&cli.StringFlag{
			Name: "span-spill-dir", DefaultText: "they are given up",
			Usage: "`DIR` for spans that the store did not take before the worker ended; the next worker with it sends them",
		},
	}
}

// configFlags say how rollouts are watched and retried.
func configFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "mode", Validator: oneOf(names(queue.Modes)...), DefaultText: "none",
			Usage: "`MODE` of the rollouts: train, val or test",
		},
		&cli.StringFlag{
			Name: "resources-id", DefaultText: "the latest", Usage: "`ID` of the resources that the agents get",
		},
		&cli.IntFlag{
			Name: "max-attempts", Value: 1, Validator: within(1, math.MaxInt),
			Usage: "`NUMBER` of attempts after which a rollout has failed",
		},
		&secondsFlag{
			Name: "timeout", DefaultText: "none",
			Usage: "`SECONDS` after which an attempt is ended; 0 is no limit",
		},
		&secondsFlag{
			Name: "unresponsive", DefaultText: "none",
			Usage: "`SECONDS` of silence after which an attempt is ended; 0 is no limit",
		},
		&cli.StringSliceFlag{
			Name: "retry-on", Validator: eachOneOf(names(queue.AttemptStatuses)...), DefaultText: "failed, timeout and unresponsive with --max-attempts, else none",
			Usage: "`STATUS` of an attempt that is made again: failed, timeout, unresponsive; repeat it or use commas",
		},
	}
}

// rolloutConfig is the config that the options ask for, nil where they say
// nothing.
func rolloutConfig(cmd *cli.Command) *queue.Config {
	c := queue.DefaultConfig()
	set := false
	if cmd.IsSet("max-attempts") {
		set = true
		c.MaxAttempts = int64(cmd.Int("max-attempts"))
		if c.MaxAttempts > 1 {
			c.RetryCondition = []queue.AttemptStatus{queue.AttemptFailed, queue.AttemptTimeout, queue.AttemptUnresponsive}
		}
	}
	if cmd.IsSet("retry-on") {
		set = true
		c.RetryCondition = nil
		for _, s := range cmd.StringSlice("retry-on") {
			c.RetryCondition = append(c.RetryCondition, queue.AttemptStatus(s))
		}
	}
	if d := cmd.Duration("timeout"); d > 0 {
		set = true
		s := d.Seconds()
		c.TimeoutSeconds = &s
	}
	if d := cmd.Duration("unresponsive"); d > 0 {
		set = true
		s := d.Seconds()
		c.UnresponsiveSeconds = &s
	}
	if !set {
		return nil
	}
	return &c
}

// flags joins lists of options.
func flags(lists ...[]cli.Flag) []cli.Flag { return slices.Concat(lists...) }

// local joins lists of options that commands below do not inherit.
func local(lists ...[]cli.Flag) []cli.Flag {
	all := flags(lists...)
	for _, f := range all {
		switch f := f.(type) {
		case *cli.StringFlag:
			f.Local = true
		case *cli.StringSliceFlag:
			f.Local = true
		case *cli.IntFlag:
			f.Local = true
		case *cli.BoolFlag:
			f.Local = true
		case *textsFlag:
			f.Local = true
		case *secondsFlag:
			f.Local = true
		case *bytesFlag:
			f.Local = true
		}
	}
	return all
}

// logger makes the loggers that the log options ask for.
func (a *app) logger(cmd *cli.Command) *logs {
	levels, _ := parseLogLevels(cmd.String("log-level")) // checked by the option
	l := &logs{levels: levels}
	options := &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: nameWarning}
	if cmd.String("log-format") == "json" {
		l.handler = slog.NewJSONHandler(a.stderr, options)
	} else {
		l.handler = slog.NewTextHandler(a.stderr, options)
	}
	return l
}
