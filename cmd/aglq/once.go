package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/worker"
)

// onceOnly are the options that need --once.
var onceOnly = []string{"input", "resources", "mode", "json"}

// neverOnce are the options that one task past the queue has no use for.
var neverOnce = []string{"n-runners", "concurrency", "max-rollouts", "exit-when-idle", "metrics-addr"}

// checkOnce refuses options that would have no effect. What the environment says is
// said to all commands.
func checkOnce(cmd *cli.Command) error {
	for _, name := range neverOnce {
		if cmd.IsSet(name) && (name != "n-runners" || os.Getenv(envRunners) == "") {
			return usagef(cmd, "--%s has no effect with --once, which runs one task and ends: remove it", name)
		}
	}
	return nil
}

func onceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{
			Name: "once", Usage: "run the agent on one task past the queue, show its spans, and end: status 0 when it succeeded, else 1. " +
				"The store is one in memory, unless the command line or the environment names one",
		},
		&cli.StringFlag{Name: "input", Usage: "with --once: the task, as a line of a task file; `JSON`, @FILE, or - for standard input"},
		&cli.StringFlag{Name: "resources", Usage: "with --once: JSON `FILE` of resources to store first"},
		&cli.StringFlag{
			Name: "mode", Validator: oneOf(names(queue.Modes)...), DefaultText: "none", Usage: "with --once: `MODE` of the rollout: train, val or test",
		},
		&cli.BoolFlag{Name: "json", Usage: "with --once: print JSON, one object with rollout, reward, error and spans"},
	}
}

// once runs the agent on one task.
func (a *app) once(ctx context.Context, cmd *cli.Command) (err error) {
	if err := checkOnce(cmd); err != nil {
		return err
	}
	req, err := a.onceRequest(ctx, cmd)
	if err != nil {
		return err
	}
	var resources rawjson.Value
	if path := cmd.String("resources"); path != "" {
		if resources, err = readObject(path); err != nil {
			return err
		}
	}
	logs := a.logger(cmd)
	if !cmd.IsSet("log-level") {
		logs.levels, _ = parseLogLevels("WARNING") // what it shows is enough
	}
	s, url, closeStore, err := a.onceStore(cmd, logs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	if resources != nil {
		set, err := s.AddResources(ctx, resources)
		if err != nil {
			return fmt.Errorf("storing the resources: %w", err)
		}
		req.ResourcesID = &set.ResourcesID
	}
	x, err := a.newExtras(cmd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	return a.step(ctx, cmd, s, url, logs, x, req)
}

// step runs the agent and shows what came of it.
func (a *app) step(ctx context.Context, cmd *cli.Command, s queue.Store, url string, logs *logs, x *extras, req queue.Request) error {
	var spans []queue.Span
	shown := worker.Hooks{OnRolloutEnd: func(ctx context.Context, t *worker.Task, _ worker.End) (err error) {
		spans, err = t.Spans(ctx)
		return err
	}}
	log := logs.of("worker")
	handler, closeAgent := a.agentHandler(cmd, nil, x, log)
	o := a.workerOptions(cmd, url, x)
	o.ID, o.Logger, o.Hooks = cmd.String("worker-id"), log, append(o.Hooks, shown)
	done, err := worker.New(s, handler, o).Step(ctx, req)
	closeAgent(ctx)
	if done.Attempt == nil {
		return err
	}
	show := showStep
	if cmd.Bool("json") {
		show = showStepJSON
	}
	if failed := show(a.stdout, done, spans); failed != nil {
		return errors.Join(err, failed)
	}
	if err == nil && done.Status != queue.RolloutSucceeded {
		return errFailed
	}
	return err
}

func (a *app) onceRequest(ctx context.Context, cmd *cli.Command) (queue.Request, error) {
	text := []byte(cmd.String("input"))
	var err error
	switch file, isFile := strings.CutPrefix(cmd.String("input"), "@"); {
	case len(text) == 0:
		return queue.Request{}, usagef(cmd, "--once needs a task: --input '{…}', --input @FILE, or --input - for standard input")
	case string(text) == "-":
		var in io.ReadCloser
		if in, err = a.inputFile("-").reader(ctx, nil); err == nil {
			text, err = readAtMost(in, maxTaskBytes)
		}
	case isFile:
		text, err = readFileAtMost(file, maxTaskBytes)
	}
	if err != nil {
		return queue.Request{}, fmt.Errorf("reading the task: %w", err)
	}
	req, err := parseTask(bytes.TrimSpace(text), queue.Request{Mode: queue.Mode(cmd.String("mode"))})
	if err != nil {
		return queue.Request{}, usagef(cmd, "--input: %v", err)
	}
	return req, nil
}

func readFileAtMost(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAtMost(file, most)
}

func readAtMost(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("it is larger than %d MiB", most>>20)
	}
	return text, err
}

// onceStore is the store that the command line or the environment names, else one
// in memory behind a port of this machine, so that programs can send it spans.
func (a *app) onceStore(cmd *cli.Command, logs *logs) (s queue.Store, url string, closeStore func() error, err error) {
	named := cmd.String("store-url") != ""
	for _, name := range []string{"AGL_SERVER_HOST", "AGL_SERVER_PORT"} {
		named = named || os.Getenv(name) != ""
	}
	if named {
		if url, err = storeURL(cmd); err != nil {
			return nil, "", nil, err
		}
		c := client.New(url, client.Options{})
		return c, url, func() error { c.Close(); return nil }, nil
	}
	const host = "127.0.0.1"
	listener, err := net.Listen("tcp", host+":0")
	if err != nil {
		return nil, "", nil, fmt.Errorf("listening for the agent's spans: %w", err)
	}
	log := logs.of("store")
	inMemory := store.New(memory.New(memory.Options{Logger: log}), store.Options{Logger: log})
	server, _ := a.serve(inMemory, newAPI(cmd, inMemory, nil, logs.of("http")), listener, host, log)
	return server.queue, server.url, server.close, nil
}

// showStep writes the end of a rollout, its spans as a tree, and its output.
func showStep(out io.Writer, r queue.AttemptedRollout, spans []queue.Span) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s  %s", r.RolloutID, r.Status)
	if r.EndTime != nil {
		fmt.Fprintf(&text, "  %s", spanOfTime(r.StartTime, r.EndTime))
	}
	if reward, ok := semconv.FinalReward(spans); ok {
		fmt.Fprintf(&text, "  reward %s", strconv.FormatFloat(reward, 'g', -1, 64))
	}
	fmt.Fprintln(&text)
	if failure := r.Attempt.Metadata.Get("error").Text(); failure != "" {
		fmt.Fprintf(&text, "error: %s\n", printable(failure))
	}
	fmt.Fprintln(&text)
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for depth, s := range spanTree(spans) {
		took := ""
		if s.StartTime != nil && s.EndTime != nil {
			took = fmt.Sprintf("%.0fms", math.Max(0, *s.EndTime-*s.StartTime)*1000)
		}
		status := ""
		if s.StatusCode() == "ERROR" {
			status = "ERROR"
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\n", strings.Repeat("  ", depth), cell(s.Name), took, status, spanSummary(s))
	}
	_ = w.Flush() // of a buffer
	for i := range spans {
		writeTail(&text, &spans[i], "aglq.stdout.tail", "standard output")
		writeTail(&text, &spans[i], "aglq.stderr.tail", "standard error")
	}
	_, err := out.Write(text.Bytes())
	return err
}

// spanSummary is a span's attributes in short, without the output that is shown
// whole.
func spanSummary(s *queue.Span) string {
	var parts []string
	for key, val := range s.Attributes.Members() {
		name := rawjson.Unescape(key)
		if strings.HasPrefix(name, "aglq.std") {
			continue
		}
		text := val.String()
		if val.Kind() == rawjson.KindString {
			text = val.Text()
		}
		parts = append(parts, cell(name+"="+text))
	}
	const most = 4
	if len(parts) > most {
		parts = append(parts[:most], "…")
	}
	return strings.Join(parts, " ")
}

func writeTail(out io.Writer, s *queue.Span, key, title string) {
	text := strings.TrimRight(s.Attribute(key).Text(), "\n")
	if text == "" {
		return
	}
	fmt.Fprintf(out, "\n%s:\n", title)
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(out, "  %s\n", printable(line))
	}
}

