package main

import (
	"context"
	"log/slog"
	"math"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/worker"
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
		&cli.IntFlag{
			Name: "max-tasks-per-child", DefaultText: "unlimited", Validator: within(0, math.MaxInt),
			Usage: "`NUMBER` of tasks after which another program takes the place of one of the pool; 0 is unlimited",
		},
	}
}

// needAgent checks that there is an agent to run, by one way only.
func (a *app) needAgent(cmd *cli.Command) error {
	if cmd.IsSet("max-tasks-per-child") && cmd.String("bridge") != "pool" {
		return usagef(cmd, "--max-tasks-per-child is for --bridge pool: other programs do one task each")
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
		return usagef(cmd, "there is no agent to run: give its command after --, as in %s -- python agent.py, or a server by --http", cmd.FullName())
	}
	if err := (worker.ExecOptions{Command: a.agent}).Validate(); err != nil {
		return usagef(cmd, "%v", err)
	}
	return nil
}

// agentHandler is the agent that the options ask for. Close ends what it has
// started, at once when its context ends. Llm is the proxy that it calls, nil for
// none.
func (a *app) agentHandler(cmd *cli.Command, llm *llmServer, log *slog.Logger) (h worker.Handler, closeAgent func(context.Context)) {
	command := worker.ExecOptions{Command: a.agent}
	if llm != nil {
		command.TaskEnv = llm.env
	}
	closeAgent = func(context.Context) {}
	switch {
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
