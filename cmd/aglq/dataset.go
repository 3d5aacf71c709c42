package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/internal/child"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
)

// datasetFlags are the options of aglq export that have to do with datasets.
func datasetFlags() []cli.Flag {
	return flags([]cli.Flag{
		&cli.StringFlag{
			Name: "out", Usage: "`FILE` for the rows; it ends with " + orList(dataset.Suffixes) + "; - is standard output, as JSON lines, without a manifest",
		},
		&cli.StringFlag{Name: "archive", Usage: "`FILE`, an archive, to read in the place of a store"},
	}, selectionFlags(), []cli.Flag{
		&cli.StringFlag{Name: "judgment", Usage: "`TEXT` of the last judgment, as acceptable"},
		&cli.StringFlag{Name: "measure", Usage: "`NAME` of a measure that must have been taken, with a result as --measure-passed says"},
		&cli.BoolFlag{Name: "measure-passed", Value: true, Usage: "whether the measure must have passed; false takes those that failed"},
		&cli.BoolFlag{Name: "include-system", Value: true, Usage: "keep messages of the system"},
		&cli.BoolFlag{Name: "include-tool-calls", Value: true, Usage: "keep calls of tools, their answers and definitions"},
		&cli.BoolFlag{Name: "each-call", Usage: "make a row of each call of a model, and not only of the longest conversations"},
		&cli.BoolFlag{Name: "origin", Usage: "add rollout_id, attempt_id, span_id and reward to rows that do not have them"},
		&cli.StringFlag{
			Name: "dedup", Value: "none", Validator: oneOf("response_id", "none"),
			Usage: "`FIELD` by which rows of different attempts are the same: response_id or none",
		},
		&cli.Int64Flag{Name: "max", DefaultText: "unlimited", Validator: count64, Usage: "most `ROWS`"},
		&cli.Int64Flag{Name: "shard", DefaultText: "one file", Validator: positive64, Usage: "`ROWS` in a file, after which the next one begins"},
		&cli.StringFlag{
			Name: "train-on", Value: "all", Validator: oneOf("all", "last"),
			Usage: "`ANSWERS` of a row that openai-ft learns: all or last",
		},
		&cli.StringFlag{
			Name: "triplets", Value: "auto", Validator: oneOf(dataset.TripletSources...),
			Usage: "`SOURCE` of triplets: proxy, the spans of an LLM proxy, tracer, or auto, the former where it recorded calls",
		},
		&cli.StringFlag{Name: "llm-call", DefaultText: "those of OpenAI's client", Validator: validPattern, Usage: "`REGEXP` of the names of spans that are calls, for triplets of a tracer"},
		&cli.StringFlag{Name: "agent", DefaultText: "any", Validator: validPattern, Usage: "`REGEXP` of the names of agents whose calls count, for triplets of a tracer"},
		&cli.StringFlag{
			Name: "reward-match", Value: "first_occurrence", Validator: oneOf("first_occurrence", "first_sibling", "sequence"),
			Usage: "`RULE` by which rewards without links go to calls, for triplets of a tracer: first_occurrence, first_sibling or sequence",
		},
		&cli.StringFlag{Name: "train-cmd", Usage: "shell `COMMAND` to run on the dataset; its exit status is that of the export"},
	})
}

