package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"strconv"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/store"
)

func (a *app) runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "run an agent on a file of tasks: store, queue and workers in one process",
		ArgsUsage: "-- COMMAND [ARG …]",
		Description: "The same command line on several machines splits by AGL_CURRENT_ROLE: the algorithm's machine has the\n" +
			"store, enqueues and waits; the runners' have the workers. With AGL_MANAGED_STORE=0 a store that runs\n" +
			"already is used. Exit status: 0 all rollouts succeeded, 1 some did not, 130 and 143 ended by a signal.",
		Flags: flags([]cli.Flag{
			&cli.StringFlag{Name: "tasks", Usage: "`FILE` with a task a line, as for aglq enqueue; - is standard input"},
			&cli.StringFlag{Name: "resources", Usage: "JSON `FILE` of resources to store first"},
			&cli.StringFlag{Name: "out", Usage: "write results to this `FILE`, JSON, one a line; - is standard output"},
			&cli.StringFlag{
				Name: "role", Value: "both", Sources: cli.EnvVars("AGL_CURRENT_ROLE"),
				Validator: oneOf("algorithm", "runner", "both", "store"),
				Usage:     "`ROLE` of this process: algorithm (with the store), runner, both, or the store alone",
			},
			&cli.StringFlag{
				Name: "host", Sources: cli.EnvVars("AGL_SERVER_HOST"), DefaultText: "127.0.0.1 for both, else localhost",
				Usage: "`ADDRESS` of the store, to listen on or to reach it at",
			},
			&cli.IntFlag{
				Name: "port", Sources: cli.EnvVars("AGL_SERVER_PORT"), DefaultText: fmt.Sprintf("a free one for both, else %d", defaultPort),
				Usage: "`PORT` of the store; 0 takes a free one", Validator: within(0, math.MaxUint16),
			},
			&truthFlag{
				Name: "managed-store", Value: "true", Sources: cli.EnvVars("AGL_MANAGED_STORE"),
				Usage: "whether the store is in this process (`BOOL`), or runs at the address already",
			},
			storeURLFlag(),
			&cli.StringFlag{
				Name: llmPrefix + "host", Value: loopback, Validator: notEmpty,
				Usage: "`ADDRESS` of the LLM proxy, which agents call it at; at one that other machines reach it demands a key, which agents are told",
			},
			&cli.IntFlag{
				Name: llmPrefix + "port", Validator: within(0, math.MaxUint16), DefaultText: "a free one",
				Usage: "`PORT` of the LLM proxy, which there is with --llm-models, --llm-upstream or --llm-follow-resources",
			},
		}, llmFlags(llmPrefix), configFlags(), agentFlags(), workerFlags(), workerExitFlags(), backendFlags(),
			[]cli.Flag{workerTTLFlag(store.DefaultWorkerTTL), trackerFlag(), metricsAddrFlag()}, logFlags()),
		Action: a.action(a.run),
	}
}

// roles says what this process does.
type roles struct {
	server, algorithm, runner bool
}

func rolesOf(cmd *cli.Command) roles {
	role := cmd.String("role")
	managed := isTrue(cmd, "managed-store")
	return roles{
		server:    role == "store" || (managed && role != "runner"),
		algorithm: role == "both" || role == "algorithm",
		runner:    role == "both" || role == "runner",
	}
}

func (a *app) run(ctx context.Context, cmd *cli.Command) error {
	roles := rolesOf(cmd)
	if err := a.checkRun(ctx, cmd, roles); err != nil {
		return err
	}
	logs := a.logger(cmd)
	stop, err := a.serveMetrics(cmd, logs.of("http"))
	if err != nil {
		return err
	}
	defer stop()
	if !roles.server {
		url, err := runStoreURL(cmd)
		if err != nil {
			return err
		}
		s := client.New(url, client.Options{})
		defer s.Close()
		if !roles.algorithm {
			return a.runRoles(ctx, cmd, logs, roles, s, s, url)
		}
		return patiently(ctx, s, func(patient *client.Client) error {
			return a.runRoles(ctx, cmd, logs, roles, patient, s, url)
		})
	}
	host, port := serverAddress(cmd)
	server, err := a.startServer(cmd, logs, host, port)
	if err != nil {
		return err
	}
	if cmd.String("role") == "store" {
		return server.wait(ctx)
	}
	err = a.runRoles(ctx, cmd, logs, roles, server.queue, server.queue, server.url)
	return errors.Join(err, server.close())
}