// spanTree gives each span below its parent, with its depth, in the order of their
// starts. One whose parent is not there is at the top, and so is the first of those
// that are each other's parents.
func spanTree(spans []queue.Span) func(yield func(int, *queue.Span) bool) {
	const top = ""
	known := map[string]bool{}
	for i := range spans {
		known[spans[i].SpanID] = true
	}
	below := map[string][]*queue.Span{}
	for i := range spans {
		parent := top
		if p := spans[i].ParentID; p != nil && known[*p] {
			parent = *p
		}
		below[parent] = append(below[parent], &spans[i])
	}
	start := func(s *queue.Span) float64 {
		if s.StartTime == nil {
			return 0
		}
		return *s.StartTime
	}
	for _, list := range below {
		slices.SortStableFunc(list, func(a, b *queue.Span) int { return cmp.Compare(start(a), start(b)) })
	}
	return func(yield func(int, *queue.Span) bool) {
		told := map[*queue.Span]bool{}
		var tell func(depth int, list []*queue.Span) bool
		tell = func(depth int, list []*queue.Span) bool {
			for _, s := range list {
				if told[s] {
					continue
				}
				told[s] = true
				if !yield(depth, s) || s.SpanID != top && !tell(depth+1, below[s.SpanID]) {
					return false
				}
			}
			return true
		}
		if !tell(0, below[top]) {
			return
		}
		for i := range spans {
			if !tell(0, []*queue.Span{&spans[i]}) {
				return
			}
		}
	}
}

// showStepJSON writes the same as one JSON object.
func showStepJSON(out io.Writer, r queue.AttemptedRollout, spans []queue.Span) error {
	dst := r.AppendJSON([]byte(`{"rollout":`))
	dst = append(dst, `,"reward":`...)
	reward, ok := semconv.FinalReward(spans)
	switch {
	case !ok:
		dst = append(dst, "null"...)
	case math.IsNaN(reward) || math.IsInf(reward, 0):
		dst = rawjson.AppendString(dst, strconv.FormatFloat(reward, 'g', -1, 64))
	default:
		dst = strconv.AppendFloat(dst, reward, 'g', -1, 64)
	}
	dst = append(dst, `,"error":`...)
	if failure := r.Attempt.Metadata.Get("error"); failure != nil {
		dst = append(dst, failure...)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"spans":[`...)
	for i := range spans {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = spans[i].AppendJSON(dst)
	}
	_, err := out.Write(append(dst, "]}\n"...))
	return err
}
