package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/apo"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
)

// defaultPromptName is what a prompt from a file is called among the resources.
const defaultPromptName = "prompt"

func (a *app) apoCommand() *cli.Command {
	return &cli.Command{
		Name: "apo", Usage: "improve a prompt by criticism and trial (automatic prompt optimisation)",
		Description: "One model criticises the prompt in the light of what agents did with it, another rewrites it, agents try\n" +
			"what they wrote. The best prompt is among the resources under the name of the run.",
		Flags: flags([]cli.Flag{
			storeURLFlag(),
			&cli.StringFlag{Name: "train", Usage: "`FILE` with a training task a line (needed)"},
			&cli.StringFlag{Name: "val", Usage: "`FILE` with a validation task a line (needed)"},
			&cli.StringFlag{Name: "prompt", Usage: "`FILE` with the text of the prompt"},
			&cli.StringFlag{Name: "engine", Value: apo.FString, Validator: oneOf(apo.Engines...), Usage: "with --prompt: `ENGINE` that fills it in: f-string, jinja or poml"},
			&cli.StringFlag{Name: "resources", Usage: "JSON `FILE` of the resources that agents get; without --prompt the first prompt template among them is the prompt"},
			&cli.StringFlag{Name: "resources-id", Usage: "`ID` of such resources in the store, in place of --resources"},
			&cli.StringFlag{Name: "run", DefaultText: "a new one", Usage: "`NAME` of the search; that of an earlier one goes on with it"},
			&cli.StringFlag{Name: "gradient-model", Value: apo.DefaultGradientModel, Usage: "`MODEL` that criticises"},
			&cli.StringFlag{Name: "apply-edit-model", Value: apo.DefaultApplyEditModel, Usage: "`MODEL` that rewrites"},
			&cli.FloatFlag{
				Name: "diversity-temperature", Value: apo.DefaultDiversityTemperature,
				Usage: "`TEMPERATURE` of both models; a negative one leaves it to them",
			},
			countFlag("gradient-batch-size", apo.DefaultGradientBatchSize, "training tasks that a critique goes by"),
			countFlag("val-batch-size", apo.DefaultValBatchSize, "validation tasks that a round scores prompts by"),
			countFlag("beam-width", apo.DefaultBeamWidth, "prompts that a round keeps"),
			countFlag("branch-factor", apo.DefaultBranchFactor, "rewrites of each prompt in a round"),
			countFlag("beam-rounds", apo.DefaultBeamRounds, "rounds"),
			&secondsFlag{
				Name: "rollout-batch-timeout", Value: apo.DefaultRolloutBatchTimeout,
				Usage: "`SECONDS` after which the rest of a batch is cancelled and does not count",
			},
			&cli.BoolFlag{Name: "skip-initial-validation", Usage: "do not score the prompt as it is"},
			&cli.Uint64Flag{Name: "seed", Usage: "`NUMBER` that the draws follow from"},
			&cli.StringFlag{Name: "out", DefaultText: "standard output", Usage: "`FILE` for the best prompt"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON: a line a round, then the final state"},
		}, modelFlags(), rolloutLimitFlags(), []cli.Flag{metricsAddrFlag()}, logFlags()),
		Action: a.action(a.apo),
	}
}

// countFlag is an option that counts something, from 1.
func countFlag(name string, value int, what string) cli.Flag {
	return &cli.IntFlag{Name: name, Value: value, Usage: "`NUMBER` of " + what, Validator: within(1, math.MaxInt)}
}

// modelFlags say where an algorithm's language models are. The key is a variable alone,
// so that no list of processes shows it.
func modelFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "llm-base-url", Value: "https://api.openai.com/v1", Sources: cli.EnvVars("OPENAI_BASE_URL"), Validator: validStoreURL,
			Usage: "`URL` of the models' server, which speaks OpenAI's chat completions; its key is the variable OPENAI_API_KEY",
		},
	}
}

func modelServer(cmd *cli.Command) *llmclient.Client {
	return &llmclient.Client{BaseURL: cmd.String("llm-base-url"), APIKey: os.Getenv("OPENAI_API_KEY"), HTTP: &http.Client{}}
}

func (a *app) apo(ctx context.Context, cmd *cli.Command) error {
	if err := noArgs(cmd); err != nil {
		return err
	}
	for _, name := range []string{"train", "val"} {
		if cmd.String(name) == "" {
			return usagef(cmd, "--%s is missing: a file with a task a line", name)
		}
	}
	switch from := cmd.String("resources") != ""; {
	case from && cmd.IsSet("resources-id"):
		return usagef(cmd, "give --resources or --resources-id, not both")
	case !from && !cmd.IsSet("resources-id") && cmd.String("prompt") == "":
		return usagef(cmd, "there is no prompt: give --prompt, --resources or --resources-id")
	}
	log := a.logger(cmd).of("algorithm")
	config := apo.Config{
		Run: cmd.String("run"), LLM: modelServer(cmd),
		GradientModel: cmd.String("gradient-model"), ApplyEditModel: cmd.String("apply-edit-model"), DiversityTemperature: cmd.Float("diversity-temperature"),
		GradientBatchSize: cmd.Int("gradient-batch-size"), ValBatchSize: cmd.Int("val-batch-size"), BeamWidth: cmd.Int("beam-width"),
		BranchFactor: cmd.Int("branch-factor"), BeamRounds: cmd.Int("beam-rounds"), RolloutBatchTimeout: cmd.Duration("rollout-batch-timeout"),
		SkipInitialValidation: cmd.Bool("skip-initial-validation"), Seed: cmd.Uint64("seed"), Rollout: rolloutConfig(cmd), Logger: log,
	}
	var err error
	if config.Train, err = a.loadTasks(ctx, cmd.String("train")); err != nil {
		return err
	}
	if config.Val, err = a.loadTasks(ctx, cmd.String("val")); err != nil {
		return err
	}
	if out := cmd.String("out"); out != "" {
		if err := canWrite(out); err != nil {
			return err
		}
	}
	halt, err := a.serveMetrics(cmd, log)
	if err != nil {
		return err
	}
	defer halt()
	return a.withPatientStore(ctx, cmd, func(s *client.Client) error {
		if config.Resources, err = apoResources(ctx, cmd, s); err != nil {
			return err
		}
		tally := newTally(0)
		config.OnResult = func(r algorithm.Result) { tally.add(r) }
		rounds := roundWriter{out: a.stdout, json: cmd.Bool("json")}
		config.OnRound = func(r apo.Round) { rounds.round(r, apoHead, apoRow(r)) }
		stop := a.reportTally(ctx, log, tally, s)
		state, err := apo.Run(ctx, algorithm.New(s, algorithm.Options{Observer: a.algorithmObserver(cmd)}), config)
		stop()
		if err != nil {
			return err
		}
		file := cmd.String("out")
		if err := writePrompt(&state, file); err != nil {
			return err
		}
		return rounds.end(state, func() error { return a.printPrompt(&state, file) })
	})
}