// checkRun refuses command lines that cannot work, before anything is started.
func (a *app) checkRun(ctx context.Context, cmd *cli.Command, roles roles) error {
	if cmd.Args().Present() {
		return usagef(cmd, "%q is not expected here: tasks are given by --tasks, the agent's command after --", cmd.Args().First())
	}
	if text, ok := os.LookupEnv("AGL_SERVER_PORT"); ok && text == "" && !cmd.IsSet("port") {
		return usagef(cmd, "AGL_SERVER_PORT is empty; it must be a port, 0 to 65535, or not be set")
	}
	if roles.runner {
		if err := a.needAgent(cmd); err != nil {
			return err
		}
	}
	if roles.runner && llmWanted(cmd, llmPrefix) && !cmd.IsSet(llmPrefix+"host") && cmd.String("http") != "" {
		if agent, err := url.Parse(cmd.String("http")); err == nil && !thisMachineOnly(agent.Hostname()) {
			return usagef(cmd, "the agent at %s cannot call the LLM proxy at %s: give an address of this machine that it reaches, by --%shost",
				agent.Host, loopback, llmPrefix)
		}
	}
	if !roles.algorithm {
		return nil
	}
	if cmd.String("tasks") == "" {
		return usagef(cmd, "--tasks is missing: a file with a task a line, or - for standard input")
	}
	file := a.taskFile(cmd.String("tasks"))
	if !file.again {
		return nil
	}
	n, err := file.check(ctx, baseRequest(cmd))
	if err == nil && n == 0 {
		err = fmt.Errorf("%s has no tasks: give one a line", file.name)
	}
	return err
}

// serverAddress is where the store of this process listens. Alone on its
// machine it takes what is free; the others must find it where they look.
func serverAddress(cmd *cli.Command) (host string, port int) {
	host, port = cmd.String("host"), cmd.Int("port")
	both := cmd.String("role") == "both"
	if host == "" {
		host = "localhost"
		if both {
			host = "127.0.0.1"
		}
	}
	if !cmd.IsSet("port") && !both {
		port = defaultPort
	}
	return host, port
}

// runStoreURL is the store that another process has.
func runStoreURL(cmd *cli.Command) (string, error) {
	if u := cmd.String("store-url"); u != "" {
		return u, nil
	}
	host, port := cmd.String("host"), cmd.Int("port")
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	if !cmd.IsSet("port") {
		port = defaultPort
	}
	if port == 0 {
		return "", usagef(cmd, "port 0 names no store; give the port it listens on by --port or AGL_SERVER_PORT")
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// runRoles does what this process is there for, with an LLM proxy beside its
// workers where that is asked for.
func (a *app) runRoles(
	ctx context.Context, cmd *cli.Command, logs *logs, roles roles, algorithms, workersOwn queue.Store, storeURL string,
) (err error) {
	if !roles.runner {
		return a.runParts(ctx, cmd, logs, roles, algorithms, workersOwn, storeURL, nil, nil)
	}
	x, err := a.newExtras(cmd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	if !llmWanted(cmd, llmPrefix) {
		return a.runParts(ctx, cmd, logs, roles, algorithms, workersOwn, storeURL, nil, x)
	}
	o, err := llmOptions(cmd, llmPrefix)
	if err != nil {
		return err
	}
	o.Limit = x.limits.Group("llm")
	// Agents that drain still need it.
	host := cmd.String(llmPrefix + "host")
	var key string
	if !thisMachineOnly(host) {
		key = rand.Text()
		o.Keys = []string{key}
	}
	llm, err := a.startLLMProxy(a.signals.hard, workersOwn, o, host, cmd.Int(llmPrefix+"port"), a.recorder(cmd), logs.of("llm-proxy"))
	if err != nil {
		return err
	}
	llm.key = key
	err = a.runParts(ctx, cmd, logs, roles, algorithms, workersOwn, storeURL, llm, x)
	return errors.Join(err, llm.close())
}

// runParts does what this process is there for, and ends its workers with its
// algorithm. The first signal drains the workers and cancels what they do not
// hold. Workers have a client of their own, with their own idea of when a store
// is gone.
func (a *app) runParts(
	ctx context.Context, cmd *cli.Command, logs *logs, roles roles, algorithms, workersOwn queue.Store, url string,
	llm *llmServer, x *extras,
) error {
	var workers *crew
	if roles.runner {
		workers = a.startWorkers(cmd, logs, workersOwn, url, llm, x)
		if !roles.algorithm {
			return workers.wait(ctx)
		}
	}
	job, err := a.newJob(cmd, logs, algorithms)
	if err == nil {
		err = job.run(ctx, workers)
	}
	if workers == nil {
		return err
	}
	if err != nil && !errors.Is(err, errFailed) && ctx.Err() == nil {
		workers.stop() // what they run is of no use to anybody
		<-workers.ended
		return err
	}
	workers.drain()
	return errors.Join(err, workers.wait(ctx))
}
