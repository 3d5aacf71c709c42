package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/metrics"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmproxy"
)

const (
	defaultLLMPort = 4749 // 4748 is that of aglq prometheus
	// llmPrefix is before the names of the proxy's options in aglq run.
	llmPrefix = "llm-"
)

func (a *app) llmProxyCommand() *cli.Command {
	return &cli.Command{
		Name: "llm-proxy", Usage: "forward calls of language models and file them as spans of the attempts that make them",
		Description: "Agents call it as they call OpenAI or Anthropic, at /rollout/ROLLOUT/attempt/ATTEMPT/v1; docs/llm-proxy.md has\n" +
			"the other ways to say who calls, and the form of the model table.",
		Flags: flags([]cli.Flag{storeURLFlag()}, llmFlags(""), []cli.Flag{
			&cli.StringFlag{
				Name: "host", Value: loopback, Validator: notEmpty,
				Usage: "`ADDRESS` to listen on; one that other machines reach needs --key",
			},
			&cli.IntFlag{
				Name: "port", Value: defaultLLMPort, Validator: within(0, math.MaxUint16), Usage: "`PORT` to listen on; 0 takes a free one",
			},
			&cli.StringSliceFlag{
				Name: "key", Sources: cli.EnvVars("AGL_LLM_PROXY_KEYS"), Usage: "`KEY` that callers must bring; repeat it for more",
			},
			&cli.StringSliceFlag{
				Name: "admin-key", Sources: cli.EnvVars("AGL_LLM_PROXY_ADMIN_KEYS"), DefaultText: "as --key, else this machine only",
				Usage: "`KEY` to see and replace the model table with, at /admin/models",
			},
			&secondsFlag{
				Name: "drain-timeout", Value: llmproxy.DefaultDrainTimeout,
				Usage: "`SECONDS` that open calls get to end after the first signal",
			},
		}, logFlags()),
		Action: a.action(a.llmProxy),
	}
}

// llmFlags are the options of an LLM proxy, in a process of its own or in that
// of workers, where their names have a prefix.
func llmFlags(prefix string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: prefix + "models", Usage: "`FILE` with the model table, JSON or YAML, read again when it changes"},
		&cli.StringFlag{
			Name: prefix + "upstream", Validator: validUpstream,
			Usage: "`URL` of an upstream that serves every model that the table does not name, as http://localhost:8000/v1",
		},
		&cli.BoolFlag{
			Name: prefix + "follow-resources", Usage: "add the language models (type llm) of the latest resources in the store",
		},
		&cli.IntFlag{
			Name: prefix + "retries", Value: llmproxy.DefaultRetries, Validator: within(0, 100),
			Usage: "`NUMBER` of times that a call is made again that failed before anything of it was forwarded",
		},
		&secondsFlag{
			Name: prefix + "request-timeout", Value: llmproxy.DefaultRequestTimeout,
			Usage: "`SECONDS` to the beginning of an answer, and of silence in it, after which a call is given up",
		},
		&bytesFlag{Name: prefix + "max-body", Value: llmproxy.DefaultMaxBody, Usage: "`BYTES`, as 32MiB, of a request"},
		&bytesFlag{Name: prefix + "max-answer", Value: llmproxy.DefaultMaxAnswer, Usage: "`BYTES` of an upstream's answer; what is longer is cut off"},
		&cli.IntFlag{
			Name: prefix + "max-concurrency", DefaultText: "unlimited", Validator: within(0, math.MaxInt),
			Usage: "`NUMBER` of calls at a time; more are refused; 0 is unlimited",
		},
		&secondsFlag{
			Name: prefix + "limit-wait", Value: llmproxy.DefaultLimitWait,
			Usage: "`SECONDS` that a call waits for a model that is at its own limits",
		},
		&cli.BoolFlag{Name: prefix + "no-token-ids", Usage: "do not ask upstreams of one's own for token ids"},
		&cli.BoolFlag{Name: prefix + "logprobs", Usage: "ask upstreams of one's own for log probabilities"},
		&bytesFlag{
			Name: prefix + "cache", DefaultText: "none", Usage: "`BYTES` of answers to keep and to give again for the same request",
		},
		&cli.StringFlag{
			Name: prefix + "span-name", Value: llmproxy.DefaultSpanName, Validator: notEmpty,
			Usage: "`NAME` of the span with the conversation; openai.chat.completion is what tracers' spans are called",
		},
		&cli.StringFlag{
			Name: prefix + "sequence", Value: "call", Validator: validSequence,
			Usage: "`WAY` to number spans: call asks the store for each call, block:16 for sixteen at a time",
		},
	}
}

