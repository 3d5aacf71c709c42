package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"sync"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/limit"
)

// agentFlags say how the agent is run.
func agentFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "bridge", Value: "exec", Validator: oneOf("exec", "pool"),
			Usage: "`WAY` to run the command: exec, once a rollout, or pool, as programs that stay and take a task a line",
		},
		&cli.StringFlag{
			Name: "http", Usage: "`URL` of a server that is posted each task, as http://agent:8000/rollout, in place of a command",
		},
		&cli.StringFlag{
			Name: "react", Usage: "`FILE` that describes an agent of a model and tools, which this process runs, in place of a command",
		},
		&cli.StringFlag{
			Name: "react-record", Usage: "with --react: record the answers of models and tools in a new `FILE`",
		},
		&cli.StringFlag{
			Name: "react-replay", Usage: "with --react: take the answers of models and tools from a recorded `FILE`",
		},
		&cli.IntFlag{
			Name: "max-tasks-per-child", DefaultText: "unlimited", Validator: within(0, math.MaxInt),
			Usage: "`NUMBER` of tasks after which another program takes the place of one of the pool; 0 is unlimited",
		},
		&cli.StringSliceFlag{
			Name: "limit", DefaultText: "none", Validator: validLimits,
			Usage: "`NAME=LIMIT` over all agents of this process: at a time, as llm=64, or in a time, as llm=100/m; task bounds " +
				"the tasks themselves, llm the calls through the LLM proxy of aglq run, others what agents take slots of",
		},
		&cli.StringFlag{
			Name: "dump-spans", Usage: "append the spans of each attempt that ends to this `FILE`, JSON, one a line; - is standard output",
		},
	}
}

func validLimits(texts []string) error {
	_, err := limit.Parse(texts)
	return err
}

// extras are what workers have besides their agents.
type extras struct {
	limits *limit.Set
	slots  *limit.Server // nil without limits
	hooks  []worker.Hooks
	dump   io.Closer   // nil for none
	react  *reactAgent // nil for none
}

// newExtras makes what the options ask for.
func (a *app) newExtras(cmd *cli.Command) (*extras, error) {
	x := &extras{}
	var err error
	if x.limits, err = limit.Parse(cmd.StringSlice("limit")); err != nil {
		return nil, err
	}
	if path := cmd.String("dump-spans"); path != "" {
		out := a.stdout
		if path != "-" {
			file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
			if err != nil {
				return nil, fmt.Errorf("opening the file of --dump-spans: %w", err)
			}
			out, x.dump = file, file
		}
		x.hooks = append(x.hooks, dumpSpans(out))
	}
	if len(x.limits.Names()) > 0 {
		if x.slots, err = limit.Listen(); err != nil {
			return nil, errors.Join(err, x.close())
		}
	}
	if cmd.String("react") != "" {
		if x.react, err = a.newReactAgent(cmd); err != nil {
			return nil, errors.Join(err, x.close())
		}
	}
	return x, nil
}

func (x *extras) close() error {
	var err error
	if x.react != nil {
		err = x.react.close()
	}
	if x.slots != nil {
		x.slots.Close()
	}
	if x.dump != nil {
		err = errors.Join(err, x.dump.Close())
	}
	return err
}

// dumpSpans writes the spans of each attempt that ends.
func dumpSpans(out io.Writer) worker.Hooks {
	var mu sync.Mutex
	return worker.Hooks{OnRolloutEnd: func(ctx context.Context, t *worker.Task, _ worker.End) error {
		spans, err := t.Spans(ctx)
		if err != nil {
			return err
		}
		var lines []byte
		for i := range spans {
			lines = append(spans[i].AppendJSON(lines), '\n')
		}
		mu.Lock()
		defer mu.Unlock()
		if _, err := out.Write(lines); err != nil {
			return fmt.Errorf("writing spans: %w", err)
		}
		return nil
	}}
}

// needAgent checks that there is an agent to run, by one way only.
func (a *app) needAgent(cmd *cli.Command) error {
	if cmd.IsSet("max-tasks-per-child") && cmd.String("bridge") != "pool" {
		return usagef(cmd, "--max-tasks-per-child is for --bridge pool: other programs do one task each")
	}
	if cmd.String("react") != "" {
		return a.needReact(cmd)
	}
	for _, name := range reactOnly {
		if cmd.IsSet(name) {
			return usagef(cmd, "--%s is for --react: other agents call models and tools by themselves", name)
		}
	}
	if address := cmd.String("http"); address != "" {
		if a.agentGiven || cmd.String("bridge") == "pool" {
			return usagef(cmd, "--http asks a server: remove the command after --, and --bridge")
		}
		if err := (worker.HTTPOptions{URL: address}).Validate(); err != nil {
			return usagef(cmd, "--http is %q: %v", address, err)
		}
		return nil
	}
	if len(a.agent) == 0 || a.agent[0] == "" {
		return usagef(cmd, "there is no agent to run: give its command after --, as in %s -- python agent.py, a server by --http, or a config by --react", cmd.FullName())
	}
	if err := (worker.ExecOptions{Command: a.agent}).Validate(); err != nil {
		return usagef(cmd, "%v", err)
	}
	return nil
}

// agentHandler is the agent that the options ask for. Close ends what it has
// started, at once when its context ends. Llm is the proxy that it calls, nil for
// none.
func (a *app) agentHandler(cmd *cli.Command, llm *llmServer, x *extras, log *slog.Logger) (h worker.Handler, closeAgent func(context.Context)) {
	command := worker.ExecOptions{Command: a.agent}
	if llm != nil {
		command.TaskEnv = llm.env
	}
	closeAgent = func(context.Context) {}
	switch {
	case x.react != nil:
		h = x.react.handler(llm)
	case cmd.String("http") != "":
		h = worker.HTTP(worker.HTTPOptions{URL: cmd.String("http"), TaskEnv: command.TaskEnv})
	case cmd.String("bridge") == "pool":
		pool := worker.NewPool(worker.PoolOptions{ExecOptions: command, MaxTasks: cmd.Int("max-tasks-per-child"), Logger: log})
		h, closeAgent = pool.Handle, pool.Close
	default:
		h = worker.Exec(command)
	}
	if llm != nil {
		h = llm.stored(h)
	}
	return h, closeAgent
}