// selectionFlags say which attempts are meant.
func selectionFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{
			Name: "status", DefaultText: string(queue.RolloutSucceeded), Validator: eachOneOf(append(names(queue.RolloutStatuses), "all")...),
			Usage: "`STATUS` of the rollouts, or all; repeat it or use commas",
		},
		&cli.StringSliceFlag{Name: "rollout-id", Usage: "`ID` of a rollout; repeat it or use commas"},
		&cli.StringSliceFlag{Name: "mode", Validator: eachOneOf(names(queue.Modes)...), Usage: "`MODE` of the rollouts; repeat it or use commas"},
		&cli.StringSliceFlag{Name: "resources-id", Usage: "`ID` of the resources that the rollouts were given; repeat it or use commas"},
		momentFlag("since", "all", "`TIME` from which on rollouts ended"),
		momentFlag("until", "all", "`TIME` before which rollouts ended"),
		&textsFlag{Name: "metadata", Validator: validMetadata, Usage: "`KEY=VALUE` of the rollouts' metadata; dots lead into objects; repeat it for more"},
		&cli.FloatFlag{Name: "min-reward", DefaultText: "none", Usage: "least final `REWARD`"},
		&cli.FloatFlag{Name: "max-reward", DefaultText: "none", Usage: "highest final `REWARD`"},
		&cli.FloatFlag{
			Name: "top-fraction", DefaultText: "all", Validator: validFraction,
			Usage: "`PART`, above 0 and up to 1, of what else is selected that has the highest rewards; takes a second reading",
		},
		&cli.Uint64Flag{Name: "seed", Usage: "`NUMBER` that decides which of equal rewards --top-fraction takes"},
		&textsFlag{Name: "tag", Usage: "`TAG` that a span of the attempt has; repeat it for more"},
		&cli.StringFlag{
			Name: "attempt", Value: dataset.LatestAttempt, Validator: oneOf(dataset.AttemptChoices...),
			Usage: "`WHICH` attempts of a rollout: latest, best, which has the highest reward, or all",
		},
		whereFlag("only attempts of the rollouts"),
	}
}

func count64(n int64) error {
	if n < 0 {
		return fmt.Errorf("it must be 0 or more")
	}
	return nil
}

func positive64(n int64) error {
	if n < 1 {
		return fmt.Errorf("it must be 1 or more")
	}
	return nil
}

func validPattern(text string) error {
	_, err := regexp.Compile(text)
	return err
}

func validMetadata(list []string) error {
	for _, text := range list {
		if _, err := dataset.ParseMetadataMatch(text); err != nil {
			return err
		}
	}
	return nil
}

func validFraction(f float64) error {
	if !(f > 0 && f <= 1) {
		return fmt.Errorf("it must be above 0 and at most 1")
	}
	return nil
}

// selection is the filter that the options ask for.
func selection(cmd *cli.Command) (dataset.Filter, error) {
	f := dataset.Filter{
		Statuses: words[queue.RolloutStatus](cmd, "status"), RolloutIDs: words[string](cmd, "rollout-id"), Modes: words[queue.Mode](cmd, "mode"),
		ResourceIDs: words[string](cmd, "resources-id"), TopFraction: cmd.Float("top-fraction"), Seed: cmd.Uint64("seed"),
		Tags: cmd.StringSlice("tag"), Attempt: cmd.String("attempt"),
	}
	for _, s := range f.Statuses {
		if s == "all" {
			f.Statuses = queue.RolloutStatuses
		}
	}
	f.RolloutIDs = orNil(unique(f.RolloutIDs))
	for _, text := range cmd.StringSlice("metadata") {
		m, _ := dataset.ParseMetadataMatch(text) // checked by the option
		f.Metadata = append(f.Metadata, m)
	}
	now := time.Now()
	f.Since, f.Until = moment(cmd, "since", now), moment(cmd, "until", now)
	for name, bound := range map[string]**float64{"min-reward": &f.MinReward, "max-reward": &f.MaxReward} {
		if cmd.IsSet(name) {
			value := cmd.Float(name)
			*bound = &value
		}
	}
	f.Where, _ = compileWhere(cmd.String("where")) // checked by the option
	if cmd.IsSet("seed") && !cmd.IsSet("top-fraction") {
		return f, usagef(cmd, "--seed decides among equals of --top-fraction: give both")
	}
	if err := f.Validate(); err != nil {
		return f, usagef(cmd, "%s", err)
	}
	return f, nil
}

