package main

import (
	"errors"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmclient"
	"github.com/aglq/aglq/worker/react"
)

// reactOnly are the options that need --react.
var reactOnly = []string{"react-record", "react-replay"}

// needReact checks the agent that --react names.
func (a *app) needReact(cmd *cli.Command) error {
	if a.agentGiven || cmd.String("http") != "" || cmd.String("bridge") == "pool" {
		return usagef(cmd, "--react is the agent: remove the command after --, --http and --bridge")
	}
	if cmd.String("react-record") != "" && cmd.String("react-replay") != "" {
		return usagef(cmd, "--react-record and --react-replay exclude each other")
	}
	if _, err := react.Load(cmd.String("react"), nil); err != nil {
		return usagef(cmd, "--react: %v", err)
	}
	return nil
}

// reactAgent is the agent of --react.
type reactAgent struct {
	agent *react.Agent
	tape  *react.Tape // nil for none
	llm   *llmServer  // what its model is called through, nil for nothing
}

func (a *app) newReactAgent(cmd *cli.Command) (*reactAgent, error) {
	r := &reactAgent{}
	opts, err := react.Load(cmd.String("react"), r.model)
	if err != nil {
		return nil, err
	}
	opts.Limited = func(c *llmclient.Client) bool { return r.llm != nil && r.llm.serves(c.BaseURL) }
	if path := cmd.String("react-record"); path != "" {
		r.tape, err = react.Record(path)
	} else if path := cmd.String("react-replay"); path != "" {
		r.tape, err = react.Replay(path)
	}
	if err != nil {
		return nil, err
	}
	opts.Tape = r.tape
	if r.agent, err = react.New(a.signals.hard, opts); err != nil {
		return nil, errors.Join(err, r.tape.Close())
	}
	return r, nil
}

// handler is the agent, whose model is behind a proxy of this process, if there is one.
func (r *reactAgent) handler(llm *llmServer) worker.Handler {
	r.llm = llm
	return r.agent.Handle
}

func (r *reactAgent) close() error {
	r.agent.Close()
	return r.tape.Close()
}

// model is the task's, called through the proxy.
func (r *reactAgent) model(t *worker.Task) (*llmclient.Client, error) {
	own, err := react.TaskLLM(t)
	switch {
	case r.llm == nil:
		return own, err
	case queue.KindOf(err) == queue.NotFound:
		own = &llmclient.Client{}
	case err != nil:
		return nil, err
	}
	base, key := r.llm.behalf(t)
	own.BaseURL, own.APIKey, own.Model = base+"/v1", key, r.llm.model(t)
	return own, nil
}