func validUpstream(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("it must be the URL of an upstream, as http://localhost:8000/v1")
	}
	return nil
}

func validSequence(text string) error {
	_, err := sequenceBlock(text)
	return err
}

func sequenceBlock(text string) (int, error) {
	if text == "call" {
		return 1, nil
	}
	number, ok := strings.CutPrefix(text, "block:")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || n > 1_000_000 {
		return 0, fmt.Errorf("it must be call, or block: and a number, as block:16")
	}
	return n, nil
}

func (a *app) llmProxy(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return err
	}
	if len(cmd.StringSlice("key")) == 0 && !thisMachineOnly(cmd.String("host")) {
		return usagef(cmd, "--host %s is open to other machines: give --key, so that not everybody can call", cmd.String("host"))
	}
	if !llmWanted(cmd, "") {
		return usagef(cmd, "there is no model: give --models, --upstream or --follow-resources")
	}
	store, err := storeURL(cmd)
	if err != nil {
		return err
	}
	s := client.New(store, client.Options{})
	defer s.Close()
	o, err := llmOptions(cmd, "")
	if err != nil {
		return err
	}
	o.Keys, o.AdminKeys = cmd.StringSlice("key"), cmd.StringSlice("admin-key")
	o.DrainTimeout = max(cmd.Duration("drain-timeout"), time.Millisecond)
	proxy, err := a.startLLMProxy(ctx, s, o, cmd.String("host"), cmd.Int("port"), nil, a.logger(cmd).of("llm-proxy"))
	if err != nil {
		return err
	}
	select {
	case err := <-proxy.ended:
		proxy.ended <- err // ended before it was asked to
	case <-ctx.Done():
		proxy.log.Info("stopping; open calls may end, a second signal stops them", "cause", "signal")
	}
	return proxy.close()
}

const loopback = "127.0.0.1"

// thisMachineOnly reports whether no other machine reaches a host's address.
func thisMachineOnly(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func llmWanted(cmd *cli.Command, prefix string) bool {
	return cmd.String(prefix+"models") != "" || cmd.String(prefix+"upstream") != "" || cmd.Bool(prefix+"follow-resources")
}

// llmOptions are what the options ask for.
func llmOptions(cmd *cli.Command, prefix string) (llmproxy.Options, error) {
	block, err := sequenceBlock(cmd.String(prefix + "sequence"))
	if err != nil {
		return llmproxy.Options{}, err
	}
	o := llmproxy.Options{
		ModelsFile: cmd.String(prefix + "models"), FollowResources: cmd.Bool(prefix + "follow-resources"),
		Retries: cmd.Int(prefix + "retries"), RequestTimeout: cmd.Duration(prefix + "request-timeout"),
		MaxBody: cmd.Int64(prefix + "max-body"), MaxAnswer: cmd.Int64(prefix + "max-answer"), MaxConcurrency: cmd.Int(prefix + "max-concurrency"),
		LimitWait: zeroIsNone(cmd.Duration(prefix + "limit-wait")), NoTokenIDs: cmd.Bool(prefix + "no-token-ids"),
		Logprobs: cmd.Bool(prefix + "logprobs"), CacheBytes: cmd.Int64(prefix + "cache"),
		SpanName: cmd.String(prefix + "span-name"), SequenceBlock: block,
	}
	if o.Retries == 0 {
		o.Retries = -1
	}
	if upstream := cmd.String(prefix + "upstream"); upstream != "" {
		var base []byte
		base = rawjson.AppendString(base, upstream)
		o.Models, err = llmproxy.ParseModels(fmt.Appendf(nil,
			`[{"model_name": "*", "litellm_params": {"model": "hosted_vllm/*", "api_base": %s}}]`, base))
	}
	return o, err
}

// llmServer is an LLM proxy behind a listening socket, in this process.
type llmServer struct {
	proxy *llmproxy.Proxy
	url   string // to reach it at
	key   string // that callers must bring, "" for none
	log   *slog.Logger
	app   *app
	stop  context.CancelFunc
	ended chan error // the outcome of serving
}

// startLLMProxy serves a proxy until ctx ends or it is closed. Process, nil for none,
// publishes its metrics besides.
func (a *app) startLLMProxy(
	ctx context.Context, s queue.Store, o llmproxy.Options, host string, port int, process *metrics.Recorder, log *slog.Logger,
) (*llmServer, error) {
	recorder := metrics.NewLLM(process)
	o.Observe, o.Dropped, o.Metrics, o.Logger = recorder.Observe, recorder.Dropped, recorder.Handler(), log
	proxy, err := llmproxy.New(s, o)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, errors.Join(
			fmt.Errorf("cannot listen on port %d of %s: %w; give a free port, or stop what has taken it", port, host, err),
			proxy.Close(ctx))
	}
	ctx, stop := context.WithCancel(ctx)
	server := &llmServer{proxy: proxy, url: accessURL(host, listener.Addr()), log: log, app: a, stop: stop, ended: make(chan error, 1)}
	go func() { server.ended <- proxy.Serve(ctx, listener) }()
	log.Info("listening", "address", listener.Addr().String(), "url", server.url, "models", strings.Join(proxy.ModelNames(), ","))
	return server, nil
}