// apoResources are the resources with the prompt that the options name.
func apoResources(ctx context.Context, cmd *cli.Command, s *client.Client) (rawjson.Value, error) {
	resources := rawjson.EmptyObject
	var err error
	switch {
	case cmd.String("resources") != "":
		resources, err = readObject(cmd.String("resources"))
	case cmd.String("resources-id") != "":
		var stored *queue.ResourcesUpdate
		if stored, err = s.Resources(ctx, cmd.String("resources-id")); err == nil && stored == nil {
			err = queue.Errorf(queue.NotFound, "resources %s not found", cmd.String("resources-id"))
		}
		if err == nil {
			resources = stored.Resources
		}
	}
	if err != nil || cmd.String("prompt") == "" {
		return resources, err
	}
	text, err := os.ReadFile(cmd.String("prompt"))
	if err != nil {
		return nil, err
	}
	prompt, err := rawjson.Marshal(queue.PromptTemplate{
		ResourceType: queue.PromptType, Template: strings.TrimRight(string(text), "\r\n"), Engine: cmd.String("engine"),
	})
	if err != nil {
		return nil, err
	}
	name, _, err := apo.PromptOf(resources)
	if err != nil {
		name = defaultPromptName
	}
	return replaceMember(resources, name, prompt), nil
}

// replaceMember sets a member of an object, in its place or at the end.
func replaceMember(object rawjson.Value, name string, val rawjson.Value) rawjson.Value {
	var dst []byte
	found := false
	for key, old := range object.Members() {
		if rawjson.Unescape(key) == name {
			found, old = true, val
		}
		dst = rawjson.AppendMember(dst, key, old)
	}
	if !found {
		quoted := rawjson.AppendString(nil, name)
		dst = rawjson.AppendMember(dst, quoted[1:len(quoted)-1], val)
	}
	return append(dst, '}')
}

// apoHead and apoRow are the table of a search for a prompt.
var apoHead = fmt.Sprintf("%5s %10s %7s %7s %8s %8s %6s %8s %8s",
	"ROUND", "CANDIDATES", "DROPPED", "LEADER", "SCORE", "FULL", "BEST", "SCORE", "SECONDS")

func apoRow(r apo.Round) string {
	return fmt.Sprintf("%5d %10d %7d %7s %8s %8s %6s %8s %8.1f", r.Round, r.Candidates, r.Dropped,
		fmt.Sprintf("v%d", r.Leader), scoreCell(r.Score), scoreCell(r.Full), fmt.Sprintf("v%d", r.Best), scoreCell(r.BestScore), r.Seconds)
}

func scoreCell(score *float64) string {
	if score == nil {
		return "-"
	}
	return fmt.Sprintf("%.4f", *score)
}

// partialOf is where a file is written that is to appear whole.
func partialOf(file string) string { return file + ".partial" }

// canWrite has a path that cannot be written show before hours of work, not after.
func canWrite(file string) error {
	switch info, err := os.Stat(file); {
	case err == nil && info.IsDir():
		return fmt.Errorf("%s is a directory; --out takes a file", file)
	case err == nil && !info.Mode().IsRegular():
		return nil
	}
	f, err := os.Create(partialOf(file))
	if err != nil {
		return fmt.Errorf("the best prompt cannot be written: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(partialOf(file)))
}

// writeBest writes a file that is whole, or not there; a device is written as it is.
func writeBest(file, text string) error {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(file, []byte(text), 0o666)
	}
	if err := os.WriteFile(partialOf(file), []byte(text), 0o666); err != nil {
		return err
	}
	return os.Rename(partialOf(file), file)
}

// writePrompt writes the best prompt into a file, where one is named.
func writePrompt(state *apo.State, file string) error {
	if file == "" {
		return nil
	}
	return writeBest(file, state.Best.Template+"\n")
}

// printPrompt prints what a search for a prompt has found: the prompt, too, where it is
// in no file.
func (a *app) printPrompt(state *apo.State, file string) error {
	fmt.Fprintf(a.stdout, "\nthe best prompt is %s, score %s; the seed's is %s; agents get it with resources %s\n",
		state.Best.ResourcesID, scoreCell(state.Best.Score), scoreCell(state.Seed.Score), state.Run)
	if file != "" {
		return nil
	}
	_, err := fmt.Fprintf(a.stdout, "\n%s\n", state.Best.Template)
	return err
}