func orNil[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

// rewardMatches are the values of --reward-match.
var rewardMatches = map[string]adapter.RewardMatch{
	"first_occurrence": adapter.FirstOccurrence, "first_sibling": adapter.FirstSibling, "sequence": adapter.Sequence,
}

func datasetOptions(cmd *cli.Command) (dataset.Options, error) {
	f, err := selection(cmd)
	if err != nil {
		return dataset.Options{}, err
	}
	f.Judgment, f.Measure = cmd.String("judgment"), cmd.String("measure")
	if f.MeasureFailed = !cmd.Bool("measure-passed"); cmd.IsSet("measure-passed") && f.Measure == "" {
		return dataset.Options{}, usagef(cmd, "--measure-passed needs --measure")
	}
	o := dataset.Options{
		Filter: f, Format: dataset.Format(cmd.String("format")),
		WithoutSystem: !cmd.Bool("include-system"), WithoutToolCalls: !cmd.Bool("include-tool-calls"), EachCall: cmd.Bool("each-call"),
		Origin: cmd.Bool("origin"), DedupResponses: cmd.String("dedup") == "response_id", LastOnly: cmd.String("train-on") == "last",
		Triplets: dataset.TripletOptions{Source: cmd.String("triplets"), Match: rewardMatches[cmd.String("reward-match")]},
	}
	if cmd.IsSet("max") {
		most := cmd.Int64("max")
		o.Max = &most
	}
	if text := cmd.String("llm-call"); text != "" {
		o.Triplets.LLMCall = regexp.MustCompile(text) // checked by the option
	}
	if text := cmd.String("agent"); text != "" {
		o.Triplets.Agent = regexp.MustCompile(text)
	}
	for name, formats := range optionFormats {
		if cmd.IsSet(name) && !formats[o.Format] {
			return o, usagef(cmd, "--%s does nothing in the format %s", name, o.Format)
		}
	}
	if err := o.Validate(); err != nil {
		return o, usagef(cmd, "%s", err)
	}
	return o, nil
}

// optionFormats are the formats of options that the others have no use for.
var optionFormats = func() map[string]map[dataset.Format]bool {
	chats := map[dataset.Format]bool{dataset.Conversational: true, dataset.OpenAIFT: true, dataset.PromptCompletionFormat: true}
	triplets := map[dataset.Format]bool{dataset.TripletFormat: true}
	originless := maps.Clone(chats)
	delete(originless, dataset.OpenAIFT)
	return map[string]map[dataset.Format]bool{
		"include-system": chats, "include-tool-calls": chats, "each-call": chats, "origin": originless,
		"train-on": {dataset.OpenAIFT: true},
		"triplets": triplets, "llm-call": triplets, "agent": triplets, "reward-match": triplets,
	}
}()

// exportDataset makes a dataset, and has a command trained on it.
func (a *app) exportDataset(ctx context.Context, cmd *cli.Command) error {
	if cmd.Args().Present() {
		return usagef(cmd, "the file of a dataset is named by --out")
	}
	opts, err := datasetOptions(cmd)
	if err != nil {
		return err
	}
	out := dataset.Output{Path: cmd.String("out"), Shard: cmd.Int64("shard"), Aglq: version()}
	train := cmd.String("train-cmd")
	switch {
	case out.Path == "":
		return usagef(cmd, "where to? --out names the file")
	case out.Path == "-" && (out.Shard > 0 || train != ""):
		return usagef(cmd, "--shard and --train-cmd need files: --out must name one")
	case out.Path != "-":
		if err := out.Validate(opts.Format); err != nil {
			return usagef(cmd, "%s", err)
		}
	}
	out.Filters = givenOptions(cmd, opts.Filter)
	var m dataset.Manifest
	err = a.withSource(ctx, cmd, &out, func(src dataset.Source) (err error) {
		if out.Path == "-" {
			m.Counts, err = a.printDataset(ctx, src, opts)
		} else {
			m, err = dataset.WriteFiles(ctx, src, opts, out)
		}
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "exported %s\n", &m.Counts)
	if train == "" {
		return nil
	}
	return a.train(ctx, train, out, m)
}

// printDataset writes rows to standard output.
func (a *app) printDataset(ctx context.Context, src dataset.Source, opts dataset.Options) (dataset.Counts, error) {
	w := dataset.NewLines(a.stdout)
	counts, err := dataset.Export(ctx, src, opts, w.Write)
	return counts, errors.Join(err, w.Close())
}

// withSource runs do on what is read: a store, a database or an archive. It fills in
// what the manifest says of it.
func (a *app) withSource(ctx context.Context, cmd *cli.Command, out *dataset.Output, do func(dataset.Source) error) error {
	direct, err := directly(cmd)
	if err != nil {
		return err
	}
	path := cmd.String("archive")
	switch {
	case path != "" && (direct || storeGiven(cmd)):
		return usagef(cmd, "--archive names another place than --store-url and --mongo-uri: give one")
	case path != "":
		out.Store = path
		return do(dataset.ArchiveSource{Open: func(context.Context) (archive.Items, io.Closer, error) { return openArchive(path) }})
	case direct:
		b, err := a.openPlace(ctx, cmd)
		if err != nil {
			return err
		}
		defer func() { _ = b.Close(context.WithoutCancel(ctx)) }()
		out.Store = withoutPassword(cmd.String("mongo-uri")) + " " + cmd.String("partition-id")
		return do(dataset.ArchiveSource{Open: func(ctx context.Context) (archive.Items, io.Closer, error) {
			return archive.Scan(ctx, b), io.NopCloser(nil), nil
		}})
	}
	return a.withPatientStore(ctx, cmd, func(s *client.Client) error {
		out.Store = withoutPassword(s.URL())
		return do(dataset.StoreSource{Store: s})
	})
}

// withoutPassword is an address as it may be written down.
func withoutPassword(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Redacted()
}

// openedArchive is an archive and the file it is in.
type openedArchive struct {
	reader *archive.Reader
	file   *os.File
}

// Close implements io.Closer.
func (o openedArchive) Close() error {
	o.reader.Close()
	return o.file.Close()
}

func openArchive(path string) (archive.Items, io.Closer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	r, err := archive.NewReader(file)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return r.Items(), openedArchive{r, file}, nil
}

// givenOptions are the options of a dataset that were given, for its manifest. Times
// that were told from now are there as times.
func givenOptions(cmd *cli.Command, f dataset.Filter) map[string]any {
	given := map[string]any{}
	for _, flag := range datasetFlags() {
		if name := flag.Names()[0]; cmd.IsSet(name) && name != "out" && name != "train-cmd" {
			given[name] = cmd.Value(name)
		}
	}
	for name, at := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !at.IsZero() {
			given[name] = at.UTC()
		}
	}
	for _, name := range []string{"min-reward", "max-reward"} {
		if bound, ok := given[name].(float64); ok && math.IsInf(bound, 0) { // JSON has no infinity
			given[name] = fmt.Sprint(bound)
		}
	}
	return given
}

// The variables of a command that is to train on a dataset.
const (
	datasetVariable  = "AGLQ_DATASET"          // its file, the first one of several
	filesVariable    = "AGLQ_DATASET_FILES"    // all of them, a JSON list
	manifestVariable = "AGLQ_DATASET_MANIFEST" // its manifest's file
	formatVariable   = "AGLQ_DATASET_FORMAT"
	rowsVariable     = "AGLQ_DATASET_ROWS"
)

// trainGrace is how long training may take to end when it is told to, to save what it
// has.
const trainGrace = 30 * time.Second

// train runs a command on a dataset: its first argument is the file, its standard
// input the manifest, and variables tell the rest.
func (a *app) train(ctx context.Context, command string, out dataset.Output, m dataset.Manifest) error {
	if m.Counts.Rows == 0 {
		return errors.New("there is nothing to train on: no row is left of what was read; ask for less")
	}
	path, err := filepath.Abs(out.ManifestPath())
	if err != nil {
		return err
	}
	files := m.Paths(path)
	list, err := json.Marshal(files)
	if err != nil {
		return fmt.Errorf("encoding the names of the files: %w", err)
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding the manifest: %w", err)
	}
	cmd := exec.Command("sh", "-c", command, "train", files[0])
	cmd.Env = append(os.Environ(), datasetVariable+"="+files[0], filesVariable+"="+string(list), manifestVariable+"="+path,
		formatVariable+"="+string(m.Format), fmt.Sprintf("%s=%d", rowsVariable, m.Counts.Rows))
	state, err := child.Run(ctx, cmd, child.Options{
		Feed: child.Input(append(manifest, '\n')), Stdout: a.stdout, Stderr: a.stderr, Grace: trainGrace,
	})
	switch {
	case err != nil:
		return fmt.Errorf("starting the training: %w", err)
	case state.ExitCode() > 0:
		return &statusError{state.ExitCode(), fmt.Errorf("training failed: %s", state)}
	case !state.Success():
		return fmt.Errorf("training failed: %s", state)
	}
	return nil
}