// flushLimit bounds the storing of the last spans when a proxy ends.
const flushLimit = 10 * time.Second

// close lets open calls end, and stores their spans; the second signal does not
// wait for the calls.
func (s *llmServer) close() error {
	s.stop()
	var err error
	select {
	case err = <-s.ended:
	case <-s.app.signals.hard.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	return errors.Join(err, s.proxy.Close(ctx))
}

// serves reports whether calls of a base URL come to the proxy.
func (s *llmServer) serves(base string) bool { return strings.HasPrefix(base, s.url+"/") }

// behalf is where the proxy is called on behalf of an attempt, before /v1, and with
// which key.
func (s *llmServer) behalf(t *worker.Task) (base, key string) {
	base = s.url + "/rollout/" + url.PathEscape(t.Rollout.RolloutID) + "/attempt/" + url.PathEscape(t.Attempt.AttemptID)
	key = llmproxy.KeyPrefix + t.Rollout.RolloutID + "-" + t.Attempt.AttemptID
	if s.key != "" {
		key += "." + s.key
	}
	return base, key
}

// env points an agent's clients at the proxy, on behalf of its attempt.
func (s *llmServer) env(t *worker.Task) []string {
	base, key := s.behalf(t)
	env := []string{
		"AGL_LLM_BASE_URL=" + base + "/v1", "OPENAI_BASE_URL=" + base + "/v1", "OPENAI_API_BASE=" + base + "/v1", "OPENAI_API_KEY=" + key,
		"ANTHROPIC_BASE_URL=" + base, "ANTHROPIC_API_KEY=" + key,
	}
	if model := s.model(t); model != "" {
		env = append(env, "AGL_LLM_MODEL="+model)
	}
	return env
}

// model is the one to use: that of the resources where it can be served, else
// the first of the table.
func (s *llmServer) model(t *worker.Task) string {
	if llm, err := t.LLM(); err == nil && llm.Model != "" {
		return llm.Model
	}
	for _, name := range s.proxy.ModelNames() {
		if name != llmproxy.AnyModel {
			return name
		}
	}
	return ""
}

// stored has a handler's tasks end after the spans of their calls are stored, so
// that whoever reads a finished rollout finds them.
func (s *llmServer) stored(h worker.Handler) worker.Handler {
	return func(ctx context.Context, t *worker.Task) (worker.Result, error) {
		result, err := h(ctx, t)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
		defer cancel()
		if flushed := s.proxy.Flush(limit); flushed != nil {
			s.log.Warn("an attempt ends before all its calls are stored", "rollout_id", t.Rollout.RolloutID,
				"attempt_id", t.Attempt.AttemptID, "error", flushed)
		}
		return result, err
	}
}
